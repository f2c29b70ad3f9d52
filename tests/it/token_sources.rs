//! The sources of a token, and the answers to refused tokens (CONTRACT §3).

use curfew_testkit::mint::Key;
use curfew_tests::{Gateway, Settings};
use serde_json::json;

#[tokio::test]
async fn a_token_is_taken_from_the_header_the_subprotocol_and_both_query_parameters() {
    let gateway = Gateway::start_default().await;
    let token = Key::default_secret().user("alice");
    for connect in [
        gateway.ws().bearer(&token),
        gateway
            .ws()
            .header("Authorization", format!("bearer {token}")),
        gateway
            .ws()
            .subprotocols(&format!("curfew.v1, bearer.{token}")),
        gateway.ws().path(format!("/ws?token={token}")),
        gateway.ws().path(format!("/ws?access_token={token}")),
        gateway.ws().path(format!("/ws?a=b&token={token}&c")),
    ] {
        let what = format!("{connect:?}");
        let (_, connected) = gateway.connected(connect).await;
        assert_eq!(connected["user"], "alice", "{what}");
        assert!(connected["session"].is_string(), "{connected}");
        assert!(connected["expires_at"].is_u64(), "{connected}");
        assert_eq!(connected["ping_interval"], 25, "{connected}");
    }
}

#[tokio::test]
async fn the_subprotocol_is_selected_and_the_token_in_it_never_echoed() {
    let gateway = Gateway::start_default().await;
    let token = Key::default_secret().user("alice");
    let offers = [
        format!("curfew.v1, bearer.{token}"),
        format!("bearer.{token}, curfew.v1"),
        format!("other, curfew.v1 ,bearer.{token}"),
    ];
    for offer in &offers {
        let (client, _) = gateway.connected(gateway.ws().subprotocols(offer)).await;
        let selected = client.response().header("sec-websocket-protocol");
        assert_eq!(selected, Some("curfew.v1"), "{offer}");
    }
    let (client, _) = gateway.connected(gateway.ws().bearer(&token)).await;
    assert_eq!(client.response().header("sec-websocket-protocol"), None);
    let (client, _) = gateway
        .connected(gateway.ws().bearer(&token).subprotocols("curfew.v1"))
        .await;
    let selected = client.response().header("sec-websocket-protocol");
    assert_eq!(selected, Some("curfew.v1"));
}

#[tokio::test]
async fn a_token_offered_without_the_protocol_is_not_echoed_either() {
    let gateway = Gateway::start_default().await;
    let token = Key::default_secret().user("alice");
    let offer = format!("bearer.{token}");
    let answer = match gateway.ws().subprotocols(&offer).attempt().await {
        Ok(client) => client.response().clone(),
        Err(refused) => {
            assert_eq!(refused.status, 400);
            refused
        }
    };
    assert_eq!(answer.header("sec-websocket-protocol"), None);
    assert!(!format!("{answer:?}").contains(&token));
}

#[tokio::test]
async fn two_sources_agree_or_are_refused() {
    let gateway = Gateway::start_default().await;
    let key = Key::default_secret();
    let (one, two) = (key.user("alice"), key.user("bob"));
    let (_, connected) = gateway
        .connected(gateway.ws().bearer(&one).path(format!("/ws?token={one}")))
        .await;
    assert_eq!(connected["user"], "alice");
    for connect in [
        gateway.ws().bearer(&one).path(format!("/ws?token={two}")),
        gateway.ws().path(format!("/ws?token={one}&token={two}")),
        gateway
            .ws()
            .path(format!("/ws?token={one}&access_token={two}")),
        gateway
            .ws()
            .bearer(&one)
            .subprotocols(&format!("curfew.v1, bearer.{two}")),
        gateway.ws().bearer(&one).bearer(&two),
    ] {
        let mut client = connect.open().await;
        client.expect_auth_failed("ambiguous_token", 4401).await;
    }
}

#[tokio::test]
async fn a_source_that_is_not_configured_is_as_if_it_were_empty() {
    let settings = Settings::default().with(r#"auth.token_sources = ["header"]"#);
    let gateway = Gateway::start_with(&settings).await;
    let key = Key::default_secret();
    let (token, other) = (key.user("alice"), key.user("bob"));
    for connect in [
        gateway.ws(),
        gateway.ws().path(format!("/ws?token={token}")),
        gateway
            .ws()
            .subprotocols(&format!("curfew.v1, bearer.{token}")),
        gateway
            .ws()
            .header("Cookie", format!("__Host-curfew-token={token}")),
    ] {
        let mut client = connect.open().await;
        client.expect_auth_failed("missing_token", 4401).await;
    }
    let both = gateway
        .ws()
        .bearer(&token)
        .path(format!("/ws?token={other}"));
    assert_eq!(gateway.connected(both).await.1["user"], "alice");
}

#[tokio::test]
async fn with_reject_http_the_upgrade_itself_is_refused() {
    let settings = Settings::default()
        .with(r#"auth.reject = "http""#)
        .with(r#"auth.token_sources = ["header", "query"]"#);
    let gateway = Gateway::start_with(&settings).await;
    let key = Key::default_secret();
    let expired = key.user_with("alice", json!({"exp":1_700_000_000}));
    let stranger = Key::hmac("HS256", &[7; 32]).user("alice");
    for (connect, reason, error) in [
        (gateway.ws(), "missing_token", None),
        (
            gateway.ws().bearer("nonsense"),
            "malformed",
            Some("invalid_token"),
        ),
        (
            gateway.ws().bearer(&expired),
            "expired",
            Some("invalid_token"),
        ),
        (
            gateway.ws().bearer(&stranger),
            "bad_signature",
            Some("invalid_token"),
        ),
    ] {
        let refused = connect.refused().await;
        assert_eq!(refused.status, 401, "{reason}");
        let challenge = refused.header("www-authenticate").unwrap_or_default();
        match error {
            Some(error) => assert!(
                challenge.starts_with(&format!("Bearer error=\"{error}\"")),
                "{reason}: {challenge}"
            ),
            None => assert!(challenge.starts_with("Bearer"), "{reason}: {challenge}"),
        }
        let body = refused.json();
        assert_eq!(body["type"], "auth_failed", "{body}");
        assert_eq!(body["reason"], reason, "{body}");
        assert!(body["message"].is_string(), "{body}");
        let kind = refused.header("content-type").unwrap_or_default();
        assert!(kind.starts_with("application/json"), "{kind}");
    }
    let good = gateway.ws().bearer(&key.user("alice"));
    gateway.connected(good).await;
}

#[tokio::test]
async fn with_reject_http_a_first_message_may_still_bring_the_token() {
    let settings = Settings::default().with(r#"auth.reject = "http""#);
    let gateway = Gateway::start_with(&settings).await;
    let mut client = gateway.ws().open().await;
    let token = Key::default_secret().user("alice");
    client.send(json!({"type":"auth","token":token})).await;
    client.expect_json(json!({"type":"connected"})).await;
    let refused = gateway.ws().bearer("nonsense").refused().await;
    assert_eq!(refused.status, 401);
}

#[tokio::test]
async fn every_algorithm_of_the_contract_verifies() {
    let directory = tempfile::tempdir().unwrap();
    let rsa = || Key::rsa().with_kid("rsa");
    let keys = [
        rsa(),
        Key::generate("ES256").with_kid("es256"),
        Key::generate("ES384").with_kid("es384"),
        Key::generate("EdDSA").with_kid("ed"),
    ];
    // A JWK with `alg` is only for that algorithm. The RSA key must serve several algorithms, so
    // its `alg` is removed.
    let mut set: serde_json::Value =
        serde_json::from_str(&curfew_testkit::mint::jwks(&keys.each_ref())).unwrap();
    set["keys"][0].as_object_mut().unwrap().remove("alg");
    std::fs::write(directory.path().join("keys.json"), set.to_string()).unwrap();
    let settings = Settings::default().issuers(&format!(
        "[[auth.issuers]]\nname = \"main\"\njwks_file = {:?}\n\
         algorithms = [\"RS256\",\"RS384\",\"RS512\",\"PS256\",\"PS384\",\"PS512\",\"ES256\",\"ES384\",\"EdDSA\"]\n",
        directory.path().join("keys.json")
    ));
    let gateway = Gateway::start_in(directory, &settings.to_toml()).await;
    for algorithm in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"] {
        gateway.session(&rsa().using(algorithm).user("alice")).await;
    }
    for key in &keys[1..] {
        gateway.session(&key.user("alice")).await;
    }
    drop(gateway);

    for algorithm in ["HS256", "HS384", "HS512"] {
        let settings = Settings::default().issuers(&format!(
            "[[auth.issuers]]\nname = \"main\"\nsecret = \"{}\"\nalgorithms = [\"{algorithm}\"]\n",
            "s".repeat(64)
        ));
        let gateway = Gateway::start_with(&settings).await;
        let key = Key::hmac(algorithm, "s".repeat(64).as_bytes());
        gateway.session(&key.user("alice")).await;
    }
}

#[tokio::test]
async fn the_subject_claim_is_configurable() {
    let settings = Settings::default().with(r#"auth.subject_claim = "email""#);
    let gateway = Gateway::start_with(&settings).await;
    let key = Key::default_secret();
    let token = key.user_with("ignored", json!({"email":"alice@example.com"}));
    let (_, connected) = gateway.connected(gateway.ws().bearer(&token)).await;
    assert_eq!(connected["user"], "alice@example.com");
    let mut client = gateway.ws().bearer(&key.user("alice")).open().await;
    client.expect_auth_failed("missing_claim", 4401).await;
}

/// Regression: a client whose token had another scheme or no scheme was not refused. The node
/// waited for an `auth` frame that never came.
#[tokio::test]
async fn a_token_with_another_scheme_or_none_is_told_at_once_what_is_right() {
    let gateway = Gateway::start_default().await;
    let token = Key::default_secret().user("alice");
    for value in [
        token.clone(),
        format!("Token {token}"),
        format!("JWT {token}"),
        format!("DPoP {token}"),
    ] {
        let mut client = gateway
            .ws()
            .header("Authorization", value.clone())
            .open()
            .await;
        let told = client
            .expect_json(json!({"type":"auth_failed","reason":"malformed"}))
            .await;
        let message = told["message"].as_str().unwrap();
        assert!(
            message.contains("`Authorization: Bearer <token>`"),
            "{message}"
        );
        assert!(!message.contains(&token), "{message}");
        assert_eq!(client.closed().await.0, 4401);
        // A valid token from another source is accepted beside this header.
        let with_query = gateway
            .ws()
            .path(format!("/ws?token={token}"))
            .header("Authorization", value);
        assert_eq!(gateway.connected(with_query).await.1["user"], "alice");
    }
    // A header `Authorization: Basic` may come from a proxy, and does not count as a token.
    let mut client = gateway
        .ws()
        .header("Authorization", "Basic YTpi")
        .open()
        .await;
    client.send(json!({"type":"auth","token":token})).await;
    client.expect_json(json!({"type":"connected"})).await;

    let settings = Settings::default().with("auth.header_schemes = [\"Token\", \"JWT\"]");
    let gateway = Gateway::start_with(&settings).await;
    for scheme in ["Token", "jwt"] {
        let connect = gateway
            .ws()
            .header("Authorization", format!("{scheme} {token}"));
        assert_eq!(gateway.connected(connect).await.1["user"], "alice");
    }
    let mut client = gateway.ws().bearer(&token).open().await;
    client.expect_auth_failed("malformed", 4401).await;
}

/// Regression: a user whom the token names by a number, as Django's libraries do, could not
/// connect.
#[tokio::test]
async fn a_subject_may_be_an_integer_where_that_is_configured() {
    let key = Key::default_secret();
    let number =
        |claim: &str, value: serde_json::Value| key.user_with("42", json!({ claim: value }));
    let strict = Gateway::start_default().await;
    let mut client = strict.ws().bearer(&number("sub", json!(42))).open().await;
    let told = client
        .expect_json(json!({"type":"auth_failed","reason":"malformed"}))
        .await;
    assert!(
        told["message"]
            .as_str()
            .unwrap()
            .contains("auth.numeric_subjects"),
        "{told}"
    );

    let numeric = Settings::default().with("auth.numeric_subjects = true");
    let gateway = Gateway::start_with(&numeric).await;
    let (mut client, connected) = gateway
        .connected(gateway.ws().bearer(&number("sub", json!(42))))
        .await;
    assert_eq!(connected["user"], "42");
    let refresh = json!({"type":"refresh","id":1,"token":key.user("42")});
    client.send(refresh).await;
    client.expect_json(json!({"type":"refreshed","id":1})).await;
    gateway.revoke(json!({"kind":"user","value":"42"})).await;
    client.expect_close(4403, "revoked").await;
    assert!(
        gateway
            .attempt_with(&number("sub", json!(42)))
            .await
            .is_revoked()
    );
    for value in [json!(42.5), json!(true), json!(null), json!([42])] {
        let text = serde_json::to_string(&json!({"sub":value,"exp":9_999_999_999_u64})).unwrap();
        let token = key.sign(&key.header().to_string(), &text);
        let mut client = gateway.ws().bearer(&token).open().await;
        client.expect_auth_failed("malformed", 4401).await;
    }
    let settings = numeric.with("auth.subject_claim = \"user_id\"");
    let gateway = Gateway::start_with(&settings).await;
    let large = number("user_id", json!(18_446_744_073_709_551_615_u64));
    let (_, connected) = gateway.connected(gateway.ws().bearer(&large)).await;
    assert_eq!(connected["user"], "18446744073709551615");
}
