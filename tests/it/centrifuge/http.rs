//! The Centrifuge client protocol without a WebSocket: the node sends messages in a streamed
//! answer, and the client sends commands in separate requests.

mod relay;
mod stream;

use curfew_testkit::http;
use curfew_testkit::mint::Key;
use curfew_testkit::{PATIENCE, Stream, trusting};
use curfew_tests::{Gateway, Settings, TestCertificate, eventually};
use serde_json::json;
use tokio::time::timeout;

use stream::{Client, End, KINDS, Kind, connect, delimited, field, part, request};

const RULES: &str = r#"
[[policy.rules]]
name = "everything"
channels = ["*"]
actions = ["subscribe", "publish", "history", "presence"]

[[channels]]
pattern = "room:*"
presence = true
"#;

fn settings() -> Settings {
    Settings::default()
        .rules(RULES)
        .with("centrifuge.enabled = true")
}

fn alice() -> String {
    Key::default_secret().user("alice")
}

/// The number in a field of a Protobuf message, if the number is below 128.
fn number(message: &[u8], tag: u8) -> Option<u8> {
    let at = message.iter().position(|byte| *byte == tag << 3)?;
    message.get(at + 1).copied()
}

async fn subscribe(client: &mut Client, kind: Kind, channel: &str) {
    match kind {
        Kind::Protobuf => {
            let command = [&[0x08, 2][..], &field(5, &field(1, channel.as_bytes()))].concat();
            client.send(&delimited(&command)).await;
            let reply = client.message().await.unwrap();
            assert_eq!(number(&reply, 1), Some(2));
            assert!(part(&reply, 6).is_some(), "{reply:?}");
        }
        Kind::Json | Kind::Sse => {
            let command = json!({"id":2,"subscribe":{"channel":channel}});
            client.send(command.to_string().as_bytes()).await;
            let reply = client.next().await;
            assert_eq!(reply["id"], 2, "{reply}");
            assert!(reply["subscribe"].is_object(), "{reply}");
        }
    }
}

/// The payload of the next publication.
async fn publication(client: &mut Client, kind: Kind) -> Vec<u8> {
    match kind {
        Kind::Protobuf => {
            let message = client.message().await.unwrap();
            let push = part(&message, 4).expect("a push");
            part(&part(&push, 4).expect("a publication"), 4).unwrap()
        }
        Kind::Json | Kind::Sse => {
            let message = client.next().await;
            message["push"]["pub"]["data"].to_string().into_bytes()
        }
    }
}

async fn publish(client: &mut Client, kind: Kind, channel: &str, data: &str) {
    let command = match kind {
        Kind::Protobuf => {
            let publish = [field(1, channel.as_bytes()), field(2, data.as_bytes())].concat();
            delimited(&[&[0x08, 3][..], &field(7, &publish)].concat())
        }
        Kind::Json | Kind::Sse => {
            format!(r#"{{"id":3,"publish":{{"channel":"{channel}","data":{data}}}}}"#).into_bytes()
        }
    };
    client.send(&command).await;
}

async fn sessions(gateway: &Gateway) -> usize {
    let listed = gateway.admin_ok("GET", "/v1/sessions", None).await;
    listed["sessions"].as_array().unwrap().len()
}

#[tokio::test]
async fn each_transport_connects_subscribes_publishes_and_is_pinged() {
    let settings = settings()
        .with("session.ping_interval = \"1s\"")
        .with("session.pong_timeout = \"500ms\"");
    let gateway = Gateway::start_with(&settings).await;
    for kind in KINDS {
        let mut client = Client::open(&gateway, kind, &alice()).await;
        let content = match kind {
            Kind::Json => "application/json",
            Kind::Protobuf => "application/octet-stream",
            Kind::Sse => "text/event-stream",
        };
        assert_eq!(client.head.header("content-type"), Some(content));
        assert_eq!(client.head.header("x-accel-buffering"), Some("no"));
        let cache = client.head.header("cache-control").unwrap();
        assert!(
            cache.contains("no-cache") && cache.contains("no-store"),
            "{cache}"
        );
        subscribe(&mut client, kind, "news").await;
        publish(&mut client, kind, "news", r#"{"n":1}"#).await;
        // The publisher receives the answer and the publication, in either order.
        let mut told = [
            client.message().await.unwrap(),
            client.message().await.unwrap(),
        ];
        told.sort_by_key(Vec::len);
        assert!(
            told[1].windows(7).any(|bytes| bytes == br#"{"n":1}"#),
            "{told:?}"
        );
        for _ in 0..3 {
            client.expect_ping().await;
        }
        gateway.publish("news", json!("later")).await;
        assert_eq!(publication(&mut client, kind).await, br#""later""#);
        let listed = gateway.admin_ok("GET", "/v1/sessions", None).await;
        let protocol = match kind {
            Kind::Protobuf => "centrifuge-protobuf",
            Kind::Json | Kind::Sse => "centrifuge-json",
        };
        assert_eq!(listed["sessions"][0]["protocol"], protocol, "{listed}");
        assert_eq!(
            listed["sessions"][0]["session"],
            client.id.as_str(),
            "{listed}"
        );
        drop(client);
        eventually("the session to end", async || {
            (sessions(&gateway).await == 0).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn requests_that_are_awaited_keep_their_order() {
    let gateway = Gateway::start_with(&settings()).await;
    for kind in KINDS {
        let mut listener = Client::open(&gateway, kind, &alice()).await;
        subscribe(&mut listener, kind, "news").await;
        let mut publisher = Client::open(&gateway, kind, &alice()).await;
        for n in 0..50 {
            publish(&mut publisher, kind, "news", &n.to_string()).await;
        }
        for n in 0..50 {
            let data = publication(&mut listener, kind).await;
            assert_eq!(data, n.to_string().into_bytes());
        }
    }
}

#[tokio::test]
async fn a_revocation_is_the_last_message_of_the_stream() {
    let gateway = Gateway::start_with(&settings()).await;
    for (n, kind) in KINDS.into_iter().enumerate() {
        let user = format!("user-{n}");
        let token = Key::default_secret().user(&user);
        let mut client = Client::open(&gateway, kind, &token).await;
        subscribe(&mut client, kind, "news").await;
        gateway.revoke(json!({"kind":"user","value":user})).await;
        gateway.publish("news", json!("after")).await;
        let (messages, end) = client.rest().await;
        assert_eq!(end, End::Whole);
        assert_eq!(messages.len(), 1, "{messages:?}");
        match kind {
            Kind::Protobuf => {
                let push = part(&messages[0], 4).unwrap();
                let disconnect = part(&push, 11).unwrap();
                // The code 3503 as a Protobuf varint.
                assert_eq!(
                    disconnect,
                    [&[0x08, 0xaf, 0x1b][..], &field(2, b"revoked")].concat()
                );
            }
            Kind::Json | Kind::Sse => {
                let expect = r#"{"push":{"disconnect":{"code":3503,"reason":"revoked"}}}"#;
                assert_eq!(String::from_utf8_lossy(&messages[0]), expect);
            }
        }
        // With the same token, a new request gets one message and opens no session.
        let again = Client::ask(&gateway, kind, &connect(kind, &token), &[]).await;
        assert_eq!(again.head.status, 200);
        let (messages, end) = { again }.rest().await;
        assert_eq!(end, End::Whole);
        assert_eq!(messages.len(), 1, "{messages:?}");
    }
}

#[tokio::test]
async fn a_secret_of_no_session_does_nothing_and_tells_nothing() {
    let gateway = Gateway::start_with(&settings()).await;
    for kind in KINDS {
        let mut client = Client::open(&gateway, kind, &alice()).await;
        subscribe(&mut client, kind, "news").await;
        let command = match kind {
            Kind::Protobuf => delimited(&[&[0x08, 9][..], &field(6, &field(1, b"news"))].concat()),
            _ => br#"{"id":9,"unsubscribe":{"channel":"news"}}"#.to_vec(),
        };
        // The session's public id is no secret, so the node does not accept it in place of the
        // secret.
        for session in ["", "unknown", client.id.as_str(), &"A".repeat(43)] {
            let answer = client.send_as(session, &client.node, &command, &[]).await;
            assert_eq!((answer.status, answer.body.len()), (204, 0), "{session}");
        }
        for node in ["", "nowhere", "01980000-0000-7000-8000-000000000000"] {
            let answer = client.send_as(&client.session, node, &command, &[]).await;
            assert_eq!(answer.status, 404, "{node}");
        }
        gateway.publish("news", json!("still")).await;
        assert_eq!(publication(&mut client, kind).await, br#""still""#);
        // A command for a session that has ended is answered with 204, like a command with an
        // unknown secret.
        let (session, node) = (client.session.clone(), client.node.clone());
        gateway
            .admin_ok("DELETE", &format!("/v1/sessions/{}", client.id), None)
            .await;
        assert_eq!(client.rest().await.1, End::Whole);
        assert_eq!(
            client.send_as(&session, &node, &command, &[]).await.status,
            204
        );
        assert!(!gateway.log().text().contains(&session));
    }
}

#[tokio::test]
async fn pages_of_other_origins_are_turned_away() {
    let settings = settings().with(r#"server.allowed_origins = ["https://app.example.com"]"#);
    let gateway = Gateway::start_with(&settings).await;
    let (ours, foreign) = ("https://app.example.com", "https://evil.example");
    for kind in KINDS {
        let path = match kind {
            Kind::Sse => "/connection/sse",
            _ => "/connection/http_stream",
        };
        let command = connect(kind, &alice());
        let refused = Client::ask(&gateway, kind, &command, &[("Origin", foreign)]).await;
        assert_eq!(refused.head.status, 403);
        assert_eq!(refused.head.header("access-control-allow-origin"), None);
        let mut client = Client::ask(&gateway, kind, &command, &[("Origin", ours)]).await;
        client.expect_connected().await;
        let head = &client.head;
        assert_eq!(head.header("access-control-allow-origin"), Some(ours));
        assert_eq!(
            head.header("access-control-allow-credentials"),
            Some("true")
        );
        for (origin, status) in [(ours, 204), (foreign, 403)] {
            let headers = [("Origin", origin)];
            let command = match kind {
                Kind::Protobuf => &[0][..],
                _ => b"{}",
            };
            let answer = client
                .send_as("unknown", &client.node, command, &headers)
                .await;
            assert_eq!(answer.status, status, "{origin}");
        }
        for path in [path, "/emulation"] {
            let preflight = [
                ("Origin", ours),
                ("Access-Control-Request-Method", "POST"),
                ("Access-Control-Request-Headers", "content-type, x-trace"),
            ];
            let answer = http::request(gateway.address(), "OPTIONS", path, &preflight, b"").await;
            assert_eq!(answer.status, 204);
            assert_eq!(answer.header("access-control-allow-origin"), Some(ours));
            assert_eq!(
                answer.header("access-control-allow-credentials"),
                Some("true")
            );
            let headers = answer.header("access-control-allow-headers").unwrap();
            assert!(headers.contains("content-type") && headers.contains("x-trace"));
            let wrong = http::request(gateway.address(), "DELETE", path, &[], b"").await;
            assert_eq!(wrong.status, 405);
        }
    }
}

#[tokio::test]
async fn a_reader_that_stops_is_cut_off_and_others_lose_nothing() {
    let gateway = Gateway::start_with(&settings()).await;
    let before = gateway.rss_kib();
    for kind in KINDS {
        let closed = gateway
            .metric("curfew_connections_closed_total{code=\"4508\"}")
            .await;
        let mut slow = Client::open(&gateway, kind, &alice()).await;
        subscribe(&mut slow, kind, "flood").await;
        let mut good = Client::open(&gateway, kind, &alice()).await;
        subscribe(&mut good, kind, "flood").await;
        let pad = "x".repeat(60_000);
        for _ in 0..200 {
            gateway.publish("flood", json!(pad)).await;
            assert_eq!(publication(&mut good, kind).await.len(), pad.len() + 2);
        }
        gateway
            .until_metric("curfew_connections_closed_total{code=\"4508\"}", |n| {
                n > closed
            })
            .await;
        // The client reads again. It receives the reason, or only the end if the node has already
        // cut the connection.
        let (messages, end) = slow.rest().await;
        let last = messages.last();
        let is_told = last.is_some_and(|last| last.windows(4).any(|bytes| bytes == b"slow"));
        assert!(is_told || end == End::Cut, "{end:?}");
    }
    let grown = gateway.rss_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB");
}

#[tokio::test]
async fn a_client_that_goes_is_gone_from_the_sessions_and_from_presence() {
    let gateway = Gateway::start_with(&settings()).await;
    for kind in KINDS {
        let mut client = Client::open(&gateway, kind, &alice()).await;
        subscribe(&mut client, kind, "room:1").await;
        let present = async || {
            let channel = gateway.admin_ok("GET", "/v1/channels/room:1", None).await;
            channel["presence"]["sessions"].as_array().unwrap().len()
        };
        assert_eq!((sessions(&gateway).await, present().await), (1, 1));
        drop(client);
        eventually("the end of the session and of its presence", async || {
            ((sessions(&gateway).await, present().await) == (0, 0)).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_node_that_leaves_tells_so_and_takes_no_more() {
    for kind in KINDS {
        let settings = settings().with(r#"drain.window = "1s""#);
        let mut gateway = Gateway::start_with(&settings).await;
        let mut client = Client::open(&gateway, kind, &alice()).await;
        gateway.terminate();
        let (messages, end) = client.rest().await;
        assert_eq!(end, End::Whole);
        let last = messages.last().unwrap();
        assert!(
            last.windows(8).any(|bytes| bytes == b"shutdown"),
            "{last:?}"
        );
        assert_eq!(gateway.exited(PATIENCE).await, 0);
    }
}

#[tokio::test]
async fn each_endpoint_is_there_only_where_it_is_switched_on() {
    let paths = ["/connection/http_stream", "/connection/sse", "/emulation"];
    for (off, there) in [
        ("enabled", [false, false, false]),
        ("http_stream", [false, true, true]),
        ("sse", [true, false, true]),
    ] {
        let settings = settings().with(&format!("centrifuge.{off} = false"));
        let gateway = Gateway::start_with(&settings).await;
        for (path, is_there) in paths.into_iter().zip(there) {
            let answer = http::request(gateway.address(), "OPTIONS", path, &[], b"").await;
            let expect = if is_there { 204 } else { 404 };
            assert_eq!(answer.status, expect, "{path} without {off}");
        }
    }
    let settings = settings()
        .with("centrifuge.http_stream = false")
        .with("centrifuge.sse = false");
    let gateway = Gateway::start_with(&settings).await;
    for path in paths {
        let answer = http::request(gateway.address(), "OPTIONS", path, &[], b"").await;
        assert_eq!(answer.status, 404, "{path}");
    }
}

#[tokio::test]
async fn streams_work_over_tls() {
    let certificate = TestCertificate::new();
    let directory = tempfile::tempdir().unwrap();
    let (cert, key) = certificate.write(directory.path());
    let settings = settings()
        .with(&format!("server.tls_cert_file = {cert:?}"))
        .with(&format!("server.tls_key_file = {key:?}"));
    let gateway = Gateway::start_in(directory, &settings.to_toml()).await;
    let trusted = trusting(std::slice::from_ref(&certificate.der), &[b"http/1.1"]);
    let tls = (trusted, "localhost".try_into().unwrap());
    for kind in KINDS {
        let address = gateway.address();
        let stream = Stream::connect(address, None, Some(&tls)).await.unwrap();
        // Commands after `connect` in the same message are executed as well.
        let mut command = connect(kind, &alice());
        match kind {
            Kind::Protobuf => {
                let subscribe = [&[0x08, 2][..], &field(5, &field(1, b"news"))].concat();
                command.extend_from_slice(&delimited(&subscribe));
            }
            _ => command.extend_from_slice(b"\n{\"id\":2,\"subscribe\":{\"channel\":\"news\"}}"),
        }
        let request = request(kind, &command, &[]);
        let mut client = Client::ask_on(stream, address, kind, &request).await;
        client.expect_connected().await;
        client.message().await.unwrap();
        let long = "x".repeat(60_000);
        gateway.publish("news", json!(long)).await;
        assert_eq!(publication(&mut client, kind).await.len(), 60_002);
    }
    gateway.revoke(json!({"kind":"user","value":"alice"})).await;
}

#[tokio::test]
async fn what_is_no_first_command_is_told_and_opens_nothing() {
    let settings = settings().with("auth.timeout = \"1s\"");
    let gateway = Gateway::start_with(&settings).await;
    for kind in KINDS {
        // A malformed message ends the stream with the reason.
        let mut client = Client::ask(&gateway, kind, b"nonsense", &[]).await;
        assert_eq!(client.head.status, 200);
        let (messages, end) = client.rest().await;
        assert_eq!(end, End::Whole);
        let last = messages.last().unwrap();
        assert!(
            last.windows(11).any(|bytes| bytes == b"bad request"),
            "{last:?}"
        );
    }
    // The message is too large for a command.
    let large = vec![b' '; 70_000];
    let refused = Client::ask(&gateway, Kind::Json, &large, &[]).await;
    assert_eq!(refused.head.status, 413);
    // The query has no command.
    let refused = http::request(gateway.address(), "GET", "/connection/sse", &[], b"").await;
    assert_eq!(refused.status, 400);
    // HTTP/1.0 has no chunked answers.
    let old = b"POST /connection/http_stream HTTP/1.0\r\nHost: node.test\r\n\r\n";
    assert_eq!(
        http::exchange(gateway.address(), old).await.unwrap().status,
        505
    );
    assert_eq!(sessions(&gateway).await, 0);
    // The node has closed the connection of each refused request.
    let gone = gateway.until_metric("curfew_connections", |open| open == 0.0);
    timeout(PATIENCE, gone).await.unwrap();
}

#[tokio::test]
async fn tokens_of_a_url_reach_no_log() {
    let gateway = Gateway::start_with(&settings()).await;
    let token = alice();
    let mut client = Client::open(&gateway, Kind::Sse, &token).await;
    subscribe(&mut client, Kind::Sse, "news").await;
    let bad = Key::hmac("HS256", b"another secret of thirty-two bytes!!").user("alice");
    let command = connect(Kind::Sse, &bad);
    let (messages, _) = { Client::ask(&gateway, Kind::Sse, &command, &[]).await }
        .rest()
        .await;
    assert!(!messages.is_empty());
    let log = gateway.log().text();
    for token in [token, bad, client.session.clone()] {
        let signature = token.rsplit('.').next().unwrap().to_owned();
        let encoded: String = signature
            .bytes()
            .map(|byte| format!("%{byte:02X}"))
            .collect();
        assert!(!log.contains(&signature) && !log.contains(&encoded));
    }
}
