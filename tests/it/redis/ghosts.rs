//! A user who has as many sessions as allowed, on any node. Sessions whose clients do not answer
//! make room for a new session (CONTRACT §4, 4409 and 4407).

use std::time::Duration;

use curfew_testkit::mint::Key;
use curfew_tests::{Cluster, Redis, Settings, eventually, eventually_within};
use serde_json::json;
use tokio::task::JoinSet;

const ALICE: &str = "alice";

/// Deadline for the removal of a killed node's records (CONTRACT §8, R4), and some time for a busy
/// machine.
const CLEANED_UP: Duration = Duration::from_secs(40);

/// The session that must be closed is on another node than the new session.
#[tokio::test]
async fn a_ghost_on_another_node_makes_room_and_those_who_answer_stay() {
    let redis = Redis::start().await;
    let settings = Settings::default().with("session.max_per_user = 2");
    let cluster = Cluster::start(2, &redis.url(), &settings).await;
    let lives = cluster[1].tape(ALICE, "room:1").await;
    let mut ghost = cluster[1].user(ALICE).await;
    let newcomer = cluster[0].tape(ALICE, "room:1").await;
    ghost.expect_close(4510, "no_pong").await;
    // The clients of both sessions answer, so no session is closed.
    let token = Key::default_secret().user(ALICE);
    let mut third = cluster[0].ws().bearer(&token).open().await;
    let closing = third.expect_close(4409, "session_limit").await;
    assert_eq!(closing["reconnect"], true, "{closing}");
    for tape in [&lives, &newcomer] {
        tape.assert_open("it answered").await;
    }
    assert_eq!(cluster[0].sessions().await.len(), 2);
}

/// Sessions of a node that does not answer count until their records are removed, because it is
/// unknown if they still exist.
#[tokio::test]
async fn sessions_of_a_node_that_was_killed_count_until_they_are_reaped() {
    let redis = Redis::start().await;
    let settings = Settings::default().with("session.max_per_user = 1");
    let mut cluster = Cluster::start(2, &redis.url(), &settings).await;
    let _lost = cluster[1].tape(ALICE, "room:1").await;
    drop(cluster.remove(1));
    let token = Key::default_secret().user(ALICE);
    let mut refused = cluster[0].ws().bearer(&token).open().await;
    let closing = refused.expect_close(4409, "session_limit").await;
    assert_eq!(closing["reconnect"], true, "{closing}");
    eventually_within(CLEANED_UP, "a session after the clean-up", async || {
        let mut client = cluster[0].ws().bearer(&token).open().await;
        let first = client.next_json().await;
        assert!(
            first["type"] == "connected" || first["code"] == 4409,
            "{first}"
        );
        (first["type"] == "connected").then_some(client)
    })
    .await;
}

/// The oldest session is closed, no matter on which node it is.
#[tokio::test]
async fn the_oldest_session_is_replaced_on_whichever_node_it_lives() {
    let redis = Redis::start().await;
    let settings = Settings::default()
        .with("session.max_per_user = 2")
        .with(r#"session.over_limit = "close_oldest""#);
    let cluster = Cluster::start(2, &redis.url(), &settings).await;
    let oldest = cluster[1].tape(ALICE, "room:1").await;
    let second = cluster[0].tape(ALICE, "room:1").await;
    let third = cluster[0].tape(ALICE, "room:1").await;
    oldest.closed_with(4407, "replaced").await;
    let closing = oldest.until(json!({"type":"closing"})).await.frame;
    assert_eq!(closing["reconnect"], false, "{closing}");
    for tape in [&second, &third] {
        tape.assert_open("it stays").await;
    }
    assert_eq!(cluster[1].sessions().await.len(), 2);
}

/// Regression: some of the clients that connected at the same time were refused, although a newer
/// session should replace the oldest one.
#[tokio::test]
async fn of_many_who_come_at_once_none_is_refused_where_the_oldest_gives_way() {
    let redis = Redis::start().await;
    let settings = Settings::default()
        .with("session.max_per_user = 3")
        .with(r#"session.over_limit = "close_oldest""#);
    let cluster = Cluster::start(2, &redis.url(), &settings).await;
    let token = Key::default_secret().user(ALICE);
    for round in 0..5 {
        let mut opening = JoinSet::new();
        for n in 0..20 {
            let connect = cluster[n % 2].ws().bearer(&token);
            opening.spawn(async move {
                let mut client = connect.open().await;
                let first = client.next_json().await;
                (first, client)
            });
        }
        let opened = opening.join_all().await;
        for (first, _) in &opened {
            assert_ne!(first["code"], 4409, "round {round}: {first}");
        }
        // All sessions above the limit are closed by 4407.
        eventually("the sessions above the limit to be closed", async || {
            (cluster[0].sessions().await.len() <= 3).then_some(())
        })
        .await;
    }
}
