//! Unusual JSON: fractions of seconds, halves of surrogate pairs, numbers that no double can hold,
//! and ids whose JSON has more bytes than their content.

use curfew_testkit::http;
use curfew_testkit::mint::Key;
use curfew_testkit::unix_now;
use curfew_tests::{ADMIN_KEY, Attempt, Cluster, Gateway, Redis, Settings};
use serde_json::json;

/// A token with valid claims and with the additional claims in `more`.
fn token(more: &str) -> String {
    let key = Key::default_secret();
    let exp = unix_now() + 3600;
    let claims = format!(r#"{{"sub":"alice","exp":{exp},{more}}}"#);
    key.sign(&key.header().to_string(), &claims)
}

/// A token whose `exp` and other times have these texts.
fn timed(exp: &str, more: &str) -> String {
    let key = Key::default_secret();
    let claims = format!(r#"{{"sub":"alice","exp":{exp}{more}}}"#);
    key.sign(&key.header().to_string(), &claims)
}

/// The reason and the message with which a token is refused.
async fn refusal(gateway: &Gateway, token: &str) -> (String, String) {
    let mut client = gateway.ws().bearer(token).open().await;
    let answer = client.next_json().await;
    assert_eq!(answer["type"], "auth_failed", "{answer}");
    let text = |name: &str| answer[name].as_str().unwrap().to_owned();
    (text("reason"), text("message"))
}

/// Regression: a NumericDate with a fraction was refused, although RFC 7519 allows it and Python's
/// `time.time()` makes one.
#[tokio::test]
async fn times_may_be_any_number_that_is_finite_and_in_seconds() {
    let gateway = Gateway::start_default().await;
    let now = unix_now();
    let soon = now + 3600;
    for (exp, more) in [
        (
            format!("{soon}.5"),
            format!(r#","iat":{now}.25,"nbf":{}.75"#, now - 1),
        ),
        (
            format!("{soon}.000000000000000000000000001"),
            format!(r#","iat":{now}.0"#),
        ),
        (format!("{soon}0e-1"), String::new()),
        ("1.9e10".to_owned(), String::new()),
        (
            soon.to_string(),
            r#","nbf":-62135596800,"iat":-1.5"#.to_owned(),
        ),
    ] {
        let (_, connected) = gateway
            .connected(gateway.ws().bearer(&timed(&exp, &more)))
            .await;
        assert!(
            connected["expires_at"].as_u64().unwrap() >= soon,
            "{exp}: {connected}"
        );
    }
    // The time is rounded down, so that a fraction does not lengthen a session.
    let token = timed(&format!("{soon}.999"), "");
    let (mut client, connected) = gateway.connected(gateway.ws().bearer(&token)).await;
    assert_eq!(connected["expires_at"], soon);
    let newer = timed(&format!("{}.5", soon + 5), "");
    client
        .send(json!({"type":"refresh","id":1,"token":newer}))
        .await;
    client
        .expect_json(json!({"type":"refreshed","id":1,"expires_at":soon + 5}))
        .await;
    for (exp, more, reason, words) in [
        (
            format!("{}000", soon),
            "",
            "malformed",
            "exp claim looks like milliseconds",
        ),
        (
            soon.to_string(),
            r#","iat":1795885484500"#,
            "malformed",
            "iat claim looks like milliseconds",
        ),
        (
            "1e999".to_owned(),
            "",
            "malformed",
            "exp claim is too large",
        ),
        (
            "\"1.5\"".to_owned(),
            "",
            "malformed",
            "exp claim is not a number of seconds",
        ),
        ("-1".to_owned(), "", "expired", "expired"),
        ("1.5".to_owned(), "", "expired", "expired"),
        (
            soon.to_string(),
            r#","nbf":9999999999.5"#,
            "not_yet_valid",
            "nbf",
        ),
        (
            soon.to_string(),
            r#","iat":9999999999.5"#,
            "not_yet_valid",
            "iat",
        ),
    ] {
        let (told, message) = refusal(&gateway, &timed(&exp, more)).await;
        assert_eq!(told, reason, "{exp} {more}: {message}");
        assert!(message.contains(words), "{exp} {more}: {message}");
    }
}

/// Regression: a token with a fraction of a second survived a revocation of that second.
#[tokio::test]
async fn no_fraction_survives_a_cutoff() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(1, &redis.url(), &Settings::default()).await;
    let gateway = &cluster[0];
    let cutoff = unix_now() - 10;
    let issued = |iat: String| timed(&(unix_now() + 60).to_string(), &format!(",\"iat\":{iat}"));
    let covered = issued(format!("{cutoff}.999999999999999999999"));
    let next = issued(format!("{}.0", cutoff + 1));
    let mut client = gateway.session(&covered).await;
    gateway
        .revoke(json!({"kind":"user","value":"alice","before":cutoff}))
        .await;
    client.expect_close(4401, "reauth_required").await;
    let attempt = gateway.attempt_with(&covered).await;
    assert!(matches!(attempt, Attempt::Refused(why, 4401) if why == "reauth_required"));
    let mut client = gateway.session(&next).await;
    // A cutoff with a fraction covers the whole second in which it lies.
    let receipt = gateway
        .revoke(json!({"kind":"user","value":"alice","before":f64::from(u32::try_from(cutoff).unwrap()) + 0.25}))
        .await;
    assert_eq!(receipt["closed"], 1, "{receipt}");
    client.expect_close(4401, "reauth_required").await;
    let after = issued((cutoff + 2).to_string());
    let mut client = gateway.session(&after).await;
    let value = format!("{{\"before\":{}.5}}", cutoff + 1);
    redis
        .run(&["SET", "curfew:{revoked}:user:alice", &value])
        .await;
    client.expect_close(4401, "reauth_required").await;
    assert!(
        gateway
            .attempt_with(&issued((cutoff + 3).to_string()))
            .await
            .is_open()
    );
    let body = json!({"kind":"user","value":"alice","before":unix_now() * 1000});
    let (status, problem) = gateway.admin("POST", "/v1/revocations", Some(body)).await;
    assert_eq!(status, 400, "{problem}");
    assert!(
        problem["detail"].as_str().unwrap().contains("milliseconds"),
        "{problem}"
    );
}

/// Regression: text that JavaScript and Python can write into a name or a profile made the token
/// invalid.
#[tokio::test]
async fn claims_that_nothing_uses_may_be_anything() {
    let settings = Settings::default()
        .with("session.revocable_claims = [\"tenant\"]")
        .with("policy.grants_claim = \"may\"")
        .rules(
            "[[policy.rules]]\nname = \"teams\"\nchannels = [\"room:*\"]\nactions = [\"subscribe\"]\n\
             when = \"claims.team == 'red'\"\n",
        );
    let gateway = Gateway::start_with(&settings).await;
    let odd = r#""nick":"\ud83d!","scores":[1e999,-1e999],"deep":{"\ud83d":["\udc00"]}"#;
    let mut client = gateway
        .session(&token(&format!(r#"{odd},"team":"red""#)))
        .await;
    // Policies, records and revocations can use the other claims of this token.
    client
        .send(json!({"type":"subscribe","id":1,"channel":"room:1"}))
        .await;
    client.expect_json(json!({"type":"ok","id":1})).await;
    let sessions = gateway
        .admin_ok("GET", "/v1/sessions?user=alice", None)
        .await;
    assert_eq!(
        sessions["sessions"].as_array().unwrap().len(),
        1,
        "{sessions}"
    );
    let mut revoked = gateway
        .session(&token(&format!(r#"{odd},"tenant":"acme""#)))
        .await;
    gateway
        .revoke(json!({"kind":"tenant","value":"acme"}))
        .await;
    revoked.expect_close(4403, "revoked").await;
    for (more, words) in [
        (
            r#""iss":"\ud83d""#,
            "the iss claim has half of a surrogate pair",
        ),
        (
            r#""jti":"\ud83d""#,
            "the jti claim has half of a surrogate pair",
        ),
        (
            r#""aud":["x","\ud83d"]"#,
            "the aud claim has half of a surrogate pair",
        ),
        (
            r#""tenant":"\ud83d""#,
            "the tenant claim has half of a surrogate pair",
        ),
        (r#""tenant":1e999"#, "the tenant claim"),
        (r#""may":{"publish":["\ud83d"]}"#, "the may claim"),
        (r#""iat":1e999"#, "the iat claim is too large"),
        (r#""nick":"\ud83d","nick":"\ud83d""#, "repeats a name"),
    ] {
        let (reason, message) = refusal(&gateway, &token(more)).await;
        assert_eq!(reason, "malformed", "{more}");
        assert!(message.contains(words), "{more}: {message}");
    }
}

/// Regression: valid text in one client's data counted as a fault of the message around it.
#[tokio::test]
async fn data_is_delivered_as_it_was_sent_with_any_texts_and_numbers() {
    let gateway = Gateway::start_default().await;
    let mut bob = gateway.subscriber("bob", "room:1").await;
    let mut alice = gateway.user("alice").await;
    // The deepest data that is allowed. The object around it does not count.
    let deepest = format!("{}{}", "[".repeat(32), "]".repeat(32));
    for data in [
        r#""\ud83d""#,
        r#"{"\udc00":["\ud83d\ud83d",1e999,-1E+999]}"#,
        &"9".repeat(1000),
        &deepest,
    ] {
        let publish = format!(r#"{{"type":"publish","id":1,"channel":"room:1","data":{data}}}"#);
        alice.send_text(&publish).await;
        alice.expect_json(json!({"type":"ok","id":1})).await;
        assert_eq!(
            bob.next_text().await,
            format!(r#"{{"type":"message","channel":"room:1","data":{data},"from":"alice"}}"#)
        );
        for (path, channels) in [
            ("publish", r#""channel":"room:1""#),
            ("broadcast", r#""channels":["room:1"]"#),
        ] {
            let body = format!("{{{channels},\"data\":{data}}}");
            let key = format!("Bearer {}", ADMIN_KEY);
            let headers = [("Authorization", key.as_str())];
            let path = format!("/v1/{path}");
            let answer = http::request(
                gateway.admin_address(),
                "POST",
                &path,
                &headers,
                body.as_bytes(),
            )
            .await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert!(bob.next_text().await.contains(data));
        }
    }
    let deeper = format!("[{deepest}]");
    for (text, words) in [
        (
            format!(r#"{{"type":"publish","channel":"room:1","data":{deeper}}}"#),
            "deeper than 32",
        ),
        (
            r#"{"type":"subscribe","channel":"\ud83d"}"#.to_owned(),
            "`channel` has half of a surrogate pair",
        ),
        (
            r#"{"type":"\ud83d"}"#.to_owned(),
            "`type` has half of a surrogate pair",
        ),
        (
            r#"{"type":"ping","\ud83d":1}"#.to_owned(),
            "name has half of a surrogate pair",
        ),
    ] {
        alice.send_text(&text).await;
        let answer = alice
            .expect_json(json!({"type":"error","code":"bad_request"}))
            .await;
        assert!(
            answer["message"].as_str().unwrap().contains(words),
            "{answer}"
        );
        alice = gateway.user("alice").await;
    }
}

/// Regression: the quotes and escapes of an id counted as its content.
#[tokio::test]
async fn an_id_has_64_bytes_of_text() {
    let gateway = Gateway::start_default().await;
    let mut client = gateway.user("alice").await;
    for content in [
        "x".repeat(64),
        "\\\"".repeat(64),
        "\\u0041".repeat(64),
        "é".repeat(32),
    ] {
        client
            .send_text(&format!(r#"{{"type":"ping","id":"{content}"}}"#))
            .await;
        assert_eq!(
            client.next_text().await,
            format!(r#"{{"type":"pong","id":"{content}"}}"#)
        );
    }
    client
        .send_text(&format!(r#"{{"type":"ping","id":"{}"}}"#, "x".repeat(65)))
        .await;
    let answer = client
        .expect_json(json!({"type":"error","code":"bad_request"}))
        .await;
    assert!(
        answer["message"].as_str().unwrap().contains("64 bytes"),
        "{answer}"
    );
    client
        .send_text(&format!(r#"{{"type":"ping","id":"{}"}}"#, "é".repeat(33)))
        .await;
    client
        .expect_json(json!({"type":"error","code":"bad_request"}))
        .await;
}

/// Regression: an array was read as an object, with its items as the members in order. A revocation
/// then got a cutoff that its writer did not set, and a request got members that its body does not
/// have.
#[tokio::test]
async fn an_array_is_no_object() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(1, &redis.url(), &Settings::default()).await;
    let gateway = &cluster[0];
    for (path, body) in [
        ("/v1/publish", json!(["room:1", 1])),
        ("/v1/broadcast", json!([["room:1"], 1])),
        ("/v1/publish", json!("room:1")),
    ] {
        let (status, problem) = gateway.admin("POST", path, Some(body)).await;
        assert_eq!(status, 400, "{path}: {problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("not a JSON object"), "{problem}");
    }
    let mut client = gateway.user("alice").await;
    let value = format!("[{},null,null]", unix_now() - 1000);
    redis
        .run(&["SET", "curfew:{revoked}:user:alice", &value])
        .await;
    client.expect_close(4403, "revoked").await;
}
