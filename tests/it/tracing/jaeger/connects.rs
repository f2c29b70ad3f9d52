//! Attempts to connect, and their faults.

use curfew_testkit::mint::Key;
use curfew_tests::Gateway;
use serde_json::json;

use super::Jaeger;

/// Regression: the span of a connection attempt named neither the client's address, nor the
/// endpoint, nor the session.
#[tokio::test]
async fn a_connect_says_what_the_semantic_conventions_ask_for() {
    let jaeger = Jaeger::start().await;
    let node = Gateway::start_with(&jaeger.settings()).await;
    let token = Key::default_secret().user("alice");
    let connect = node
        .ws()
        .path(format!("/ws?token={token}"))
        .header("User-Agent", "probe/1");
    let (_client, connected) = node.connected(connect).await;
    let span = jaeger.span("GET /ws", &[]).await;
    let port = node.address().port().to_string();
    for (key, value) in [
        ("http.request.method", "GET"),
        ("http.route", "/ws"),
        ("http.response.status_code", "101"),
        ("url.path", "/ws"),
        ("url.scheme", "http"),
        ("network.protocol.name", "http"),
        ("network.protocol.version", "1.1"),
        ("client.address", "127.0.0.1"),
        ("server.address", "127.0.0.1"),
        ("server.port", &port),
        ("user_agent.original", "probe/1"),
        ("curfew.session.id", connected["session"].as_str().unwrap()),
        ("span.kind", "server"),
    ] {
        assert_eq!(span.tag(key), value, "{key}");
    }
    assert!(!span.tags.contains_key("url.query"));
    assert!(!span.text.contains("eyJ"), "{}", span.text);
    assert!(!span.tags.contains_key("error.type"));
}

/// Regression: a connection whose first message was missing or not valid had no failed span.
#[tokio::test]
async fn a_connection_that_opens_no_session_has_a_failed_span() {
    let jaeger = Jaeger::start().await;
    let settings = jaeger.settings().with("auth.timeout = \"2s\"");
    let node = Gateway::start_with(&settings).await;
    // Each case has its own connection, so that the cases can be told apart by their upgrades.
    let mut missing = node.ws().open().await;
    missing.send(json!({"type":"ping","id":1})).await;
    missing.expect_auth_failed("missing_token", 4401).await;
    let mut wrong = node.ws().open().await;
    wrong.send(json!({"type":"auth"})).await;
    wrong.expect_close(4400, "bad_request").await;
    let mut silent = node.ws().open().await;
    silent.expect_close(4408, "auth_timeout").await;
    let mut binary = node.ws().open().await;
    binary
        .send_frame(curfew_testkit::OutFrame::new(2, *b"canary"))
        .await;
    binary.expect_close(4400, "bad_request").await;
    let key = Key::default_secret();
    let mut expired = node.ws().open().await;
    let token = key.user_with("alice", json!({"exp":1_000_000_000}));
    expired.send(json!({"type":"auth","token":token})).await;
    expired.expect_auth_failed("expired", 4401).await;

    for (error_type, count) in [
        ("missing_token", 1),
        ("bad_request", 2),
        ("auth_timeout", 1),
        ("expired", 1),
    ] {
        let tags = [("error.type", error_type)];
        for span in jaeger.spans("curfew.auth", &tags, count).await {
            span.assert_failed(error_type);
            assert_eq!(span.links.len(), 1, "{span:#?}");
            assert!(!span.tags.contains_key("curfew.session.id"));
        }
    }
    // Only one of the connections sent a token that the node verified.
    let verified = jaeger.spans("verify token", &[], 1).await;
    verified[0].assert_failed("expired");
    assert_eq!(jaeger.find("curfew.auth", &[]).await.len(), 5);

    // Now a missing token is refused in the answer to the request.
    let settings = settings
        .with("auth.reject = \"http\"")
        .with("auth.token_sources = [\"header\", \"query\"]");
    let node = Gateway::start_with(&settings).await;
    assert_eq!(node.ws().refused().await.status, 401);
    let tags = [("error.type", "missing_token")];
    let upgrade = jaeger.span("GET /ws", &tags).await;
    assert_eq!(upgrade.tag("http.response.status_code"), "401");
    assert!(!upgrade.tags.contains_key("error"), "{upgrade:#?}");

    // Now a missing token is refused on the connection, after the upgrade.
    let settings = jaeger
        .settings()
        .with("auth.token_sources = [\"header\", \"query\"]");
    let node = Gateway::start_with(&settings).await;
    let mut missing = node.ws().open().await;
    missing.expect_auth_failed("missing_token", 4401).await;
    let tags = [
        ("error.type", "missing_token"),
        ("http.response.status_code", "101"),
    ];
    let upgrade = jaeger.span("GET /ws", &tags).await;
    upgrade.assert_failed("missing_token");
    let verify = jaeger.spans("verify token", &tags[..1], 2).await;
    let verify = verify.iter().find(|span| span.trace == upgrade.trace);
    let verify = verify.unwrap();
    verify.assert_failed("missing_token");
    assert_eq!(verify.parent.as_ref(), Some(&upgrade.id));
}
