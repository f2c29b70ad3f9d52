//! Tokens of kinds other than access tokens, and of other clients and tenants (SECURITY T15).

use curfew_testkit::mint::{Key, SECRET};
use curfew_tests::{Attempt, Gateway, Settings};
use serde_json::{Value, json};

async fn node(more: &str) -> Gateway {
    let issuer = format!("[[auth.issuers]]\nname = \"main\"\nsecret = {SECRET:?}\n{more}\n");
    Gateway::start_with(&Settings::default().issuers(&issuer)).await
}

fn token(typ: &str, more: Value) -> String {
    let key = Key::default_secret();
    let claims = curfew_testkit::mint::claims_with("alice", more);
    let header = json!({"alg":"HS256","typ":typ});
    key.sign(&header.to_string(), &claims.to_string())
}

async fn reason(node: &Gateway, token: &str) -> Option<String> {
    match node.attempt_with(token).await {
        Attempt::Open(_) => None,
        Attempt::Refused(reason, 4401) => Some(reason),
        other => panic!("{other:?}"),
    }
}

/// Claims by which the node recognizes a token as an ID token. The last of them come from access
/// tokens that have the form of ID tokens.
fn id_tokens() -> Vec<Value> {
    vec![
        // OpenID Connect Core 1.0 §3.1.3.6, §3.3.2.11, §2.
        json!({"at_hash":"MTIzNDU2Nzg5MDEyMzQ1Ng"}),
        json!({"c_hash":"MTIzNDU2Nzg5MDEyMzQ1Ng"}),
        json!({"nonce":"n-0S6_WzA2Mj"}),
        json!({"nonce":7}),
        // Keycloak and Cognito mark their ID tokens with these claims.
        json!({"typ":"ID"}),
        json!({"token_use":"id"}),
        json!({"typ":"Bearer","at_hash":"x"}),
        // Dex and authentik give their access tokens the form of ID tokens.
        json!({"at_hash":"x","nonce":"n","email_verified":true}),
        json!({"nonce":"n","azp":"app","uid":"u","acr":"a"}),
    ]
}

#[tokio::test]
async fn an_id_token_opens_no_session() {
    let node = node("").await;
    for claims in id_tokens() {
        let mut refused = node.ws().bearer(&token("JWT", claims.clone())).open().await;
        let told = refused.expect_auth_failed("malformed", 4401).await;
        let message = told["message"].as_str().unwrap();
        assert!(message.contains("ID token"), "{claims}: {told}");
    }
    // A token without a valid signature gets no explanation of its claims.
    let forged = Key::hmac("HS256", &[7; 32]).user_with("alice", json!({"nonce":"n"}));
    assert_eq!(reason(&node, &forged).await.unwrap(), "bad_signature");
}

#[tokio::test]
async fn access_tokens_of_every_make_do() {
    let node = node("").await;
    for (typ, claims) in [
        ("JWT", json!({"typ":"Bearer","azp":"app"})),
        // Tokens of Keycloak before version 25, and of later versions with a mapper.
        ("JWT", json!({"typ":"Bearer","nonce":"n"})),
        ("at+jwt", json!({"nonce":"n"})),
        ("application/at+jwt", json!({"nonce":"n"})),
        ("JWT", json!({"token_use":"access"})),
        ("JWT", json!({"typ":7,"token_use":["id"]})),
    ] {
        assert_eq!(
            reason(&node, &token(typ, claims.clone())).await,
            None,
            "{claims}"
        );
    }
}

#[tokio::test]
async fn id_tokens_can_be_let_in() {
    let node = node("accept_id_tokens = true").await;
    for claims in id_tokens() {
        assert_eq!(
            reason(&node, &token("JWT", claims.clone())).await,
            None,
            "{claims}"
        );
    }
    // Tokens that are only for the issuer are refused in every configuration.
    for typ in ["Refresh", "Offline", "Logout"] {
        let reason = reason(&node, &token("JWT", json!({"typ":typ}))).await;
        assert_eq!(reason.unwrap(), "malformed", "{typ}");
    }
}

#[tokio::test]
async fn a_token_has_the_claims_that_are_required() {
    let required = "required_claims = { client_id = [\"one\", \"two\"], groups = [\"staff\"] }";
    let node = node(required).await;
    for (claims, expected) in [
        (json!({"client_id":"one","groups":["guests","staff"]}), None),
        (json!({"client_id":"two","groups":"staff"}), None),
        (json!({"client_id":"one"}), Some("missing_claim")),
        (
            json!({"client_id":null,"groups":["staff"]}),
            Some("missing_claim"),
        ),
        (
            json!({"client_id":"three","groups":["staff"]}),
            Some("wrong_audience"),
        ),
        (
            json!({"client_id":"one","groups":[]}),
            Some("wrong_audience"),
        ),
        (
            json!({"client_id":"one","groups":{"staff":true}}),
            Some("wrong_audience"),
        ),
        (
            json!({"client_id":1,"groups":["staff"]}),
            Some("wrong_audience"),
        ),
    ] {
        let token = token("JWT", claims.clone());
        assert_eq!(reason(&node, &token).await.as_deref(), expected, "{claims}");
    }
    let known = node.admin_ok("GET", "/v1/issuers", None).await;
    let known = &known["issuers"][0]["required_claims"];
    assert_eq!(
        known,
        &json!({"client_id":["one","two"],"groups":["staff"]})
    );
}
