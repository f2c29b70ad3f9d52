//! A node whose process is stopped and later continues (CONTRACT §8 R1).

use std::time::{Duration, Instant};

use curfew_tests::{Cluster, Flow, Kind, LEASE, Link, Redis, Settings, revocation_key};
use serde_json::json;
use tokio::time::sleep_until;

/// Time for which the node is stopped. It is longer than the lease, so the node must ask Redis
/// before it delivers anything.
const FROZEN: Duration = LEASE.saturating_add(Duration::from_millis(500));

#[tokio::test]
async fn a_node_that_slept_through_a_revocation_delivers_and_accepts_nothing_of_it() {
    let redis = Redis::start().await;
    let cluster = Cluster::behind_proxies(2, &redis, &Settings::default()).await;
    let publisher = cluster[1].publisher("carol", "room:1").await;
    let (alice, bob) = (
        cluster[0].tape("alice", "room:1").await,
        cluster[0].tape("bob", "room:1").await,
    );
    let witness = cluster[1].tape("dave", "room:2").await;
    for tape in [&alice, &bob] {
        tape.until(json!({"type":"message"})).await;
    }
    // After the stop, publications reach the node at once, and the revocation does not. Only the
    // lease keeps the node from delivering them.
    let late = Link::only_down(Flow::Stall);
    cluster.proxy(0).set_only(Kind::Tracking, late);
    cluster[0].signal("STOP");
    let written = Instant::now();
    redis
        .run(&["SET", &revocation_key("user", "alice"), "1"])
        .await;
    // The command `publish` waits in the node's socket until the node continues.
    alice.send(json!({"type":"publish","id":"late","channel":"room:2","data":"from alice"}));
    sleep_until((written + FROZEN).into()).await;
    let before = alice.messages().len();
    cluster[0].signal("CONT");
    let thawed = Instant::now();
    sleep_until((thawed + Duration::from_millis(700)).into()).await;
    assert_eq!(
        alice.messages().len(),
        before,
        "a publication was delivered without the lease"
    );
    cluster.proxy(0).set(Link::PASS);
    alice.revoked().await;
    assert_eq!(
        alice.messages().len(),
        before,
        "a publication was delivered after the lease"
    );
    alice.assert_revoked_within_the_lease(written, "a frozen node");
    assert!(alice.matching(&json!({"type":"ok","id":"late"})).is_empty());
    bob.message_after(Duration::from_secs(10), thawed).await;
    bob.assert_open("after").await;
    cluster[1].publish("room:2", json!("the end")).await;
    witness.until(json!({"data":"the end"})).await;
    assert_eq!(
        witness.messages().len(),
        1,
        "alice's publication was delivered: {:?}",
        witness.messages()
    );
    cluster[0].assert_refused("alice").await;

    // A revocation during a stop shorter than the lease is in force within the lease as well.
    cluster[0].signal("STOP");
    let written = Instant::now();
    redis
        .run(&["SET", &revocation_key("user", "bob"), "1"])
        .await;
    sleep_until((written + Duration::from_secs(1)).into()).await;
    cluster[0].signal("CONT");
    bob.revoked().await;
    bob.assert_revoked_within_the_lease(written, "a short sleep");
    drop(publisher);
    cluster.assert_well().await;
}
