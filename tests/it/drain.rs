//! Drain (CONTRACT §4 1012, §6 `[drain]`).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use curfew_testkit::PATIENCE;
use curfew_testkit::mint::Key;
use curfew_tests::{Gateway, Settings, eventually};

#[tokio::test]
async fn a_draining_node_says_so_and_sends_everyone_away_spread_over_the_window() {
    let settings = Settings::default().with(r#"drain.window = "2s""#);
    let mut gateway = Gateway::start_with(&settings).await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(gateway.user("alice").await);
    }
    assert!(gateway.ready().await);
    let began = Instant::now();
    gateway.terminate();
    let not_ready = eventually("a readiness of 503", async || {
        let answer = gateway.admin_as(None, "GET", "/readyz", None).await;
        (answer.status == 503).then_some(answer)
    });
    let not_ready = not_ready.await;
    assert!(
        not_ready.json().to_string().contains("drain"),
        "{}",
        not_ready.text()
    );
    let alive = gateway.admin_as(None, "GET", "/livez", None).await;
    assert_eq!(alive.status, 200);
    // A new client is refused. The refusal sends it to another node, and does not blame its token.
    let refused = eventually("a refusal", async || {
        let connect = gateway.ws().bearer(&Key::default_secret().user("bob"));
        connect.try_attempt().await.unwrap().err()
    });
    let refused = refused.await;
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some());
    let mut leaving = tokio::task::JoinSet::new();
    for mut client in clients {
        leaving.spawn(async move {
            let closing = client.expect_close(1012, "draining").await;
            (closing, Instant::now())
        });
    }
    let left = leaving.join_all().await;
    let mut waits = BTreeSet::new();
    for (closing, _) in &left {
        assert_eq!(closing["reconnect"], true);
        waits.insert(closing["retry_after_ms"].as_u64().expect("retry_after_ms"));
    }
    assert!(
        waits.len() > 3,
        "the waits are not spread at random: {waits:?}"
    );
    let times = || left.iter().map(|(_, at)| at.duration_since(began));
    let (first, last) = (times().min().unwrap(), times().max().unwrap());
    assert!(
        last - first > Duration::from_secs(1),
        "the closes are not spread over time: {first:?} to {last:?}"
    );
    assert!(last < Duration::from_secs(5), "{last:?}");
    assert_eq!(gateway.exited(PATIENCE).await, 0);
}

#[tokio::test]
async fn without_sessions_a_node_stops_at_once() {
    for signal in ["TERM", "INT"] {
        let settings = Settings::default().with(r#"drain.window = "60s""#);
        let mut gateway = Gateway::start_with(&settings).await;
        gateway.signal(signal);
        assert_eq!(gateway.exited(PATIENCE).await, 0, "{signal}");
    }
}

#[tokio::test]
async fn a_second_signal_hurries() {
    let settings = Settings::default().with(r#"drain.window = "300s""#);
    let mut gateway = Gateway::start_with(&settings).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(gateway.user("alice").await);
    }
    gateway.terminate();
    eventually("draining", async || (!gateway.ready().await).then_some(())).await;
    gateway.terminate();
    for client in &mut clients {
        assert!(client.ended_within(PATIENCE).await);
    }
    assert_eq!(gateway.exited(PATIENCE).await, 0);
}
