//! The upgrade request, and malformed or refused upgrade requests (SECURITY rows 14, 22, 57-62).

use curfew_testkit::http::exchange;
use curfew_testkit::mint::Key;
use curfew_testkit::{Connect, OutFrame};
use curfew_tests::{ADMIN_KEY, Gateway};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn good(gateway: &Gateway) -> Connect {
    gateway.ws().bearer(&Key::default_secret().user("alice"))
}

#[tokio::test]
async fn requests_that_are_no_upgrade_are_refused_with_the_exact_status() {
    let gateway = Gateway::start_default().await;
    let replaced = |name: &str, value: &str| good(&gateway).without(name).header(name, value);
    for (what, connect, statuses) in [
        ("POST", good(&gateway).method("POST"), &[405, 400][..]),
        ("OPTIONS", good(&gateway).method("OPTIONS"), &[405, 400]),
        (
            "HTTP/1.0",
            good(&gateway).version("HTTP/1.0"),
            &[400, 505, 426],
        ),
        ("no Host", good(&gateway).without("Host"), &[400]),
        (
            "two Hosts",
            good(&gateway).header("Host", "evil.example"),
            &[400],
        ),
        (
            "no Connection",
            good(&gateway).without("Connection"),
            &[400, 426],
        ),
        (
            "Connection: close",
            replaced("Connection", "close"),
            &[400, 426],
        ),
        ("no Upgrade", good(&gateway).without("Upgrade"), &[400, 426]),
        ("Upgrade: h2c", replaced("Upgrade", "h2c"), &[400, 426]),
        (
            "no version",
            good(&gateway).without("Sec-WebSocket-Version"),
            &[400, 426],
        ),
        ("version 8", replaced("Sec-WebSocket-Version", "8"), &[426]),
        (
            "version 14",
            replaced("Sec-WebSocket-Version", "14"),
            &[426],
        ),
        (
            "no key",
            good(&gateway).without("Sec-WebSocket-Key"),
            &[400],
        ),
        ("an empty key", replaced("Sec-WebSocket-Key", ""), &[400]),
        (
            "a short key",
            replaced("Sec-WebSocket-Key", "c2hvcnQ="),
            &[400],
        ),
        (
            "a key of 17 bytes",
            replaced("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAAA="),
            &[400],
        ),
        (
            "a key that is no base64",
            replaced("Sec-WebSocket-Key", "!!!!!!!!!!!!!!!!!!!!!!=="),
            &[400],
        ),
        (
            "two keys",
            good(&gateway).header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            &[400],
        ),
        (
            "a body",
            good(&gateway)
                .header("Content-Length", "5")
                .behind_bytes(b"hello"),
            &[400],
        ),
        (
            "a chunked body",
            good(&gateway)
                .header("Transfer-Encoding", "chunked")
                .behind_bytes(b"0\r\n\r\n"),
            &[400],
        ),
        (
            "two lengths",
            good(&gateway)
                .header("Content-Length", "0")
                .header("Content-Length", "5"),
            &[400],
        ),
        (
            "length and chunks",
            good(&gateway)
                .header("Content-Length", "5")
                .header("Transfer-Encoding", "chunked"),
            &[400],
        ),
    ] {
        let answer = connect.attempt().await;
        let Err(answer) = answer else {
            panic!("{what} was accepted")
        };
        assert!(
            statuses.contains(&answer.status),
            "{what}: {} {}",
            answer.status,
            answer.text()
        );
        if answer.status == 426 && what.starts_with("version") {
            assert_eq!(answer.header("sec-websocket-version"), Some("13"), "{what}");
        }
    }
    gateway.connected(good(&gateway)).await;
}

#[tokio::test]
async fn tokens_in_headers_are_lists_and_case_does_not_matter() {
    let gateway = Gateway::start_default().await;
    let replaced = |name: &str, value: &str| good(&gateway).without(name).header(name, value);
    for connect in [
        replaced("Connection", "keep-alive, Upgrade"),
        replaced("Connection", "UPGRADE"),
        replaced("Upgrade", "WebSocket"),
        good(&gateway).header("Content-Length", "0"),
        good(&gateway).header(
            "Sec-WebSocket-Extensions",
            "permessage-deflate; client_max_window_bits",
        ),
    ] {
        let (client, _) = gateway.connected(connect).await;
        assert_eq!(client.response().header("sec-websocket-extensions"), None);
    }
}

#[tokio::test]
async fn a_body_is_not_taken_for_frames_nor_for_a_second_request() {
    let gateway = Gateway::start_default().await;
    let frame = OutFrame::text(r#"{"type":"ping"}"#).to_bytes();
    for connect in [
        good(&gateway)
            .header("Content-Length", frame.len().to_string())
            .behind_bytes(&frame),
        good(&gateway)
            .header("Content-Length", "5")
            .behind_bytes(b"helloGET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"),
        // Another request follows the refused request in the same segment.
        gateway.ws().without("Sec-WebSocket-Key").behind_bytes(
            format!(
                "GET /v1/nodes HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {ADMIN_KEY}\r\n\r\n"
            )
            .as_bytes(),
        ),
    ] {
        let mut stream = connect.stream().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, &connect.to_bytes())
            .await
            .unwrap();
        let mut all = Vec::new();
        let reading = stream.read_to_end(&mut all);
        // If the node closes with unread bytes, the connection is reset, and the end of the answer
        // may be lost. The test only checks the part that it received.
        drop(
            tokio::time::timeout(curfew_testkit::PATIENCE, reading)
                .await
                .expect("the node closes the connection"),
        );
        let text = String::from_utf8_lossy(&all);
        assert!(text.starts_with("HTTP/1.1 400"), "{text}");
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
        assert!(
            text.to_ascii_lowercase().contains("connection: close"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let gateway = Gateway::start_default().await;
    let many = |count: usize| {
        (0..count).fold(good(&gateway), |connect, n| {
            connect.header(&format!("X-{n}"), "x")
        })
    };
    for (what, connect, statuses) in [
        (
            "a token of 100 KB",
            gateway.ws().bearer(&"x".repeat(100_000)),
            &[431][..],
        ),
        (
            "a head of 33 KiB",
            good(&gateway).header("X-Pad", "x".repeat(33 * 1024)),
            &[431],
        ),
        ("101 headers", many(101), &[431]),
        ("2,000 headers", many(2000), &[431]),
        (
            "a path of 70,000 bytes",
            good(&gateway).path(format!("/ws?{}", "x".repeat(70_000))),
            &[414, 431],
        ),
    ] {
        let refused = connect.try_attempt().await;
        match refused {
            Ok(Err(answer)) => assert!(
                statuses.contains(&answer.status),
                "{what}: {}",
                answer.status
            ),
            Ok(Ok(_)) => panic!("{what} was accepted"),
            Err(error) => panic!("{what} was not answered: {error}"),
        }
    }
    let (mut client, _) = gateway
        .connected(many(30).header("X-Pad", "x".repeat(4000)))
        .await;
    assert!(client.barrier().await.is_empty());
}

#[tokio::test]
async fn bytes_that_are_no_ascii_in_credentials_are_refused_and_harm_nobody() {
    let gateway = Gateway::start_default().await;
    let mut witness = gateway.user("bob").await;
    let token = Key::default_secret().user("alice");
    for byte in [0x80_u8, 0xa0, 0xc3, 0xe9, 0xfe, 0xff] {
        let mut bytes = token.clone().into_bytes();
        bytes.push(byte);
        let with = |prefix: &str| [prefix.as_bytes(), &bytes].concat();
        for connect in [
            gateway.ws().header("Authorization", with("Bearer ")),
            gateway
                .ws()
                .header("Sec-WebSocket-Protocol", with("curfew.v1, bearer.")),
            gateway.ws().header("Sec-WebSocket-Protocol", [byte]),
            gateway.ws().header("Origin", [byte]).bearer(&token),
            gateway.ws().header("Cookie", with("token=")),
        ] {
            match connect.attempt().await {
                Err(refused) => assert!(
                    matches!(refused.status, 400 | 401 | 403),
                    "{}",
                    refused.status
                ),
                // The node accepts a request if these bytes are in no part that it reads.
                Ok(mut client) => {
                    let selected = client.response().header("sec-websocket-protocol");
                    assert!(selected.is_none_or(|selected| selected == "curfew.v1"));
                    client.send(json!({"type":"auth","token":"x"})).await;
                    client.next_json().await;
                }
            }
        }
    }
    assert!(witness.barrier().await.is_empty());
    gateway.assert_alive().await;
}

#[tokio::test]
async fn bytes_that_are_no_http_are_refused() {
    let gateway = Gateway::start_default().await;
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nHost: a\r\nBad Header: x\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nHost: a\r\n folded: x\r\n\r\n",
        b"GET  /ws HTTP/1.1\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"GET /ws HTTP/9.9\r\nHost: a\r\n\r\n",
        b"{\"type\":\"ping\"}\r\n\r\n",
    ] {
        if let Ok(answer) = exchange(gateway.address(), bytes).await {
            assert!(
                (400..=505).contains(&answer.status),
                "{bytes:?}: {}",
                answer.status
            );
        }
        if let Ok(answer) = exchange(gateway.admin_address(), bytes).await {
            assert!(
                (400..=505).contains(&answer.status),
                "{bytes:?}: {}",
                answer.status
            );
        }
    }
    gateway.assert_alive().await;
}

#[tokio::test]
async fn the_answer_and_what_is_said_first_leave_in_one_write() {
    let gateway = Gateway::start_default().await;
    let expired = Key::default_secret().user_with("alice", json!({"exp": 1}));
    for (connect, first) in [
        (good(&gateway), "\"connected\""),
        (gateway.ws().bearer(&expired), "\"auth_failed\""),
    ] {
        // If the node wrote twice, one of these clients would read only what the first write sent.
        for _ in 0..20 {
            let mut stream = connect.stream().await.unwrap();
            stream.write_all(&connect.to_bytes()).await.unwrap();
            let mut bytes = [0; 4096];
            let read = stream.read(&mut bytes).await.unwrap();
            let text = String::from_utf8_lossy(&bytes[..read]);
            assert!(text.starts_with("HTTP/1.1 101 "), "{text}");
            assert!(text.contains(first), "{text}");
        }
    }
}
