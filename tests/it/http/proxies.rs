//! The client's address behind load balancers, and the peers that may state it.

use std::net::SocketAddr;

use curfew_testkit::http::{Response, read_response, request};
use curfew_testkit::mint::Key;
use curfew_tests::{Gateway, Settings, curfew, eventually};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::is_problem;

const TRUSTED: &str = r#"server.trusted_proxies = ["127.0.0.0/8", "10.0.0.0/8"]"#;

/// The addresses of all sessions.
async fn addresses(gateway: &Gateway) -> Vec<String> {
    let listed = gateway.admin_ok("GET", "/v1/sessions", None).await;
    let sessions = listed["sessions"].as_array().unwrap();
    let address = |session: &Value| session["address"].as_str().unwrap_or("none").to_owned();
    sessions.iter().map(address).collect()
}

/// Regression: behind a load balancer, every client had the load balancer's address.
#[tokio::test]
async fn a_trusted_proxys_clients_are_who_it_says() {
    let gateway = Gateway::start_with(&Settings::default().with(TRUSTED)).await;
    for (name, value, expect) in [
        ("X-Forwarded-For", "203.0.113.1", "203.0.113.1"),
        (
            "X-Forwarded-For",
            "1.2.3.4, 203.0.113.2, 10.0.0.9",
            "203.0.113.2",
        ),
        ("Forwarded", "for=\"[2001:db8::1]:99\"", "2001:db8::1"),
        ("X-Forwarded-For", "rubbish", "127.0.0.1"),
    ] {
        let connect = gateway.ws().header(name, value);
        // One client sends the token in the request, and another client sends it in the first
        // message.
        let token = Key::default_secret().user("alice");
        let (client, _) = gateway.connected(connect.clone().bearer(&token)).await;
        let mut later = connect.open().await;
        later
            .send(serde_json::json!({"type":"auth","token":token}))
            .await;
        later
            .expect_json(serde_json::json!({"type":"connected"}))
            .await;
        assert_eq!(
            addresses(&gateway).await,
            [expect, expect],
            "{name}: {value}"
        );
        drop((client, later));
        eventually("no session", async || {
            addresses(&gateway).await.is_empty().then_some(())
        })
        .await;
    }
}

/// Regression: the node believed a header that any client can write.
#[tokio::test]
async fn no_one_else_is_believed() {
    let default = Settings::default();
    for settings in [
        default.clone(),
        default.with(r#"server.trusted_proxies = ["192.0.2.1"]"#),
    ] {
        let gateway = Gateway::start_with(&settings).await;
        let token = Key::default_secret().user("alice");
        let connect = gateway
            .ws()
            .bearer(&token)
            .header("X-Forwarded-For", "203.0.113.1")
            .header("Forwarded", "for=203.0.113.1");
        let (_client, _) = gateway.connected(connect).await;
        assert_eq!(addresses(&gateway).await, ["127.0.0.1"]);
    }
    // The trusted proxy writes one of the two headers, and a client adds the other. The node
    // believes neither.
    let gateway = Gateway::start_with(&Settings::default().with(TRUSTED)).await;
    let connect = gateway
        .ws()
        .bearer(&Key::default_secret().user("alice"))
        .header("X-Forwarded-For", "203.0.113.1")
        .header("Forwarded", "for=198.51.100.1");
    let (_client, _) = gateway.connected(connect).await;
    assert_eq!(addresses(&gateway).await, ["127.0.0.1"]);
}

#[tokio::test]
async fn limits_count_the_clients_of_a_proxy_one_by_one() {
    let settings = Settings::default()
        .with(TRUSTED)
        .with("limits.unauthenticated_per_address = 2");
    let gateway = Gateway::start_with(&settings).await;
    let from = |address: &str| gateway.ws().header("X-Forwarded-For", address);
    let mut open = Vec::new();
    for address in [
        "203.0.113.1",
        "203.0.113.1",
        "203.0.113.2",
        "203.0.113.2",
        "203.0.113.3",
    ] {
        open.push(from(address).open().await);
    }
    let refused = from("203.0.113.1").refused().await;
    assert_eq!(refused.status, 429);
    is_problem(&refused, "rate_limited");
    let logged = |entry: &Value| entry["peer"] == "203.0.113.1" && entry["reason"] == "limit";
    eventually("the client's address in the log", async || {
        gateway.log().entries().iter().any(logged).then_some(())
    })
    .await;
    // Regression: a client that added a header of its own did not count for any address.
    let disputed = || from("203.0.113.1").header("Forwarded", "proto=https");
    for _ in 0..2 {
        open.push(disputed().open().await);
    }
    assert_eq!(disputed().refused().await.status, 429);
    drop(open);
    eventually("another connection from the client's address", async || {
        from("203.0.113.1").attempt().await.ok()
    })
    .await;
}

/// Sends a PROXY header, and an upgrade request with a token of `alice`. Returns the connection and
/// the answer.
async fn proxied(address: SocketAddr, header: &[u8]) -> (TcpStream, Response) {
    let token = Key::default_secret().user("alice");
    let connect = curfew_testkit::Connect::to(address).bearer(&token);
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The network may cut the header anywhere. The node must not mistake a part of it for something
    // else.
    let (begin, end) = header.split_at(header.len() / 2);
    for piece in [begin, end, &connect.to_bytes()] {
        stream.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut buffer = bytes::BytesMut::new();
    let answer = read_response(&mut stream, &mut buffer).await.unwrap();
    (stream, answer)
}

#[tokio::test]
async fn the_proxy_protocol_names_clients_in_both_versions() {
    let version_2 = [
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(),
        &[203, 0, 113, 2, 192, 0, 2, 1, 1, 2, 3, 4],
    ]
    .concat();
    for settings in [
        Settings::default().with("server.proxy_protocol = true"),
        Settings::default()
            .with("server.proxy_protocol = true")
            .with(TRUSTED),
    ] {
        let gateway = Gateway::start_with(&settings).await;
        for (header, expect) in [
            (
                &b"PROXY TCP4 203.0.113.1 192.0.2.1 4711 443\r\n"[..],
                "203.0.113.1",
            ),
            (&version_2, "203.0.113.2"),
            (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        ] {
            let (stream, answer) = proxied(gateway.address(), header).await;
            assert_eq!(answer.status, 101, "{}", answer.text());
            eventually("the session", async || {
                (addresses(&gateway).await == [expect]).then_some(())
            })
            .await;
            drop(stream);
            eventually("no session", async || {
                addresses(&gateway).await.is_empty().then_some(())
            })
            .await;
        }
        // A peer that sends no PROXY header gets an error that names the setting.
        let answer = request(gateway.address(), "GET", "/ws", &[], b"").await;
        assert_eq!(answer.status, 400);
        is_problem(&answer, "bad_request");
        assert!(
            answer.text().contains("server.proxy_protocol"),
            "{}",
            answer.text()
        );
        gateway.assert_alive().await;
    }
    // A peer that is not trusted may not send a PROXY header, and may connect without one.
    let settings = Settings::default()
        .with("server.proxy_protocol = true")
        .with(r#"server.trusted_proxies = ["192.0.2.1"]"#);
    let gateway = Gateway::start_with(&settings).await;
    let header = b"PROXY TCP4 203.0.113.1 192.0.2.1 4711 443\r\n";
    assert_eq!(proxied(gateway.address(), header).await.1.status, 400);
    gateway.user("alice").await;
}

/// Regression: the node's path was fixed, although existing clients have another path in their
/// URLs.
#[tokio::test]
async fn the_endpoint_has_the_paths_that_are_configured() {
    let settings = Settings::default().with(r#"server.path = ["/socket", "/api/v2/ws"]"#);
    let gateway = Gateway::start_with(&settings).await;
    let token = Key::default_secret().user("alice");
    for path in ["/socket", "/api/v2/ws", "/socket?a=b"] {
        let connect = gateway.ws().path(path.to_owned()).bearer(&token);
        gateway.connected(connect).await;
    }
    for path in ["/ws", "/socket/", "/socketx", "/"] {
        let answer = request(gateway.address(), "GET", path, &[], b"").await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(
            answer.text().contains("/socket, /api/v2/ws"),
            "{}",
            answer.text()
        );
    }
}

#[tokio::test]
async fn bad_proxies_and_paths_are_reported() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("curfew.toml");
    let settings = Settings::default()
        .with(r#"server.trusted_proxies = ["10.0.0.0/8", "10.0.0.1/8", "lb"]"#)
        .with(r#"server.path = ["/ok", "ws", "/revoke", "/a?b", "/client.js"]"#);
    std::fs::write(&file, settings.to_toml()).unwrap();
    let finished = curfew(&["check-config", "--config", file.to_str().unwrap()]).await;
    assert_eq!(finished.code, 2, "{}", finished.stderr);
    for key in [
        "server.trusted_proxies[1]",
        "server.trusted_proxies[2]",
        "server.path[1]",
        "server.path[2]",
        "server.path[3]",
        "server.path[4]",
    ] {
        assert!(finished.stderr.contains(key), "{key}: {}", finished.stderr);
    }
}
