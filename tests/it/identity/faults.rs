//! Providers that are unavailable, hang or send malformed answers. The node must never blame a
//! token for such a fault of its provider (SECURITY rows 34 and 35, R8).

use std::time::{Duration, Instant};

use curfew_testkit::mint::Key;
use curfew_tests::{Gateway, Manner, Provider, Settings, eventually};
use serde_json::json;

use super::{trusting, until_accepted};

fn bad_manners(elsewhere: &Provider) -> Vec<Manner> {
    vec![
        Manner::Status(500),
        Manner::Status(404),
        Manner::Redirect(302, elsewhere.keys_url()),
        Manner::Redirect(308, elsewhere.keys_url()),
        Manner::Html,
        Manner::Huge,
        Manner::Closing,
        Manner::Hanging,
    ]
}

#[tokio::test]
async fn a_provider_that_is_away_at_first_is_waited_for() {
    let key = Key::generate("ES256").with_kid("one");
    let provider = Provider::start(&[&key]).await;
    provider.behave(Manner::Status(503));
    let settings = trusting(&provider).with("auth.jwks_lifetime = \"2s\"");
    let node = Gateway::start_with(&settings).await;
    let token = provider.token(&key, "alice");
    assert!(node.attempt_with(&token).await.is_unavailable());
    let (status, body) = node.readiness().await;
    assert_eq!(status, 503, "{body}");
    assert!(body["reason"].as_str().unwrap().contains("keys"), "{body}");
    let known = node.admin_ok("GET", "/v1/issuers", None).await;
    let remote = &known["issuers"][0]["remote"];
    assert!(remote["age_s"].is_null(), "{known}");
    assert!(
        remote["failure"].as_str().unwrap().contains("503"),
        "{known}"
    );
    let mut client = node.ws().open().await;
    client.send(json!({"type":"auth","token":token})).await;
    let closing = client.expect_close(4503, "unavailable").await;
    assert_eq!(closing["reconnect"], true);
    provider.behave(Manner::Good);
    until_accepted(&node, &provider, &key).await;
    // After a first successful fetch, an unavailable provider does not take a node out of service.
    provider.rotate(&[]);
    until_failing(&node, "the set is empty; all previous keys are withdrawn").await;
    assert!(node.ready().await);
}

/// Waits until the last fetch has failed for a reason that contains `words`.
async fn until_failing(node: &Gateway, words: &str) {
    eventually(&format!("a fetch that fails with {words}"), async || {
        let known = node.admin_ok("GET", "/v1/issuers", None).await;
        let failure = known["issuers"][0]["remote"]["failure"]
            .as_str()?
            .to_owned();
        failure.contains(words).then_some(())
    })
    .await;
}

#[tokio::test]
async fn keys_that_were_fetched_outlive_their_provider() {
    let (key, other) = (
        Key::generate("ES256").with_kid("one"),
        Key::generate("ES256").with_kid("two"),
    );
    let elsewhere = Provider::start(&[&other]).await;
    let provider = Provider::start(&[&key]).await;
    let settings = trusting(&provider)
        .with("auth.jwks_lifetime = \"2s\"")
        .with("auth.jwks_timeout = \"500ms\"");
    let node = Gateway::start_with(&settings).await;
    until_accepted(&node, &provider, &key).await;
    for manner in bad_manners(&elsewhere) {
        let before = provider.fetches();
        provider.behave(manner.clone());
        eventually("a fetch that fails", async || {
            (provider.fetches() > before).then_some(())
        })
        .await;
        let good = node.attempt_with(&provider.token(&key, "alice")).await;
        assert!(good.is_open(), "{manner:?}: {good:?}");
        // While the provider fails, the node can tell nothing about a token with an unknown key.
        let began = Instant::now();
        eventually(
            "a token with an unknown key to be refused as unavailable",
            async || {
                let unknown = node.attempt_with(&provider.token(&other, "alice")).await;
                unknown.is_unavailable().then_some(())
            },
        )
        .await;
        assert!(began.elapsed() < Duration::from_secs(5), "{manner:?}");
        provider.behave(Manner::Good);
        let fetches = provider.fetches();
        eventually("the provider to be asked again", async || {
            (provider.fetches() > fetches).then_some(())
        })
        .await;
    }
    assert_eq!(elsewhere.fetches(), 0, "a redirect was followed");
}

#[tokio::test]
async fn keys_are_not_used_for_ever() {
    let key = Key::generate("ES256").with_kid("one");
    let provider = Provider::start(&[&key]).await;
    let settings = trusting(&provider)
        .with("auth.jwks_lifetime = \"2s\"")
        .with("auth.jwks_max_stale = \"3s\"");
    let node = Gateway::start_with(&settings).await;
    until_accepted(&node, &provider, &key).await;
    provider.behave(Manner::Closing);
    eventually("the keys to be too old", async || {
        let attempt = node.attempt_with(&provider.token(&key, "alice")).await;
        attempt.is_unavailable().then_some(())
    })
    .await;
    provider.behave(Manner::Good);
    until_accepted(&node, &provider, &key).await;
}

#[tokio::test]
async fn a_configuration_of_another_issuer_is_not_believed() {
    let key = Key::generate("ES256").with_kid("one");
    let (provider, elsewhere) = (
        Provider::start(&[&key]).await,
        Provider::start(&[&key]).await,
    );
    provider.configure("issuer", json!(elsewhere.issuer()));
    let settings = Settings::default().issuers(&provider.by_discovery("main"));
    let node = Gateway::start_with(&settings).await;
    let token = provider.token(&key, "alice");
    until_failing(&node, "as its issuer").await;
    assert!(node.attempt_with(&token).await.is_unavailable());
    provider.configure("issuer", json!(provider.issuer()));
    for (bad, told) in [
        (
            json!("http://192.0.2.1/keys"),
            "http://192.0.2.1/keys: must be",
        ),
        (json!(7), "not an OpenID configuration"),
        (json!("file:///etc/passwd"), "file:///etc/passwd: must be"),
    ] {
        provider.configure("jwks_uri", bad);
        until_failing(&node, told).await;
        assert!(node.attempt_with(&token).await.is_unavailable());
    }
    assert_eq!((provider.fetches(), elsewhere.fetches()), (0, 0));
    provider.configure("jwks_uri", json!(provider.keys_url()));
    until_accepted(&node, &provider, &key).await;
}
