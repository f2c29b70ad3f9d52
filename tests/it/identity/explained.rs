//! Explanations of refused tokens, from `curfew explain`.

use curfew_testkit::mint::Key;
use curfew_tests::{Finished, Manner, Provider, Settings, curfew};
use serde_json::{Value, json};

use super::trusting;

async fn explain(provider: &Provider, token: &str, more: &[&str]) -> Finished {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("curfew.toml");
    std::fs::write(&config, trusting(provider).to_toml()).unwrap();
    let config = config.to_str().unwrap();
    let mut arguments = vec!["explain", "--config", config, "--token", token];
    arguments.extend(["--action", "publish", "--channel", "room:1"]);
    arguments.extend(more);
    curfew(&arguments).await
}

#[tokio::test]
async fn a_refused_token_is_shown_beside_its_issuers_keys() {
    let (one, two) = (
        Key::generate("ES256").with_kid("one"),
        Key::generate("ES256").with_kid("two"),
    );
    let provider = Provider::start(&[&one]).await;
    let token = provider.token(&two, "alice");
    let told = explain(&provider, &token, &[]).await;
    assert_eq!(told.code, 1, "{told:?}");
    for words in ["unknown_key", "kid \"two\"", "one (ES256)", "just now"] {
        assert!(told.stdout.contains(words), "{words}: {}", told.stdout);
    }
    assert!(told.stdout.contains(&provider.issuer()));
    let told = explain(&provider, &token, &["--json"]).await;
    let told: Value = serde_json::from_str(&told.stdout).unwrap();
    let refused = &told["refused"];
    assert_eq!(
        (
            &told["allowed"],
            &refused["reason"],
            &refused["token"]["kid"]
        ),
        (&json!(false), &json!("unknown_key"), &json!("two")),
        "{told}"
    );
    assert_eq!(refused["issuers"][0]["keys"][0]["kid"], "one", "{told}");
}

#[tokio::test]
async fn keys_that_are_not_to_be_had_are_told() {
    let one = Key::generate("ES256").with_kid("one");
    let provider = Provider::start(&[&one]).await;
    provider.behave(Manner::Status(500));
    let told = explain(&provider, &provider.token(&one, "alice"), &[]).await;
    assert_eq!(told.code, 1, "{told:?}");
    assert!(told.stderr.contains("could not be fetched"), "{told:?}");
    assert!(told.stdout.contains("answers 500"), "{told:?}");
}

#[tokio::test]
async fn claims_that_are_required_are_shown_beside_the_tokens() {
    let key = Key::generate("ES256").with_kid("one");
    let provider = Provider::start(&[&key]).await;
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("curfew.toml");
    let required = "required_claims = { client_id = [\"web\", \"phone\"] }\n";
    let issuer = provider.by_url("main") + "\n" + required;
    std::fs::write(&config, Settings::default().issuers(&issuer).to_toml()).unwrap();
    let config = config.to_str().unwrap();
    let claims = json!({"iss":provider.issuer(),"client_id":"other"});
    let token = key.user_with("alice", claims);
    let explain = ["explain", "--config", config, "--token", &token];
    let told = curfew(
        &[
            &explain[..],
            &["--action", "publish", "--channel", "room:1"],
        ]
        .concat(),
    )
    .await;
    assert_eq!(told.code, 1, "{told:?}");
    for words in [
        "wrong_audience",
        "\"client_id\":\"other\"",
        "client_id web/phone",
    ] {
        assert!(told.stdout.contains(words), "{words}: {}", told.stdout);
    }
}

#[tokio::test]
async fn what_is_no_token_says_nothing() {
    let provider = Provider::start(&[]).await;
    let told = explain(&provider, "nonsense", &[]).await;
    assert!(
        told.stdout.contains("No member of the token can be read"),
        "{told:?}"
    );
}
