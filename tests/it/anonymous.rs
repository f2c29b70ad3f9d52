//! Sessions without a token (CONTRACT §6 `auth.anonymous`, `auth.anonymous_lifetime`).

use std::time::{Duration, Instant};

use curfew_testkit::mint::Key;
use curfew_testkit::{WsClient, unix_now};
use curfew_tests::{Cluster, Gateway, Redis, Settings};
use serde_json::{Value, json};

/// Rules that allow everyone the channel `lobby`, and users with a token all other channels.
const RULES: &str = r#"
[[policy.rules]]
name = "the lobby is open"
channels = ["lobby"]
actions = ["subscribe", "publish"]
[[policy.rules]]
name = "members may do the rest"
channels = ["*"]
actions = ["subscribe", "publish"]
when = "user != ''"
"#;

fn admitting() -> Settings {
    Settings::default()
        .with("auth.anonymous = true")
        .rules(RULES)
}

/// Like [`admitting`], but only a header may bring a token, so the node waits for no first message.
fn at_once() -> Settings {
    admitting().with(r#"auth.token_sources = ["header"]"#)
}

/// Opens a connection whose first message asks for an anonymous session.
async fn ask(gateway: &Gateway) -> WsClient {
    let mut client = gateway.ws().open().await;
    client.send(json!({"type":"auth"})).await;
    client
}

/// Opens an anonymous session. Returns its client, and the `connected` that the client received.
async fn anonymous(gateway: &Gateway) -> (WsClient, Value) {
    let mut client = ask(gateway).await;
    let connected = client.expect_json(json!({"type":"connected"})).await;
    (client, connected)
}

async fn subscribe(client: &mut WsClient, channel: &str) {
    let subscribe = json!({"type":"subscribe","id":0,"channel":channel});
    client.send(subscribe).await;
    client.expect_json(json!({"type":"ok","id":0})).await;
}

#[tokio::test]
async fn without_a_token_a_visitor_has_no_name_and_what_the_policy_allows() {
    let gateway = Gateway::start_with(&admitting()).await;
    let (mut visitor, connected) = anonymous(&gateway).await;
    assert_eq!(connected["user"], "");
    let lasts = connected["expires_at"].as_u64().unwrap() - unix_now();
    assert!((3590..=3600).contains(&lasts), "{lasts}");
    subscribe(&mut visitor, "lobby").await;
    let publish = json!({"type":"publish","channel":"lobby","data":1});
    visitor.send(publish).await;
    visitor
        .expect_json(json!({"type":"message","channel":"lobby","data":1,"from":""}))
        .await;
    let subscribe = json!({"type":"subscribe","id":1,"channel":"room:1"});
    visitor.send(subscribe).await;
    visitor
        .expect_json(json!({"type":"error","id":1,"code":"forbidden"}))
        .await;
    let session = connected["session"].as_str().unwrap();
    let path = format!("/v1/sessions/{session}");
    let record = gateway.admin_ok("GET", &path, None).await;
    assert_eq!(
        (&record["user"], &record["claims"]),
        (&json!(""), &json!({}))
    );
    assert_eq!(record["issuer"], "anonymous");
    assert!(record["issued_at"].as_u64().unwrap().abs_diff(unix_now()) < 10);
}

#[tokio::test]
async fn without_a_rule_a_visitor_may_do_nothing() {
    let gateway = Gateway::start_with(&admitting().rules("")).await;
    let (mut visitor, _) = anonymous(&gateway).await;
    for command in [
        json!({"type":"subscribe","id":1,"channel":"lobby"}),
        json!({"type":"publish","id":1,"channel":"lobby","data":1}),
    ] {
        visitor.send(command).await;
        visitor
            .expect_json(json!({"type":"error","id":1,"code":"forbidden"}))
            .await;
    }
}

#[tokio::test]
async fn a_token_is_required_unless_visitors_are_admitted() {
    let gateway = Gateway::start_with(&Settings::default()).await;
    let mut visitor = ask(&gateway).await;
    visitor.expect_close(4400, "bad_request").await;
    let header = Settings::default().with(r#"auth.token_sources = ["header"]"#);
    let gateway = Gateway::start_with(&header).await;
    let mut visitor = gateway.ws().open().await;
    visitor.expect_auth_failed("missing_token", 4401).await;
}

#[tokio::test]
async fn where_messages_bring_no_token_a_request_without_one_is_enough() {
    let gateway = Gateway::start_with(&at_once()).await;
    let (_visitor, connected) = gateway.connected(gateway.ws()).await;
    assert_eq!(connected["user"], "");
    // The node still checks a token in the header.
    let mut bad = gateway.ws().bearer("nonsense").open().await;
    bad.expect_auth_failed("malformed", 4401).await;
    let (_user, connected) = gateway
        .connected(gateway.ws().bearer(&Key::default_secret().user("alice")))
        .await;
    assert_eq!(connected["user"], "alice");
    // If a message may bring the token, the node waits for that message and closes a silent
    // visitor.
    let settings = admitting().with(r#"auth.timeout = "1s""#);
    let gateway = Gateway::start_with(&settings).await;
    let mut silent = gateway.ws().open().await;
    silent.expect_close(4408, "auth_timeout").await;
}

#[tokio::test]
async fn a_visitor_is_closed_with_4410_when_the_lifetime_is_over() {
    let settings = admitting().with(r#"auth.anonymous_lifetime = "2s""#);
    let gateway = Gateway::start_with(&settings).await;
    let began = Instant::now();
    let (mut visitor, connected) = anonymous(&gateway).await;
    let expires_at = connected["expires_at"].as_u64().unwrap();
    let expiring = json!({"type":"expiring","expires_at":expires_at});
    visitor.expect_json(expiring).await;
    // A token cannot renew an anonymous session.
    let token = Key::default_secret().user("alice");
    visitor
        .send(json!({"type":"refresh","id":1,"token":token}))
        .await;
    visitor
        .expect_json(json!({"type":"error","id":1,"code":"different_user"}))
        .await;
    visitor.expect_close(4410, "expired").await;
    let lasted = began.elapsed();
    assert!(
        (Duration::from_millis(900)..Duration::from_secs(4)).contains(&lasted),
        "{lasted:?}"
    );
}

#[tokio::test]
async fn visitors_are_limited_by_address_and_not_as_one_user() {
    let settings = admitting()
        .with("session.max_per_user = 1")
        .with("limits.anonymous_per_address = 2");
    for over_limit in ["refuse", "close_oldest"] {
        let settings = settings
            .clone()
            .with(&format!("session.over_limit = {over_limit:?}"));
        let gateway = Gateway::start_with(&settings).await;
        let (mut first, _) = anonymous(&gateway).await;
        let (second, _) = anonymous(&gateway).await;
        let mut third = ask(&gateway).await;
        let closing = third.expect_close(4409, "session_limit").await;
        assert_eq!(closing["reconnect"], true);
        assert!(first.barrier().await.is_empty(), "{over_limit}");
        // A user with a token does not count towards the limit.
        let _alice = gateway.user("alice").await;
        drop(second);
        gateway
            .until_metric("curfew_sessions", |open| open == 2.0)
            .await;
        anonymous(&gateway).await;
    }
}

#[tokio::test]
async fn one_key_ends_every_visit_on_every_node() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(2, &redis.url(), &admitting()).await;
    let key = "curfew:{revoked}:anonymous";
    let mut alice = cluster[0].subscriber("alice", "room:1").await;
    let (mut one, _) = anonymous(&cluster[0]).await;
    let (mut other, _) = anonymous(&cluster[1]).await;
    redis.run(&["SET", key, "1", "EX", "600"]).await;
    for visitor in [&mut one, &mut other] {
        visitor.expect_close(4403, "revoked").await;
    }
    for node in cluster.nodes() {
        ask(node).await.expect_auth_failed("revoked", 4403).await;
    }
    assert!(alice.barrier().await.is_empty());
    let listed = cluster[1].admin_ok("GET", "/v1/revocations", None).await;
    let [listed] = listed["revocations"].as_array().unwrap().as_slice() else {
        panic!("{listed}")
    };
    assert_eq!(
        (&listed["kind"], &listed["value"]),
        (&json!("anonymous"), &json!(""))
    );
    assert_eq!(
        (&listed["key"], &listed["ineffective"]),
        (&json!(key), &Value::Null)
    );
    let path = "/v1/revocations/anonymous/anonymous";
    cluster[1].admin_ok("DELETE", path, None).await;
    assert!(!redis.has(key).await);
    // A cutoff applies to anonymous sessions as it does to tokens: sessions from before it end, and
    // later sessions stay.
    let (mut before, _) = anonymous(&cluster[1]).await;
    let revocation = json!({"kind":"anonymous","before":unix_now(),"dry_run":true});
    let answer = cluster[0].revoke(revocation).await;
    assert_eq!(answer["would_close"], 1, "{answer}");
    let cutoff = unix_now();
    let revocation = json!({"kind":"anonymous","before":cutoff});
    let receipt = cluster[0].revoke(revocation).await;
    assert_eq!(
        (&receipt["key"], &receipt["closed"]),
        (&json!(key), &json!(1))
    );
    let (code, _) = before.closed().await;
    assert!([4401, 4403].contains(&code), "{code}");
    let later = async || {
        let mut client = ask(&cluster[0]).await;
        let answer = client.next_json().await;
        (answer["type"] == "connected").then_some(())
    };
    curfew_tests::eventually("a visit after the cutoff", later).await;
    assert!(unix_now() > cutoff);
    assert!(alice.barrier().await.is_empty());
    cluster.assert_well().await;
}

#[tokio::test]
async fn a_revocation_by_a_user_names_no_visitor() {
    let gateway = Gateway::start_with(&admitting()).await;
    let (mut visitor, _) = anonymous(&gateway).await;
    // The digest of an empty user name.
    let digest = "~47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU";
    let receipt = gateway.revoke(json!({"kind":"user","value":digest})).await;
    assert_eq!(receipt["closed"], 0);
    assert!(visitor.barrier().await.is_empty());
    let (mut later, _) = anonymous(&gateway).await;
    let receipt = gateway.revoke(json!({"kind":"anonymous"})).await;
    assert_eq!(receipt["closed"], 2);
    for visitor in [&mut visitor, &mut later] {
        visitor.expect_close(4403, "revoked").await;
    }
}
