//! Reports that are signed by a key which the node may not fetch yet. The provider does not send a
//! report again.

use std::time::Duration;

use curfew_testkit::http::Response;
use curfew_testkit::mint::Key;
use curfew_testkit::{WsClient, unix_now};
use curfew_tests::{Gateway, Settings, eventually_within};
use serde_json::{Value, json};

use super::logout::{Login, post};
use super::{events, global_revocation};

const EVENTS: &str = "https://rt.example.com/events";
const REVOCATION: &str = "https://rt.example.com/v1/global-token-revocation";
const REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";

/// A time longer than the pause between two fetches of keys that unknown key ids cause.
const A_PAUSE: Duration = Duration::from_secs(50);

fn key(kid: &str) -> Key {
    Key::generate("ES256").with_kid(kid)
}

/// Settings with an issuer that uses every kind of report.
fn settings(login: &Login) -> Settings {
    let issuer = login.issuer("main")
        + "audience = [\"api\"]\n"
        + &format!("global_token_revocation = [{REVOCATION:?}]\n")
        + &format!("[auth.issuers.event_stream]\naudience = [{EVENTS:?}]\n");
    Settings::default()
        .issuers(&issuer)
        .with("session.ping_interval = \"5m\"")
}

/// A report signed by the key of `login`.
fn report(login: &Login, typ: &str, more: Value) -> String {
    let (mut header, now) = (login.key.header(), unix_now());
    header["typ"] = json!(typ);
    let mut claims = json!({"iss":login.provider.issuer(),"iat":now,"jti":format!("{typ}-{now}")});
    let more = more.as_object().unwrap().clone();
    claims.as_object_mut().unwrap().extend(more);
    login.key.sign(&header.to_string(), &claims.to_string())
}

fn subject(login: &Login, user: &str) -> Value {
    json!({"format":"iss_sub","iss":login.provider.issuer(),"sub":user})
}

/// Sends tokens with two key ids that the issuer does not list. After that, the node may not fetch
/// keys for an unknown key id for a while.
async fn spend_the_fetches(node: &Gateway, login: &Login) {
    for kid in ["rubbish-1", "rubbish-2"] {
        let token = access(login, &key(kid), "mallory");
        let mut refused = node.ws().bearer(&token).open().await;
        refused.expect_auth_failed("unknown_key", 4401).await;
    }
}

/// Asserts that the report was stored. The answer must not claim that it is valid, or that an
/// immediate retry would help.
fn assert_kept(answer: &Response) {
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.text().contains("is kept"), "{}", answer.text());
    assert!((5..=30).contains(&retry_after(answer)));
}

fn retry_after(answer: &Response) -> u64 {
    answer.header("retry-after").unwrap().parse().unwrap()
}

async fn session(node: &Gateway, login: &Login, user: &str) -> WsClient {
    node.session(&access(login, &login.key, user)).await
}

/// An access token that was issued ten seconds ago.
fn access(login: &Login, key: &Key, user: &str) -> String {
    let issuer = login.provider.issuer();
    let more = json!({"iss":issuer,"aud":"api","sid":user,"iat":unix_now() - 10});
    key.user_with(user, more)
}

/// Regression: a valid report was lost, because a stranger had used up the fetches of keys. The
/// provider sends a report only once.
#[tokio::test]
async fn a_report_by_a_key_that_may_not_be_asked_for_yet_is_in_force_when_it_is_known() {
    let mut login = Login::start().await;
    let node = Gateway::start_with(&settings(&login)).await;
    let mut sessions = Vec::new();
    for user in ["logged-out", "pushed", "revoked"] {
        sessions.push(session(&node, &login, user).await);
    }
    spend_the_fetches(&node, &login).await;
    login.key = key("new");
    login.provider.rotate(&[&login.key]);
    let fetches = login.provider.fetches();
    let logout = login.token(json!({"sub":"logged-out"}));
    let event = json!({"aud":EVENTS,"sub_id":subject(&login, "pushed"),"events":{REVOKED:{}}});
    let event = report(&login, "secevent+jwt", event);
    let revoker = json!({"aud":REVOCATION,"exp":unix_now() + 60});
    let revoker = report(&login, "global-token-revocation+jwt", revoker);
    let body = json!({"sub_id":subject(&login, "revoked")}).to_string();
    // A stranger signs a report in the issuer's name with a key of its own.
    let stranger = Login {
        key: key("rubbish-3"),
        ..login
    };
    let forged = stranger.token(json!({"sub":"alice"}));
    let login = stranger;
    let (logout, event, revocation, forged) = tokio::join!(
        post(&node, &logout),
        events::push(&node, &event),
        global_revocation::send(&node, &revoker, &body),
        post(&node, &forged),
    );
    for answer in [&logout, &event, &revocation, &forged] {
        assert_kept(answer);
    }
    let known = node.admin_ok("GET", "/v1/issuers", None).await;
    assert_eq!(known["issuers"][0]["waiting_reports"], 4, "{known}");
    assert_eq!(
        login.provider.fetches(),
        fetches,
        "the node has asked the issuer too early"
    );
    for (counter, outcome, count) in [
        ("logouts", "accepted", 1.0),
        ("security_events", "ended", 1.0),
        ("global_revocations", "accepted", 1.0),
        ("logouts", "refused", 1.0),
        ("logouts", "kept", 2.0),
    ] {
        let name = format!("curfew_{counter}_total{{outcome={outcome:?}}}");
        eventually_within(A_PAUSE, &name, async || {
            (node.metric(&name).await == count).then_some(())
        })
        .await;
    }
    assert_eq!(
        login.provider.fetches(),
        fetches + 1,
        "the node has not asked the issuer exactly once"
    );
    for mut session in sessions {
        session.expect_close(4403, "revoked").await;
    }
    let known = node.admin_ok("GET", "/v1/issuers", None).await;
    assert!(known["issuers"][0]["waiting_reports"].is_null(), "{known}");
    // Any of the three valid reports may be the last.
    let last = &known["issuers"][0]["last_report"]["outcome"];
    assert!(
        ["accepted", "ended"].contains(&last.as_str().unwrap()),
        "{known}"
    );
    assert!(node.log().text().contains("a report is kept until"));
}

/// Regression: a client whose token may be valid was told to retry long before a retry could help.
#[tokio::test]
async fn a_token_by_a_key_that_may_not_be_asked_for_yet_is_told_when_it_may() {
    let login = Login::start().await;
    let node = Gateway::start_with(&login.settings()).await;
    drop(session(&node, &login, "alice").await);
    spend_the_fetches(&node, &login).await;
    let token = access(&login, &key("new"), "alice");
    let refused = node.ws().bearer(&token).attempt().await.unwrap_err();
    assert_eq!(refused.status, 503);
    assert!((5..=30).contains(&retry_after(&refused)));
    let mut client = node.ws().open().await;
    client.send(json!({"type":"auth","token":token})).await;
    let closing = client.expect_close(4503, "unavailable").await;
    let after = closing["retry_after_ms"].as_u64().unwrap();
    assert!((5_000..=30_000).contains(&after), "{closing}");
}
