//! The resources that unauthenticated clients may take at either listener, and the HTTP rules that
//! every client may rely on.

use std::time::Duration;

use curfew_testkit::http::{exchange, read_response};
use curfew_testkit::mint::Key;
use curfew_tests::{ADMIN_KEY, Dev, Gateway, Settings, eventually, eventually_within};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{answers, is_problem, listeners, said};

/// Regression: the memory that unauthenticated clients could take had no limit, neither for one
/// client nor for all clients.
#[tokio::test]
async fn heads_without_an_end_cost_either_listener_little() {
    let gateway = Gateway::start_default().await;
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(300_000));
    for (listener, address, _) in listeners(&gateway) {
        let before = gateway.rss_kib();
        let mut open = Vec::new();
        for _ in 0..300 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // The write may fail, because the node may answer and close before it has read all
            // bytes.
            drop(stream.write_all(head.as_bytes()).await);
            open.push(stream);
        }
        let grown = gateway.rss_kib().saturating_sub(before);
        assert!(grown < 40 * 1024, "{listener}: {grown} KiB");
    }
}

/// Regression: the admin listener had no limit on its connections.
#[tokio::test]
async fn the_admin_listener_has_as_many_connections_as_allowed() {
    let settings = Settings::default().with("admin.connections = 3");
    let gateway = Gateway::start_with(&settings).await;
    // Each connection has a request whose body is incomplete.
    let head = format!(
        "POST /v1/publish HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {ADMIN_KEY}\r\n\
         Expect: 100-continue\r\nContent-Length: 10\r\n\r\n"
    );
    let mut kept = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(gateway.admin_address()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut asked = [0; 25];
        stream.read_exact(&mut asked).await.unwrap();
        assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
        kept.push(stream);
    }
    let request = format!(
        "GET /livez HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "x".repeat(20_000)
    );
    let refused = exchange(gateway.admin_address(), request.as_bytes())
        .await
        .unwrap();
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some());
    is_problem(&refused, "unavailable");
    drop(kept);
    eventually("the node to be ready again", async || {
        gateway.ready().await.then_some(())
    })
    .await;
    assert!(answers(&gateway, "admin", "limit").await >= 1.0);
}

/// Regression: an unauthenticated client could use up the admin listener's limit on connections, so
/// that the node's health checks failed.
#[tokio::test]
async fn connections_without_a_request_keep_no_health_check_out() {
    let settings = Settings::default().with("admin.connections = 5");
    let gateway = Gateway::start_with(&settings).await;
    let mut idle = Vec::new();
    for n in 0..20 {
        let mut stream = TcpStream::connect(gateway.admin_address()).await.unwrap();
        if n % 2 == 0 {
            stream.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
        }
        idle.push(stream);
        gateway.assert_alive().await;
    }
    // The node has closed the connections that had waited longest, to make room.
    let mut last = [0; 1];
    let read = timeout(curfew_testkit::PATIENCE, idle[0].read(&mut last)).await;
    assert!(matches!(
        read.expect("the node closes the connection"),
        Ok(0) | Err(_)
    ));
    assert!(answers(&gateway, "admin", "limit").await >= 15.0);
}

/// Regression: the node reset a connection before the client had read the answer.
#[tokio::test]
async fn who_is_turned_away_at_a_limit_can_read_why() {
    let settings = Settings::default().with("limits.unauthenticated_per_address = 1");
    let gateway = Gateway::start_with(&settings).await;
    let first = TcpStream::connect(gateway.address()).await.unwrap();
    gateway
        .until_metric("curfew_unauthenticated_connections", |n| n == 1.0)
        .await;
    for pad in [10, 30_000] {
        let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
        // The node sends nothing before the client has sent its request.
        let mut early = [0; 1];
        assert_eq!(
            stream.try_read(&mut early).unwrap_err().kind(),
            std::io::ErrorKind::WouldBlock
        );
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
            "x".repeat(pad)
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
    }
    assert_eq!(answers(&gateway, "public", "limit").await, 2.0);
    drop(first);
}

/// Regression: a request over a limit was counted as if a dependency were unavailable, and the log
/// named other settings than the limit.
#[tokio::test]
async fn what_a_limit_turns_away_is_counted_as_that_and_the_log_names_the_setting() {
    for (setting, opens) in [
        ("limits.connections", true),
        ("limits.handshakes_per_second", true),
        ("limits.unauthenticated", false),
        ("limits.unauthenticated_per_address", false),
    ] {
        let settings = Settings::default().with(&format!("{setting} = 1"));
        let gateway = Gateway::start_with(&settings).await;
        let mut kept = Vec::new();
        let refused = eventually(setting, async || match opens {
            true => {
                let token = Key::default_secret().user("alice");
                match gateway.ws().bearer(&token).attempt().await {
                    Err(refused) => Some(refused),
                    Ok(client) => {
                        kept.push(client);
                        None
                    }
                }
            }
            false => {
                let _idle = TcpStream::connect(gateway.address()).await.unwrap();
                gateway
                    .until_metric("curfew_unauthenticated_connections", |n| n == 1.0)
                    .await;
                let request = b"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n";
                exchange(gateway.address(), request).await.ok()
            }
        })
        .await;
        assert!(matches!(refused.status, 429 | 503), "{}", refused.text());
        assert!(answers(&gateway, "public", "limit").await >= 1.0);
        assert_eq!(answers(&gateway, "public", "unavailable").await, 0.0);
        let told = gateway.log().entries().into_iter();
        let told: Vec<_> = told
            .filter(|entry| entry["message"] == "requests refused")
            .collect();
        assert_eq!(told.len(), 1, "{told:?}");
        let line = &told[0];
        assert_eq!(
            (&line["reason"], &line["limit"], &line["listener"]),
            (&json!("limit"), &json!(setting), &json!("public"))
        );
    }
}

/// Regression: an answer that the client did not read occupied memory without a time limit.
#[tokio::test]
async fn answers_that_are_not_read_time_out() {
    let gateway = Gateway::start_default().await;
    let before = gateway.open_fds();
    let stream = TcpStream::connect(gateway.admin_address()).await.unwrap();
    let request = b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2000);
    drop(stream.try_write(&request));
    eventually("the connection to be open", async || {
        (gateway.open_fds() > before).then_some(())
    })
    .await;
    eventually_within(Duration::from_secs(40), "it to be closed", async || {
        (gateway.open_fds() <= before).then_some(())
    })
    .await;
    drop(stream);
}

/// Regression: the node accepted requests that name no host or several hosts. Intermediaries may
/// read such requests in different ways.
#[tokio::test]
async fn a_request_names_one_host() {
    let gateway = Gateway::start_default().await;
    for (listener, address, path) in listeners(&gateway) {
        for host in [
            "",
            "Host: a\r\nHost: b\r\n",
            "Host: a b\r\n",
            "Host: a/b\r\n",
            "Host:\r\n",
        ] {
            for path in [path, "/nothing"] {
                let request = format!("GET {path} HTTP/1.1\r\n{host}\r\n");
                let answer = exchange(address, request.as_bytes()).await.unwrap();
                assert_eq!(answer.status, 400, "{listener} {path} {host:?}");
                is_problem(&answer, "bad_request");
            }
        }
        let old = format!("GET {path} HTTP/1.0\r\n\r\n");
        let answer = exchange(address, old.as_bytes()).await.unwrap();
        assert_ne!(answer.status, 400, "{listener}: HTTP/1.0 needs no host");
    }
}

/// Regression: health checks with the method HEAD got 405.
#[tokio::test]
async fn head_is_answered_wherever_get_is() {
    let gateway = Gateway::start_default().await;
    for path in [
        "/livez",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/v1/nodes",
        "/v1/sessions",
    ] {
        let head = |method: &str| {
            format!(
                "{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer {ADMIN_KEY}\r\n\r\n"
            )
        };
        let answer = said(gateway.admin_address(), head("HEAD").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{path} has a body: {answer}");
        let put = exchange(gateway.admin_address(), head("PUT").as_bytes())
            .await
            .unwrap();
        assert_eq!(put.status, 405, "{path}");
        assert!(put.header("allow").unwrap().contains("HEAD"), "{path}");
    }
    let upgrade = said(gateway.address(), b"HEAD /ws HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(upgrade.starts_with("HTTP/1.1 426"), "{upgrade}");
    let dev = Dev::start().await;
    let request = format!("HEAD / HTTP/1.1\r\nHost: {}\r\n\r\n", dev.address);
    let page = said(dev.address, request.as_bytes()).await;
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    assert!(page.ends_with("\r\n\r\n"), "{page}");
}

/// Regression: the header `Connection` of a 426 did not name `Upgrade`, because it was overwritten.
#[tokio::test]
async fn a_request_that_needs_an_upgrade_is_told_so_in_connection_too() {
    let gateway = Gateway::start_default().await;
    let answer = exchange(gateway.address(), b"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(answer.status, 426);
    assert_eq!(answer.header("upgrade"), Some("websocket"));
    let connection = answer
        .header("connection")
        .unwrap_or_default()
        .to_lowercase();
    assert!(connection.contains("upgrade"), "{connection}");
}

/// Regression: the node reported every malformed or incomplete body as a body that is too large.
#[tokio::test]
async fn a_body_that_is_malformed_or_incomplete_is_told_as_that() {
    let settings = Settings::default().with("auth.tickets = true");
    let gateway = Gateway::start_with(&settings).await;
    for (listener, address, path) in [
        ("admin", gateway.admin_address(), "/v1/publish"),
        ("public", gateway.address(), "/v1/tickets"),
    ] {
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {ADMIN_KEY}\r\n");
        for (framing, code, word) in [
            (
                "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
                "bad_request",
                "malformed",
            ),
            (
                "Transfer-Encoding: chunked\r\n\r\n2\r\n{}XX0\r\n\r\n",
                "bad_request",
                "malformed",
            ),
            (
                "Transfer-Encoding: chunked\r\n\r\n5\r\n{}",
                "body_incomplete",
                "incomplete",
            ),
            (
                "Content-Length: 5\r\n\r\n{}",
                "body_incomplete",
                "incomplete",
            ),
        ] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(framing.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut buffer = bytes::BytesMut::new();
            let answer = read_response(&mut stream, &mut buffer)
                .await
                .unwrap_or_else(|error| panic!("{listener} {framing:?}: {error}"));
            assert_eq!(
                answer.status,
                400,
                "{listener} {framing:?}: {}",
                answer.text()
            );
            is_problem(&answer, code);
            assert!(
                answer.text().contains(word),
                "{framing:?}: {}",
                answer.text()
            );
        }
    }
    assert_eq!(answers(&gateway, "admin", "body_incomplete").await, 2.0);
}

/// Regression: the node read the body of a request before it knew that the caller has the right to
/// send the request.
#[tokio::test]
async fn a_body_is_read_only_once_route_method_and_key_are_known() {
    let gateway = Gateway::start_default().await;
    for (request, status) in [
        ("POST /v1/nothing", 404),
        ("PUT /v1/publish", 405),
        ("POST /v1/publish", 401),
    ] {
        // The body never comes, so the node can answer only if it does not need the body.
        let bytes = format!("{request} HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n");
        let answer = exchange(gateway.admin_address(), bytes.as_bytes())
            .await
            .unwrap();
        assert_eq!(answer.status, status, "{request}");
    }
}
