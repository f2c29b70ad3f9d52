//! A session that stays open gets a `gap` wherever it may have missed publications (CONTRACT §4). A
//! node that loses, drops or withholds a publication sends a `gap` to the subscribers.

use curfew_tests::{Cluster, Kind, LEASE, Link, Redis, Settings, Tape, eventually};
use serde_json::json;

const LINK_LOST: &str = "curfew_gaps_total{reason=\"link_lost\"}";

/// Fails unless `tape` has exactly one gap for each of these channels, and no other gap.
fn assert_told_once(tape: &Tape, channels: &[&str]) {
    for channel in channels {
        let gaps = tape.matching(&json!({"type":"gap","channel":channel}));
        assert_eq!(gaps.len(), 1, "{channel}: {:?}", tape.seen());
    }
    let gaps = tape.matching(&json!({"type":"gap"}));
    assert_eq!(gaps.len(), channels.len(), "{gaps:?}");
}

/// Fails unless a gap stands before the publication `next`.
fn assert_gap_before(tape: &Tape, next: &str) {
    let seen = tape.seen();
    let place = |found: &dyn Fn(&serde_json::Value) -> bool| {
        let place = seen.iter().position(|seen| found(&seen.frame));
        place.unwrap_or_else(|| panic!("{seen:?}"))
    };
    let gap = place(&|frame| frame["type"] == "gap");
    let message = place(&|frame| frame["data"] == next);
    assert!(gap < message, "{seen:?}");
}

/// A node loses the connection that brings publications, and keeps its lease.
#[tokio::test]
async fn everyone_who_listens_over_a_lost_link_is_told_once_for_each_channel() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(2, &redis.url(), &Settings::default()).await;
    let mut tapes = Vec::new();
    for node in cluster.nodes() {
        for user in ["alice", "bob"] {
            tapes.push(node.tape(user, "room:1").await);
        }
    }
    // A client that subscribes to two channels gets a gap for each. A client that has unsubscribed
    // gets none.
    let both = &tapes[0];
    for (tape, command) in [(both, "subscribe"), (&tapes[1], "unsubscribe")] {
        let channel = if command == "subscribe" {
            "room:2"
        } else {
            "room:1"
        };
        let answer = tape
            .ask(command, json!({"type":command,"channel":channel}))
            .await;
        assert_eq!(answer["type"], "ok", "{answer}");
    }
    for loss in 1..=2 {
        redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        eventually("the gaps to be counted", async || {
            let told = cluster.metric(LINK_LOST).await;
            assert!(told <= 4.0 * f64::from(loss), "{told}");
            (told == 4.0 * f64::from(loss)).then_some(())
        })
        .await;
    }
    // No publication after the gap is missing.
    cluster[1].publish("room:1", json!("whole")).await;
    for (at, tape) in tapes.iter().enumerate() {
        if at != 1 {
            tape.until(json!({"data":"whole"})).await;
            assert_gap_before(tape, "whole");
        }
        let expect = [(1, 2), (2, 2)].map(|(room, losses)| {
            let listens = match at {
                0 => true,
                1 => false,
                _ => room == 1,
            };
            (format!("room:{room}"), if listens { losses } else { 0 })
        });
        for (channel, count) in expect {
            let gaps = tape.matching(&json!({"type":"gap","channel":channel}));
            assert_eq!(gaps.len(), count, "{at} {channel}: {:?}", tape.seen());
        }
        tape.assert_open("after").await;
    }
    assert_eq!(cluster.metric("curfew_gaps_total").await, 8.0);
}

/// A node without a lease drops publications that other nodes accept.
#[tokio::test]
async fn what_a_node_withheld_without_a_lease_is_told_when_it_speaks_again() {
    let redis = Redis::start().await;
    let cluster = Cluster::behind_proxies(2, &redis, &Settings::default()).await;
    let (silent, other) = (&cluster[0], &cluster[1]);
    let listener = silent.tape("alice", "room:1").await;
    // This channel has no publication while the lease is lost, so it gets no gap.
    let quiet = silent.tape("bob", "room:2").await;
    let elsewhere = other.tape("carol", "room:1").await;
    // Publications still reach the node, but the node loses its lease.
    cluster.proxy(0).set_only(Kind::Tracking, Link::BLACK_HOLE);
    silent.until_out_of_touch(LEASE * 3, &["redis"]).await;
    for lost in 0..3 {
        other.publish("room:1", json!({ "lost": lost })).await;
    }
    let dropped = "curfew_messages_dropped_total{reason=\"unvouched\"}";
    silent.until_metric(dropped, |count| count >= 3.0).await;
    assert!(
        listener.matching(&json!({"type":"gap"})).is_empty(),
        "a gap was sent without the lease"
    );
    cluster.proxy(0).set_only(Kind::Tracking, Link::PASS);
    silent.until_in_touch(LEASE * 5).await;
    listener
        .until(json!({"type":"gap","channel":"room:1"}))
        .await;
    for channel in ["room:1", "room:2"] {
        other.publish(channel, json!("again")).await;
    }
    for tape in [&listener, &quiet, &elsewhere] {
        tape.until(json!({"data":"again"})).await;
    }
    assert_told_once(&listener, &["room:1"]);
    assert_gap_before(&listener, "again");
    assert_told_once(&quiet, &[]);
    assert_told_once(&elsewhere, &[]);
    assert!(
        listener.matching(&json!({"data":{}})).is_empty(),
        "a dropped publication was delivered later"
    );
}

/// A message in a channel that the node cannot read may have been a publication, for example of a
/// newer node.
#[tokio::test]
async fn what_cannot_be_read_in_a_channel_is_told_as_a_gap() {
    // By default, Redis would disconnect a subscriber that has not yet read a message as large as
    // the second one.
    let redis = Redis::start_with(&["client-output-buffer-limit pubsub 0 0 0"]).await;
    let cluster = Cluster::start(1, &redis.url(), &Settings::default()).await;
    let tape = cluster[0].tape("alice", "room:1").await;
    let other = cluster[0].tape("bob", "room:2").await;
    redis
        .run(&["PUBLISH", "curfew:channel:room:1", "{\"v\":2}"])
        .await;
    tape.until(json!({"type":"gap","channel":"room:1"})).await;
    let too_large = "x".repeat(80 * 1024 * 1024);
    redis
        .run(&["PUBLISH", "curfew:channel:room:2", &too_large])
        .await;
    other.until(json!({"type":"gap","channel":"room:2"})).await;
    for reason in ["malformed", "too_large"] {
        let told = format!("curfew_gaps_total{{reason=\"{reason}\"}}");
        assert_eq!(cluster.metric(&told).await, 1.0, "{reason}");
    }
    assert_told_once(&tape, &["room:1"]);
}
