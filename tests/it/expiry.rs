//! A session ends when its token expires, by a timer and even without traffic (CONTRACT §4, R1).

use std::time::{Duration, Instant};

use curfew_testkit::mint::Key;
use curfew_testkit::unix_now;
use curfew_tests::{Gateway, Settings};
use serde_json::json;

fn token(seconds: u64) -> String {
    Key::default_secret().user_with("alice", json!({"exp":unix_now() + seconds}))
}

#[tokio::test]
async fn a_session_is_closed_with_4410_when_its_token_expires() {
    let settings = Settings::default().with(r#"auth.leeway = "0s""#);
    let gateway = Gateway::start_with(&settings).await;
    let expires_at = unix_now() + 2;
    let token = Key::default_secret().user_with("alice", json!({"exp":expires_at}));
    let mut client = gateway.session(&token).await;
    let mut lasting = gateway.subscriber("bob", "room:1").await;
    client
        .send(json!({"type":"subscribe","channel":"room:1"}))
        .await;
    // The token's remaining lifetime is shorter than the notice, so the notice comes at once.
    let expiring = client.next_json().await;
    assert_eq!(expiring, json!({"type":"expiring","expires_at":expires_at}));
    let closing = client.expect_close(4410, "expired").await;
    assert_eq!(closing["reconnect"], true);
    let now = unix_now();
    assert!(
        (expires_at..=expires_at + 1).contains(&now),
        "{now} {expires_at}"
    );
    assert!(lasting.barrier().await.is_empty());
    let mut late = gateway.ws().bearer(&token).open().await;
    late.expect_auth_failed("expired", 4401).await;
    let sessions = gateway
        .admin_ok("GET", "/v1/sessions?user=alice", None)
        .await;
    assert_eq!(sessions["sessions"], json!([]));
}

#[tokio::test]
async fn leeway_lets_a_session_outlive_its_token_by_that_much() {
    let settings = Settings::default().with(r#"auth.leeway = "2s""#);
    let gateway = Gateway::start_with(&settings).await;
    let began = Instant::now();
    let mut client = gateway.session(&token(1)).await;
    client.expect_close(4410, "expired").await;
    let lasted = began.elapsed();
    assert!(
        (Duration::from_millis(1900)..Duration::from_millis(4500)).contains(&lasted),
        "{lasted:?}"
    );
}

#[tokio::test]
async fn expiry_is_announced_once_and_ahead_of_time() {
    let settings = Settings::default().with(r#"session.expiring_notice = "58s""#);
    let gateway = Gateway::start_with(&settings).await;
    let expires_at = unix_now() + 60;
    let token = Key::default_secret().user_with("alice", json!({"exp":expires_at}));
    let mut client = gateway.session(&token).await;
    assert!(client.barrier().await.is_empty());
    let expiring = client.next_json().await;
    assert_eq!(expiring, json!({"type":"expiring","expires_at":expires_at}));
    let left = expires_at.saturating_sub(unix_now());
    assert!((56..=59).contains(&left), "{left}");
    assert!(client.barrier().await.is_empty());
}

#[tokio::test]
async fn expiry_is_not_announced_when_that_is_switched_off() {
    let settings = Settings::default()
        .with(r#"session.expiring_notice = "0s""#)
        .with(r#"auth.leeway = "0s""#);
    let gateway = Gateway::start_with(&settings).await;
    let mut client = gateway.session(&token(2)).await;
    client
        .expect_json(json!({"type":"closing","code":4410}))
        .await;
}

#[tokio::test]
async fn an_expired_session_that_does_not_read_is_gone_all_the_same() {
    let settings = Settings::default().with(r#"auth.leeway = "0s""#);
    let gateway = Gateway::start_with(&settings).await;
    let _idle = gateway.session(&token(1)).await;
    gateway
        .until_metric("curfew_connections", |n| n == 0.0)
        .await;
}
