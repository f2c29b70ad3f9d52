//! The traces of fetches of issuers' keys.

use curfew_testkit::mint::Key;
use curfew_tests::{Gateway, Manner, Provider};
use serde_json::json;

use super::collector::Collector;

/// Regression: no trace showed the requests to a provider, or the time that they took.
#[tokio::test]
async fn a_fetch_of_keys_is_a_span_with_its_issuer_and_what_became_of_it() {
    let collector = Collector::start().await;
    let key = Key::generate("ES256").with_kid("one");
    let provider = Provider::start(&[&key]).await;
    let settings = collector
        .settings()
        // The node traces fetches of keys at every sampling ratio.
        .with("telemetry.trace_sample_ratio = 0.0")
        .with("auth.jwks_lifetime = \"2s\"")
        .issuers(&provider.by_discovery("main"));
    let node = Gateway::start_with(&settings).await;
    let fetch = collector.wait_for(|span| span.name == "fetch keys").await;
    let says = |name: &str| fetch.attributes.get(name).map(String::as_str);
    assert_eq!((fetch.parent.as_str(), fetch.kind), ("", 3));
    assert_eq!(says("curfew.issuer"), Some("main"));
    assert_eq!(says("curfew.keys.outcome"), Some("installed"));
    assert_eq!(says("curfew.keys.count"), Some("1"));
    assert_eq!(says("error.type"), None);

    provider.behave(Manner::Status(500));
    let fetch = collector
        .wait_for(|span| {
            let outcome = span.attributes.get("curfew.keys.outcome");
            outcome.is_some_and(|outcome| outcome == "not_fetched")
        })
        .await;
    assert_eq!(fetch.attributes["error.type"], "status");
    assert_eq!(fetch.attributes["curfew.issuer"], "main");
    let known = node.admin_ok("GET", "/v1/issuers", None).await;
    assert_eq!(known["issuers"][0]["name"], json!("main"));
    // A URL may contain more than an address, so no span contains it.
    let address = provider.origin();
    assert!(
        collector
            .spans()
            .iter()
            .all(|span| !span.text.contains(&address))
    );
}
