//! Heads of requests have limits, and each refusal explains itself to the client and the operator.

use std::fmt::Write as _;

use curfew_testkit::http::exchange;
use curfew_testkit::mint::Key;
use curfew_tests::{Gateway, Settings, eventually};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::{answers, is_problem, listeners, said};

/// Regression: if a library refused a head, its answer had no explanation, and was neither counted
/// nor logged.
#[tokio::test]
async fn a_head_that_is_refused_is_told_counted_and_logged() {
    let settings = Settings::default().with("telemetry.log_level = \"info\"");
    let gateway = Gateway::start_with(&settings).await;
    let large = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "x".repeat(33 * 1024)
    );
    let endless = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(300 * 1024));
    let many = (0..100).fold("GET / HTTP/1.1\r\nHost: a\r\n".to_owned(), |mut head, n| {
        write!(head, "X-{n}: 1\r\n").unwrap();
        head
    }) + "\r\n";
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(40 * 1024));
    for (what, bytes, status, reason) in [
        ("too large", large.as_bytes(), 431, "head_too_large"),
        ("without an end", endless.as_bytes(), 431, "head_too_large"),
        ("a long target", long.as_bytes(), 431, "head_too_large"),
        ("many headers", many.as_bytes(), 431, "too_many_headers"),
        (
            "many headers, before their end",
            many.strip_suffix("\r\n").unwrap().as_bytes(),
            431,
            "too_many_headers",
        ),
        ("no HTTP", b"HELO a\r\n\r\n", 400, "bad_request"),
        (
            "a bad header",
            b"GET / HTTP/1.1\r\nHost: a\r\na b: c\r\n\r\n",
            400,
            "bad_request",
        ),
        (
            "a bad length",
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
            400,
            "bad_request",
        ),
        (
            "TLS",
            b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00\r\n\r\n",
            400,
            "bad_request",
        ),
        (
            "HTTP/2",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
            505,
            "http_version",
        ),
        (
            "nothing there",
            b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n",
            404,
            "not_found",
        ),
    ] {
        for (listener, address, _) in listeners(&gateway) {
            let before = answers(&gateway, listener, reason).await;
            let answer = exchange(address, bytes)
                .await
                .unwrap_or_else(|error| panic!("{what}, {listener}: {error}"));
            assert_eq!(
                answer.status,
                status,
                "{what}, {listener}: {}",
                answer.text()
            );
            is_problem(&answer, reason);
            let counted = answers(&gateway, listener, reason).await - before;
            assert_eq!(counted, 1.0, "{what}, {listener}");
            let logged = |entry: &serde_json::Value| {
                entry["listener"] == listener && entry["reason"] == reason
            };
            eventually(&format!("a log line for {what}, {listener}"), async || {
                gateway.log().entries().iter().any(logged).then_some(())
            })
            .await;
        }
    }
    // One client cannot fill the log: a reason is logged once for each listener.
    let lines = |reason: &str| {
        let entries = gateway.log().entries();
        entries
            .iter()
            .filter(|entry| entry["reason"] == reason)
            .count()
    };
    assert_eq!(lines("head_too_large"), 2, "not one line for each listener");
    for reason in [
        "head_too_large",
        "too_many_headers",
        "bad_request",
        "http_version",
        "not_found",
    ] {
        let series = format!("curfew_connections_rejected_total{{reason=\"{reason}\"}}");
        assert!(gateway.metric(&series).await > 0.0, "{reason}");
    }
    gateway.assert_alive().await;
}

/// Regression: the limit on a head was lower than the total of the headers that identity providers,
/// proxies and tracing libraries send.
#[tokio::test]
async fn a_hundred_headers_and_32_kib_of_head_are_accepted_and_the_bounds_can_be_set() {
    let gateway = Gateway::start_default().await;
    let token = Key::default_secret().user("alice");
    let mut connect = gateway.ws().bearer(&token);
    let headers = String::from_utf8(connect.to_bytes()).unwrap();
    let sent = headers.lines().count() - 2;
    for n in sent..100 {
        connect = connect.header(&format!("X-{n}"), "1");
    }
    gateway.connected(connect.clone()).await;
    let refused = connect.header("X-One-More", "1").refused().await;
    assert_eq!(refused.status, 431);

    let connect = gateway.ws().bearer(&token);
    let room = 32 * 1024 - connect.to_bytes().len() - "baggage: \r\n".len();
    let whole = connect.clone().header("baggage", "x".repeat(room));
    assert_eq!(whole.to_bytes().len(), 32 * 1024);
    gateway.connected(whole).await;
    let refused = connect.clone().header("baggage", "x".repeat(room + 1));
    assert_eq!(refused.refused().await.status, 431);

    let settings = Settings::default()
        .with("limits.headers = 10")
        .with("limits.head_bytes = 65536");
    let gateway = Gateway::start_with(&settings).await;
    let large = gateway
        .ws()
        .bearer(&token)
        .header("baggage", "x".repeat(60 * 1024));
    gateway.connected(large.clone()).await;
    let many = (0..10).fold(large, |connect, n| connect.header(&format!("X-{n}"), "1"));
    assert_eq!(many.refused().await.status, 431);
}

/// Regression: on a reused connection, hyper itself answered a later malformed head.
#[tokio::test]
async fn a_bad_head_behind_a_good_request_is_told_as_well() {
    let gateway = Gateway::start_default().await;
    let address = gateway.admin_address();
    let mut good = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
    good.extend_from_slice(b"HELO\r\n\r\n");
    let answer = said(address, &good).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("application/problem+json"), "{answer}");
}

/// Regression: if a head broke off, neither the client nor the log learned of it.
#[tokio::test]
async fn a_head_that_breaks_off_is_told() {
    let gateway = Gateway::start_default().await;
    for (listener, address, path) in listeners(&gateway) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let begun = format!("GET {path} HTTP/1.1\r\nHost: a");
        stream.write_all(begun.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut buffer = bytes::BytesMut::new();
        let answer = curfew_testkit::http::read_response(&mut stream, &mut buffer)
            .await
            .unwrap_or_else(|error| panic!("{listener}: {error}"));
        assert_eq!(answer.status, 400, "{listener}");
        is_problem(&answer, "bad_request");
    }
}

/// Regression: different faults of a head were refused with the same text, which misled operators.
#[tokio::test]
async fn a_head_that_cannot_be_read_is_told_what_is_wrong_with_it() {
    let gateway = Gateway::start_default().await;
    let head = |more: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{more}\r\n\r\n").into_bytes();
    for (bytes, status, words) in [
        (
            [
                &b"PROXY TCP4 203.0.113.1 192.0.2.1 4711 443\r\n"[..],
                &head("A: b"),
            ]
            .concat(),
            400,
            "server.proxy_protocol",
        ),
        (
            head("Content-Length: 1\r\nContent-Length: 2"),
            400,
            "Content-Length",
        ),
        (head("Content-Length: x"), 400, "Content-Length"),
        (head("Transfer-Encoding: gzip"), 400, "Transfer-Encoding"),
        (head("Content-Length: 0\r\nA b: c"), 400, "is not HTTP/1.1"),
        (
            b"GET / HTTP/3.0\r\nHost: a\r\n\r\n".to_vec(),
            505,
            "HTTP/1.1 and HTTP/1.0",
        ),
    ] {
        for (listener, address, _) in listeners(&gateway) {
            let answer = exchange(address, &bytes).await.unwrap();
            assert_eq!(answer.status, status, "{listener}: {}", answer.text());
            let detail = answer.json()["detail"].as_str().unwrap().to_owned();
            assert!(detail.contains(words), "{listener}, {words}: {detail}");
        }
    }
    // This PROXY header comes from a load balancer that is not trusted.
    let settings = Settings::default()
        .with("server.proxy_protocol = true")
        .with(r#"server.trusted_proxies = ["192.0.2.1"]"#);
    let gateway = Gateway::start_with(&settings).await;
    let header = b"PROXY TCP4 203.0.113.1 192.0.2.1 4711 443\r\n\r\n";
    let answer = exchange(gateway.address(), header).await.unwrap();
    assert!(answer.text().contains("server.trusted_proxies"));
}
