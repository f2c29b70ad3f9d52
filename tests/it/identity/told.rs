//! Operators see reports that had no effect. If an issuer signs reports that are refused, or names
//! unknown users, it is misconfigured, and nothing else shows that.

use curfew_testkit::mint::Key;
use curfew_tests::{Gateway, eventually};
use serde_json::{Value, json};

use super::events::{Transmitter, push};
use super::global_revocation::{Okta, send};
use super::logout::{Login, assert_done, assert_refused, post};

/// The last report of the issuer at `index`, from `GET /v1/issuers`.
async fn last_report(node: &Gateway, index: usize) -> Value {
    let known = node.admin_ok("GET", "/v1/issuers", None).await;
    known["issuers"][index]["last_report"].clone()
}

async fn refused(node: &Gateway, report: &str, reason: &str) -> f64 {
    let name = format!("curfew_reports_refused_total{{report=\"{report}\",reason=\"{reason}\"}}");
    node.metric(&name).await
}

/// Waits for a warning about reports in the log of `node`. It must be the only one.
async fn warning(node: &Gateway) -> Value {
    eventually("a warning", async || warnings(node).pop()).await;
    let mut warnings = warnings(node);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    warnings.remove(0)
}

/// The warnings about reports in a node's log.
fn warnings(node: &Gateway) -> Vec<Value> {
    let text = node.log().text();
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    lines
        .filter(|line: &Value| {
            line["level"] == "WARN"
                && line["message"] == "a report with a valid signature of its issuer has no effect"
        })
        .collect()
}

#[tokio::test]
async fn a_signed_logout_for_another_client_is_told_with_expected_and_received() {
    let login = Login::start().await;
    let node = Gateway::start_with(&login.settings()).await;
    let logout = login.token(json!({"aud":"web-app","sub":"alice"}));
    for _ in 0..3 {
        assert_refused(&post(&node, &logout).await, "invalid_request");
    }
    assert_eq!(
        refused(&node, "backchannel_logout", "wrong_audience").await,
        3.0
    );
    let last = last_report(&node, 0).await;
    assert_eq!(last["outcome"], "refused", "{last}");
    let why = last["why"].as_str().unwrap();
    assert!(why.contains(r#"aud is ["web-app"]"#), "{why}");
    assert!(
        why.contains(r#"one of ["curfew-client"] is expected"#),
        "{why}"
    );
    // The three reports cause only one warning.
    let told = warning(&node).await;
    assert_eq!(told["why"], why);
    assert_eq!(told["issuer"], "main");
}

#[tokio::test]
async fn other_faults_of_signed_logouts_are_told_by_their_kind() {
    let login = Login::start().await;
    let node = Gateway::start_with(&login.settings()).await;
    for (changes, reason) in [
        (
            json!({"sub":"alice","iat":1_600_000_000,"exp":1_600_000_060}),
            "time",
        ),
        (json!({"sub":"alice","jti":null}), "malformed"),
        (json!({}), "malformed"),
        // In these logouts, a claim has the wrong type.
        (json!({"sub":"alice","aud":7}), "malformed"),
        (json!({"sub":"alice","iat":"now"}), "malformed"),
        (
            json!({"sub":"alice","exp":1_900_000_000_000_u64}),
            "malformed",
        ),
        (json!({"sub":"alice","sid":5}), "malformed"),
        (json!({"sub":"alice","events":[]}), "malformed"),
    ] {
        let before = refused(&node, "backchannel_logout", reason).await;
        let token = login.token(changes.clone());
        assert_refused(&post(&node, &token).await, "invalid_request");
        let after = refused(&node, "backchannel_logout", reason).await;
        assert_eq!(after, before + 1.0, "{changes}: {reason}");
        // The same report with a forged signature does not count.
        let mut forged = token;
        forged.truncate(forged.len() - 8);
        forged.push_str("AAAAAAAA");
        assert_refused(&post(&node, &forged).await, "invalid_request");
        let forged = refused(&node, "backchannel_logout", reason).await;
        assert_eq!(forged, after, "{changes}: {reason}");
    }
}

#[tokio::test]
async fn what_a_stranger_writes_is_told_to_nobody() {
    let login = Login::start().await;
    let node = Gateway::start_with(&login.settings()).await;
    let mut forged = login.token(json!({"aud":"web-app","sub":"alice"}));
    // The token gets another signature of the same length.
    forged.truncate(forged.len() - 8);
    forged.push_str("AAAAAAAA");
    assert_refused(&post(&node, &forged).await, "invalid_request");
    assert_refused(&post(&node, "rubbish").await, "invalid_request");
    assert_eq!(
        refused(&node, "backchannel_logout", "wrong_audience").await,
        0.0
    );
    assert_eq!(last_report(&node, 0).await, Value::Null);
    assert_eq!(warnings(&node), [] as [Value; 0]);
}

#[tokio::test]
async fn a_logout_that_finds_nobody_of_a_user_with_sessions_is_told() {
    let login = Login::start().await;
    let node = Gateway::start_with(&login.settings()).await;
    let _session = node.session(&login.access("alice", "one")).await;
    let outcome = |outcome: &str| format!("curfew_logouts_total{{outcome=\"{outcome}\"}}");
    // The provider writes other values of `sid` into logouts than into access tokens.
    assert_done(&post(&node, &login.token(json!({"sub":"alice","sid":"uno"}))).await);
    assert_eq!(node.metric(&outcome("nobody_found")).await, 1.0);
    let last = last_report(&node, 0).await;
    assert_eq!(last["outcome"], "nobody_found", "{last}");
    assert!(last["why"].as_str().unwrap().contains("sid"), "{last}");
    warning(&node).await;
    // A logout of a user without sessions, and a logout that finds its session, do not show that
    // `sid` values differ.
    assert_done(&post(&node, &login.token(json!({"sub":"bob","sid":"two"}))).await);
    assert_done(&post(&node, &login.token(json!({"sub":"alice","sid":"one"}))).await);
    assert_eq!(node.metric(&outcome("nobody_found")).await, 1.0);
    assert_eq!(node.metric(&outcome("accepted")).await, 2.0);
    assert_eq!(last_report(&node, 0).await["outcome"], "accepted");
    // A success does not hide the failure before it, and a failure of another kind gets its own
    // warning.
    let known = node.admin_ok("GET", "/v1/issuers", None).await;
    let failure = &known["issuers"][0]["last_failure"];
    assert_eq!(failure["outcome"], "nobody_found", "{failure}");
    let other = login.token(json!({"sub":"alice","aud":"web-app"}));
    assert_refused(&post(&node, &other).await, "invalid_request");
    eventually("a warning of each kind", async || {
        (warnings(&node).len() == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn signed_events_for_another_audience_are_told() {
    let transmitter = Transmitter::start().await;
    let node = Gateway::start_with(&transmitter.settings("")).await;
    let event = transmitter.set(json!({"aud":"https://other.example/events"}));
    assert_eq!(push(&node, &event).await.status, 400);
    assert_eq!(
        refused(&node, "security_event", "wrong_audience").await,
        1.0
    );
    let why = last_report(&node, 0).await["why"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(why.contains("https://other.example/events"), "{why}");
    warning(&node).await;
}

#[tokio::test]
async fn signed_revocations_of_other_audiences_and_of_strangers_are_told() {
    let okta = Okta::start().await;
    let node = Gateway::start_with(&okta.settings()).await;
    let body = json!({"sub_id":okta.user("alice")}).to_string();
    let other = okta.assertion(json!({"aud":"https://other.example"}));
    assert_eq!(send(&node, &other, &body).await.status, 401);
    let report = "global_token_revocation";
    assert_eq!(refused(&node, report, "wrong_audience").await, 1.0);
    let foreign = json!({"sub_id":{"format":"iss_sub","iss":"https://other.example","sub":"a"}});
    let answer = send(&node, &okta.assertion(json!({})), &foreign.to_string()).await;
    assert_eq!(answer.status, 403);
    assert_eq!(refused(&node, report, "subject").await, 1.0);
    assert_eq!(last_report(&node, 1).await["outcome"], "refused");
}

/// Regression: a logout token signed with the client's secret was refused without a useful reason.
#[tokio::test]
async fn a_logout_token_by_a_secret_is_refused_by_name() {
    let login = Login::start().await;
    let node = Gateway::start_with(&login.settings()).await;
    super::until_accepted_as(&node, &login.access("alice", "one")).await;
    let secret = Key::hmac("HS256", &[7; 32]).with_kid("one");
    let claims = json!({"iss":login.provider.issuer(),"aud":"curfew-client","sub":"alice"});
    let logout = secret.sign(&secret.header().to_string(), &claims.to_string());
    let answer = post(&node, &logout).await;
    assert_refused(&answer, "invalid_request");
    let why = answer.json()["error_description"].to_string();
    assert!(why.contains("id_token_signed_response_alg"), "{why}");
}
