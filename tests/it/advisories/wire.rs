//! Advisories on bytes, frames, request heads and memory.

use std::time::{Duration, Instant};

use curfew_testkit::mint::Key;
use curfew_testkit::{OutFrame, opcode};
use curfew_tests::{ADMIN_KEY, Gateway, Settings, TestCertificate};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

/// Centrifugo CVE-2026-62963, NATS CVE-2026-27571, websocket-driver CVE-2026-54464: the memory that
/// the decompression of a message takes.
#[tokio::test]
async fn cve_2026_62963_compression_is_not_agreed_on() {
    let gateway = Gateway::start_default().await;
    let before = gateway.rss_kib();
    for token in [Some(Key::default_secret().user("alice")), None] {
        let mut connect = gateway.ws().header(
            "Sec-WebSocket-Extensions",
            "permessage-deflate; client_max_window_bits",
        );
        if let Some(token) = &token {
            connect = connect.bearer(token);
        }
        let mut client = connect.open().await;
        assert_eq!(client.response().header("sec-websocket-extensions"), None);
        // These bytes stand for the start of a compressed megabyte of zeros.
        let bomb = [&[0x78, 0x9c][..], &[0; 1000]].concat();
        client
            .send_frame(OutFrame::new(opcode::TEXT, bomb).rsv(4))
            .await;
        assert_eq!(client.closed().await.0, 1002);
    }
    let grown = gateway.rss_kib().saturating_sub(before);
    assert!(grown < 2048, "{grown} KiB");
}

/// NATS: a 64-bit frame length with its first bit set was read as a negative number, even before
/// authentication.
#[tokio::test]
async fn cve_2026_27889_a_length_with_the_first_bit_set_is_a_protocol_error() {
    let gateway = Gateway::start_default().await;
    let mut witness = gateway.user("bob").await;
    let frame = [0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 1];
    for connect in [
        gateway.ws(),
        gateway.ws().bearer(&Key::default_secret().user("alice")),
    ] {
        for early in [true, false] {
            let mut client = if early {
                connect.clone().behind_bytes(&frame).open().await
            } else {
                connect.clone().open().await
            };
            if !early {
                client.send_bytes(&frame).await;
            }
            assert_eq!(client.closed().await.0, 1002);
        }
    }
    assert!(witness.barrier().await.is_empty());
    gateway.assert_alive().await;
}

/// ws: a client could send a frame with FIN=0, and then continuation frames without end.
#[tokio::test]
async fn cve_2026_62389_endless_fragments_end() {
    let settings = Settings::default().with(r#"limits.message_timeout = "1s""#);
    let gateway = Gateway::start_with(&settings).await;
    let before = gateway.rss_kib();
    for connect in [
        gateway.ws(),
        gateway.ws().bearer(&Key::default_secret().user("alice")),
    ] {
        let mut client = connect.clone().open().await;
        client.send_frame(OutFrame::text("").fin(false)).await;
        let more: Vec<OutFrame> = (0..64)
            .map(|_| OutFrame::new(opcode::CONTINUATION, "").fin(false))
            .collect();
        client.send_frames(&more).await;
        assert_eq!(client.closed().await.0, 1009);
        let mut client = connect.open().await;
        client.send_frame(OutFrame::text("x").fin(false)).await;
        assert_eq!(client.closed().await.0, 1008);
    }
    let grown = gateway.rss_kib().saturating_sub(before);
    assert!(grown < 2048, "{grown} KiB");
}

/// ws: a request with more headers than expected crashed the server.
#[tokio::test]
async fn cve_2024_37890_two_thousand_headers_are_too_many() {
    let gateway = Gateway::start_default().await;
    let mut connect = gateway.ws();
    for n in 0..2000 {
        connect = connect.header(&format!("X-{n}"), "");
    }
    assert_eq!(connect.refused().await.status, 431);
    gateway.assert_alive().await;
}

/// ws: a regular expression took very long on blanks in `Sec-WebSocket-Protocol`.
#[tokio::test]
async fn cve_2021_32640_blanks_in_the_subprotocol_cost_nothing() {
    let gateway = Gateway::start_default().await;
    gateway.user("alice").await;
    let before = gateway.cpu_time();
    for value in [
        format!("a{}b", " ".repeat(15_000)),
        format!("curfew.v1{}", ", ".repeat(7000)),
        format!("curfew.v1{}x", ",\t ".repeat(4000)),
    ] {
        drop(gateway.ws().subprotocols(&value).attempt().await);
    }
    let used = gateway.cpu_time() - before;
    assert!(used < Duration::from_millis(200), "{used:?}");
}

/// ws: the reason of a close contained uninitialized memory.
#[tokio::test]
async fn cve_2026_45736_a_close_reason_is_what_was_set() {
    let gateway = Gateway::start_default().await;
    let mut client = gateway.user("alice").await;
    client.send_text("hello").await;
    client.expect_json(json!({"type":"closing"})).await;
    let close = client.next_message().await;
    assert_eq!(close.opcode, opcode::CLOSE);
    assert_eq!(&close.payload[2..], b"bad_request");
    // The node never echoes more bytes of a reason than the client has sent.
    let mut client = gateway.user("alice").await;
    client.send_frame(OutFrame::close(1000, b"x")).await;
    let close = client.next_message().await;
    assert!(close.payload.len() <= 3, "{close:?}");
}

/// socket.io CVE-2026-33151, -69185, -59725, parser CVE-2022-2421, CVE-2020-36048: the server
/// relied on counts and ids that the client had chosen.
#[tokio::test]
async fn cve_2022_2421_ids_and_counts_of_a_client_are_only_echoed() {
    let gateway = Gateway::start_default().await;
    let mut client = gateway.user("alice").await;
    for id in ["__proto__", "constructor", "", "0", "toString"] {
        client.send(json!({"type":"ping","id":id})).await;
        client.expect_json(json!({"type":"pong","id":id})).await;
        client
            .send(json!({"type":"subscribe","id":id,"channel":"__proto__"}))
            .await;
        client.expect_json(json!({"type":"ok","id":id})).await;
        client
            .send(json!({"type":"unsubscribe","id":id,"channel":"__proto__"}))
            .await;
        client.expect_json(json!({"type":"ok","id":id})).await;
    }
    client
        .send(json!({"type":"ping","id":"x".repeat(60_000)}))
        .await;
    // The node either echoes the id or answers that the command is malformed.
    let answer = client.next_json().await;
    assert!(
        answer["type"] == "pong" || answer["code"] == "bad_request",
        "{}",
        answer["type"]
    );
    let before = gateway.rss_kib();
    client
        .send(json!({"type":"publish","id":1,"channel":"a","data":{"_placeholder":true,"num":4_000_000_000_u32},"attachments":1_000_000_000}))
        .await;
    client
        .expect_json(json!({"type":"error","code":"bad_request"}))
        .await;
    assert!(gateway.rss_kib().saturating_sub(before) < 1024);
}

/// engine.io CVE-2022-21676, CVE-2022-41940: one bad client ended the process.
#[tokio::test]
async fn cve_2022_41940_no_client_ends_the_process_and_every_socket_is_closed() {
    let gateway = Gateway::start_default().await;
    let base = gateway.open_fds();
    for bytes in [
        &b"GET /ws?EIO=4&transport=websocket HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"[..],
        b"GET /ws HTTP/1.1\r\n",
        b"\xff\xfe\xfd",
        b"",
    ] {
        for _ in 0..10 {
            let mut stream = gateway.ws().stream().await.unwrap();
            stream.write_all(bytes).await.unwrap();
            stream.tcp().set_zero_linger().unwrap();
        }
    }
    curfew_tests::eventually("all file descriptors back", async || {
        (gateway.open_fds() <= base).then_some(())
    })
    .await;
    gateway.assert_alive().await;
}

/// tungstenite: at each piece of a head that arrived in small pieces, the head was parsed from its
/// start.
#[tokio::test]
async fn cve_2023_43669_a_head_byte_by_byte_costs_little() {
    let gateway = Gateway::start_default().await;
    gateway.user("alice").await;
    let connect = gateway.ws().header("X-Pad", "x".repeat(15_000));
    let before = gateway.cpu_time();
    let mut stream = connect.stream().await.unwrap();
    for byte in connect.to_bytes() {
        if stream.write_all(&[byte]).await.is_err() {
            break;
        }
    }
    let used = gateway.cpu_time() - before;
    // The 15,000 small reads have a cost of their own. Parsing the head from its start at each read
    // would take seconds.
    assert!(used < Duration::from_secs(2), "{used:?}");
    gateway.assert_alive().await;
}

/// rust-websocket: the server allocated as much memory as a frame's length declared.
#[tokio::test]
async fn rustsec_2022_0035_a_declared_length_allocates_nothing() {
    let gateway = Gateway::start_default().await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(gateway.ws().open().await);
        clients.push(gateway.user("alice").await);
    }
    let before = gateway.rss_kib();
    for client in &mut clients {
        client
            .send_frame(OutFrame::text("x").declaring(1 << 32))
            .await;
        assert_eq!(client.closed().await.0, 1009);
    }
    let grown = gateway.rss_kib().saturating_sub(before);
    assert!(grown < 1024, "{grown} KiB");
}

/// `ws` (Rust): the queue towards a client that does not read had no bound.
#[tokio::test]
async fn rustsec_2020_0043_replies_to_a_client_that_does_not_read_are_bounded() {
    let gateway = Gateway::start_default().await;
    let connect = gateway
        .ws()
        .bearer(&Key::default_secret().user("alice"))
        .receive_buffer(16 * 1024);
    let (mut client, _) = gateway.connected(connect).await;
    let before = gateway.rss_kib();
    // Each answer repeats the command's long id. The client reads nothing, so the answers queue up
    // in the node.
    let id = "i".repeat(50_000);
    let ping = OutFrame::text(&json!({"type":"unsubscribe","id":id,"channel":"a"}).to_string());
    let began = Instant::now();
    while client.try_send_bytes(&ping.to_bytes()).await.is_ok() {
        if began.elapsed() > Duration::from_secs(8) {
            break;
        }
    }
    let grown = gateway.rss_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB");
    gateway
        .until_metric("curfew_connections", |n| n == 0.0)
        .await;
    gateway.user("bob").await;
}

/// Deno, which uses fastwebsockets: a close could not be written while a read was waiting.
#[tokio::test]
async fn deno_a_close_goes_out_while_a_read_waits() {
    let gateway = Gateway::start_default().await;
    let mut idle = gateway.user("alice").await;
    let mut halfway = gateway.user("alice").await;
    halfway
        .send_bytes(&OutFrame::text("{\"type\":\"ping\"}").to_bytes()[..7])
        .await;
    let receipt = gateway.revoke(json!({"kind":"user","value":"alice"})).await;
    assert_eq!(receipt["closed"], 2, "{receipt}");
    idle.expect_close(4403, "revoked").await;
    halfway.expect_close(4403, "revoked").await;
}

/// Granian: a byte outside ASCII in `Sec-WebSocket-Protocol` ended the worker.
#[tokio::test]
async fn granian_no_header_byte_ends_the_worker() {
    let gateway = Gateway::start_default().await;
    let names = [
        "Sec-WebSocket-Protocol",
        "Authorization",
        "Origin",
        "Cookie",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Version",
        "Upgrade",
        "Connection",
        "Host",
        "X-Forwarded-For",
        "traceparent",
    ];
    for name in names {
        for byte in [0x80, 0xbf, 0xc0, 0xfe, 0xff_u8] {
            let connect = gateway.ws().without(name).header(name, [b'a', byte, b'b']);
            if let Err(refused) = connect.attempt().await {
                assert!(
                    matches!(refused.status, 400 | 403 | 426),
                    "{name} {byte}: {}",
                    refused.status
                );
            }
        }
        // Control characters make the header invalid.
        for byte in [0_u8, 1, 0x7f] {
            let connect = gateway.ws().without(name).header(name, [b'a', byte, b'b']);
            if let Ok(Err(refused)) = connect.try_attempt().await {
                assert_eq!(refused.status, 400, "{name} {byte}");
            }
        }
    }
    gateway.assert_alive().await;
}

/// hyper RUSTSEC-2021-0020, -0078, Pingora RUSTSEC-2026-0033: one request could be hidden in
/// another.
#[tokio::test]
async fn rustsec_2021_0078_no_request_hides_in_an_upgrade() {
    let gateway = Gateway::start_default().await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for framing in [
        "Content-Length: +5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: identity, chunked\r\nContent-Length: 5\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding:\x0bchunked\r\n",
    ] {
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: a\r\n{upgrade}{framing}\r\n0\r\n\r\nGET /ws HTTP/1.1\r\nHost: a\r\n\r\n"
        );
        let mut stream = gateway.ws().stream().await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut all = Vec::new();
        let reading = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut all);
        drop(
            tokio::time::timeout(curfew_testkit::PATIENCE, reading)
                .await
                .expect("the node closes the connection"),
        );
        let text = String::from_utf8_lossy(&all);
        assert!(
            text.is_empty() || text.starts_with("HTTP/1.1 4") || text.starts_with("HTTP/1.1 501"),
            "{framing}: {text}"
        );
        assert!(text.matches("HTTP/1.1 ").count() <= 1, "{framing}: {text}");
    }
}

/// h2 RUSTSEC-2026-0258 and others are faults of HTTP/2, which the node does not offer.
#[tokio::test]
async fn rustsec_2026_0258_http2_is_not_spoken() {
    let directory = tempfile::tempdir().unwrap();
    let certificate = TestCertificate::new();
    let (cert, key) = certificate.write(directory.path());
    let settings = Settings::default()
        .with(&format!("server.tls_cert_file = {cert:?}"))
        .with(&format!("server.tls_key_file = {key:?}"));
    let gateway = Gateway::start_in(directory, &settings.to_toml()).await;
    let both = curfew_testkit::trusting(
        std::slice::from_ref(&certificate.der),
        &[b"h2", b"http/1.1"],
    );
    let stream = gateway.ws().tls(both, "localhost").stream().await.unwrap();
    assert_ne!(stream.alpn().as_deref(), Some(&b"h2"[..]));
    drop(gateway);

    let gateway = Gateway::start_default().await;
    let answer = curfew_testkit::http::request(
        gateway.address(),
        "GET",
        "/ws",
        &[("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABkAAQAAP__")],
        b"",
    )
    .await;
    assert!((400..500).contains(&answer.status), "{}", answer.status);
}

/// mercurius: a limit applied to HTTP and not to WebSocket.
#[tokio::test]
async fn cve_2026_30241_size_and_depth_are_limited_on_every_way_in() {
    let gateway = Gateway::start_default().await;
    let mut listener = gateway.subscriber("bob", "a").await;
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let large = format!("\"{}\"", "x".repeat(300_000));
    for data in [&deep, &large] {
        let mut client = gateway.user("alice").await;
        client
            .send_text(&format!(
                r#"{{"type":"publish","id":1,"channel":"a","data":{data}}}"#
            ))
            .await;
        let mut refused = false;
        while let curfew_testkit::Incoming::Frame(frame) =
            client.incoming(curfew_testkit::PATIENCE).await
        {
            refused |= frame.opcode == opcode::CLOSE || frame.text().contains("bad_request");
            if refused {
                break;
            }
        }
        assert!(refused);
        for (path, target) in [
            ("/v1/publish", "\"channel\":\"a\""),
            ("/v1/broadcast", "\"channels\":[\"a\"]"),
        ] {
            let answer = curfew_testkit::http::request(
                gateway.admin_address(),
                "POST",
                path,
                &[("Authorization", &format!("Bearer {ADMIN_KEY}"))],
                format!("{{{target},\"data\":{data}}}").as_bytes(),
            )
            .await;
            assert!(
                (400..500).contains(&answer.status),
                "{path}: {}",
                answer.status
            );
        }
    }
    assert!(listener.barrier().await.is_empty());
}

/// Centrifugo #1174: a rate limit was off unless another option was set; #1179: request paths
/// became metric labels. See also the tests in `limits` and `metrics`.
#[tokio::test]
async fn centrifugo_1174_the_rate_is_limited_with_nothing_else_set() {
    let settings = Settings::default().with("limits.messages_per_second = 1");
    let gateway = Gateway::start_with(&settings).await;
    let mut client = gateway.user("alice").await;
    let pings: Vec<OutFrame> = (0..20)
        .map(|n| OutFrame::text(&json!({"type":"ping","id":n}).to_string()))
        .collect();
    client.send_frames(&pings).await;
    let mut limited = 0;
    for _ in 0..20 {
        limited += usize::from(client.next_json().await["code"] == "rate_limited");
    }
    assert!(limited >= 15, "{limited}");
}
