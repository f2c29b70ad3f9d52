//! A token that the node cannot judge or admit for a while. It may come in three ways: with the
//! request, by `auth` or by `refresh`.

use curfew_testkit::mint::Key;
use curfew_testkit::{PATIENCE, WsClient};
use curfew_tests::{Gateway, Provider, Redis, eventually};
use serde_json::json;

use super::collector::Collector;

/// Sends a token in each of the three ways, which all fail. Asserts that each way reports and
/// traces the same fault of the server.
async fn assert_same_fault(
    node: &Gateway,
    collector: &Collector,
    alice: &mut WsClient,
    token: &str,
    error_type: &str,
) {
    assert_eq!(node.ws().bearer(token).refused().await.status, 503);
    let mut bob = node.ws().open().await;
    bob.send(json!({"type":"auth","token":token})).await;
    bob.expect_json(json!({"type":"closing","code":4503})).await;
    alice
        .send(json!({"type":"refresh","id":7,"token":token}))
        .await;
    alice
        .expect_json(json!({"type":"error","id":7,"code":"unavailable"}))
        .await;
    for name in ["GET /ws", "curfew.auth", "curfew.refresh"] {
        let failed = collector
            .wait_for(|span| span.name == name && span.attributes.contains_key("error.type"))
            .await;
        assert_eq!(failed.attributes["error.type"], error_type, "{name}");
    }
}

/// Regression: the span of an upgrade had the error type `unavailable`, while the spans of `auth`
/// and `refresh` had `keys_unavailable`.
#[tokio::test]
async fn keys_that_are_away_are_the_same_fault_on_every_way_in() {
    let collector = Collector::start().await;
    let key = Key::generate("ES256").with_kid("one");
    let provider = Provider::start(&[&key]).await;
    let settings = collector
        .settings()
        .with("auth.jwks_lifetime = \"2s\"")
        .issuers(&provider.by_url("main"));
    let node = Gateway::start_with(&settings).await;
    let token = provider.token(&key, "alice");
    let mut alice = eventually("a token to be accepted", async || {
        node.ws().bearer(&token).attempt().await.ok()
    })
    .await;
    alice.expect_json(json!({"type":"connected"})).await;
    provider.rotate(&[]);
    eventually("the last key to be withdrawn", async || {
        let attempt = node.attempt_with(&token).await;
        attempt.is_unavailable().then_some(())
    })
    .await;
    assert_same_fault(&node, &collector, &mut alice, &token, "keys_unavailable").await;
}

/// Regression: for a token that came in one of the three ways, an unavailable backend was reported
/// as the client's fault or under another error type.
#[tokio::test]
async fn a_backend_that_is_away_is_the_same_fault_on_every_way_in() {
    let (redis, collector) = (Redis::start().await, Collector::start().await);
    let user = "ACL SETUSER curfew on >secret ~* +@all allchannels";
    redis.run(&user.split(' ').collect::<Vec<_>>()).await;
    let settings = collector
        .settings()
        .on_redis(&redis.url())
        .with("backend.redis.username = \"curfew\"")
        .with("backend.redis.password = \"secret\"");
    let node = Gateway::start_with(&settings).await;
    node.until_in_touch(PATIENCE).await;
    let mut alice = node.user("alice").await;
    // An admission needs `EXISTS` to look for revocations. The lease does not need it.
    redis.run(&["ACL", "SETUSER", "curfew", "-exists"]).await;
    let token = Key::default_secret().user("alice");
    assert_same_fault(&node, &collector, &mut alice, &token, "unavailable").await;
}
