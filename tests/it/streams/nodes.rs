//! Streams that several nodes share over Redis.

use std::collections::BTreeSet;
use std::time::Duration;

use curfew_tests::{Cluster, Gateway, Redis, Settings, Tape, eventually, eventually_within};
use serde_json::{Value, json};

use super::{join, offsets, place, position, with_streams};

/// Deadline for the nodes to compare their settings.
const SOON: Duration = Duration::from_secs(30);

/// Publishes `count` numbers, beginning with `from`. Returns the position of the last number.
async fn publish(node: &Gateway, from: u64, count: u64) -> Value {
    let mut last = Value::Null;
    for data in from..from + count {
        let body = json!({"channel":"room:1","data":data});
        last = node.admin_ok("POST", "/v1/publish", Some(body)).await;
    }
    last
}

#[tokio::test]
async fn a_client_that_comes_back_to_another_node_has_everything_once_and_in_order() {
    const EACH: u64 = 50;
    let redis = Redis::start().await;
    let cluster = Cluster::start(2, &redis.url(), &with_streams(1_000)).await;
    let (tape, joined) = join(&cluster[0], "alice", None).await;
    let mut since = position(&joined);
    let mut seen: Vec<i64> = Vec::new();
    let mut tape = Some(tape);
    for round in 0..6 {
        // The client disconnects from one node and reconnects to the other node while publications
        // continue.
        let node = &cluster[round % 2];
        publish(node, 1, EACH).await;
        let left = tape.take().unwrap();
        seen.extend(offsets(&left, "room:1"));
        if let Some(last) = seen.last() {
            since["offset"] = json!(last);
        }
        drop(left);
        publish(&cluster[0], 1, EACH).await;
        let publishing = publish(&cluster[1], 1, EACH);
        let coming = join(&cluster[(round + 1) % 2], "alice", Some(&since));
        let (_, (back, answer)) = tokio::join!(publishing, coming);
        assert_eq!(answer["recovered"], true, "{answer}");
        let answered = place(&back, &json!({"type":"ok"})).unwrap();
        let first = place(&back, &json!({"type":"message"}));
        assert!(
            first.is_none_or(|first| answered < first),
            "{:?}",
            back.seen()
        );
        tape = Some(back);
    }
    let last = publish(&cluster[0], 1, 1).await;
    let tape = tape.unwrap();
    tape.until(json!({"type":"message","offset":last["offset"]}))
        .await;
    seen.extend(offsets(&tape, "room:1"));
    let expect: Vec<_> = (1..=last["offset"].as_i64().unwrap()).collect();
    assert_eq!(seen, expect);
    assert_eq!(cluster.metric("curfew_gaps_total").await, 0.0);
}

#[tokio::test]
async fn many_who_come_back_cost_few_reads() {
    const CLIENTS: usize = 100;
    let redis = Redis::start().await;
    let cluster = Cluster::start(1, &redis.url(), &with_streams(100)).await;
    let node = &cluster[0];
    let (tape, joined) = join(node, "alice", None).await;
    drop(tape);
    publish(node, 1, 10).await;
    let since = position(&joined);
    let reads = || node.metric("curfew_stream_reads_total");
    let before = reads().await;
    let mut tapes = Vec::new();
    for _ in 0..CLIENTS {
        tapes.push(Tape::of(node.user("bob").await));
    }
    for tape in &tapes {
        tape.send(json!({"type":"subscribe","id":1,"channel":"room:1","since":since}));
    }
    for tape in &tapes {
        tape.until(json!({"type":"ok","recovered":true})).await;
        tape.until(json!({"offset":10})).await;
        assert_eq!(offsets(tape, "room:1"), (1..=10).collect::<Vec<_>>());
    }
    let read = reads().await - before;
    assert!(
        read <= 5.0,
        "Redis was read {read} times for {CLIENTS} clients"
    );
    let recovered = node.metric("curfew_stream_recoveries_total").await;
    assert_eq!(recovered, CLIENTS as f64);
}

#[tokio::test]
async fn a_key_is_known_on_every_node() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(2, &redis.url(), &with_streams(100)).await;
    let (tape, _) = join(&cluster[0], "alice", None).await;
    let mut offsets_told = BTreeSet::new();
    for node in cluster.nodes() {
        let mut bob = node.user("bob").await;
        bob.send(json!({"type":"publish","id":1,"channel":"room:1","data":1,"key":"order-77"}))
            .await;
        offsets_told.insert(bob.next_json().await["offset"].as_u64());
    }
    assert_eq!(offsets_told, BTreeSet::from([Some(1)]));
    publish(&cluster[1], 2, 1).await;
    tape.until(json!({"data":2})).await;
    assert_eq!(offsets(&tape, "room:1"), [1, 2]);
}

#[tokio::test]
async fn names_in_redis_are_as_specified() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(1, &redis.url(), &with_streams(5)).await;
    for n in 0..8 {
        publish(&cluster[0], n, 1).await;
    }
    let keys = redis.keys().await;
    let streams: Vec<_> = keys
        .iter()
        .filter(|key| key.starts_with("curfew:stream:"))
        .collect();
    assert_eq!(streams.len(), 2, "{keys:?}");
    assert!(streams[0].ends_with("}:room:1"), "{streams:?}");
    assert_eq!(*streams[1], format!("{}:meta", streams[0]));
    assert_eq!(redis.run(&["XLEN", streams[0]]).await.integer(), 5);
    let ttl = redis.run(&["PTTL", streams[0]]).await.integer();
    assert!((590_000..=600_000).contains(&ttl), "{ttl}");
    // A channel without a stream has no key in Redis.
    let body = json!({"channel":"plain","data":1});
    cluster[0].admin_ok("POST", "/v1/publish", Some(body)).await;
    assert!(!redis.keys().await.iter().any(|key| key.contains("plain")));
}

/// Regression: a node sent a gap to subscribers, and told a client that reconnected that it had
/// missed nothing.
#[tokio::test]
async fn what_came_without_a_place_is_not_said_to_be_recovered() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(1, &redis.url(), &with_streams(5)).await;
    let node = &cluster[0];
    let (stays, joined) = join(node, "alice", None).await;
    let first = publish(node, 1, 1).await;
    stays.until(json!({"type":"message","offset":1})).await;
    // These are the positions of clients that are disconnected during the next publication.
    let away = [position(&joined), position(&first)];
    // A node that writes envelopes of version 1, or has other settings, publishes without a
    // position.
    let envelope = r#"{"v":1,"from":"old","data":"unplaced"}"#;
    redis
        .run(&["PUBLISH", "curfew:channel:room:1", envelope])
        .await;
    stays
        .until(json!({"type":"gap","channel":"room:1","offset":1}))
        .await;
    for since in &away {
        let (_, answer) = join(node, "bob", Some(since)).await;
        assert_eq!(answer["recovered"], false, "{since}: {answer}");
    }
    let second = publish(node, 2, 1).await;
    stays.until(json!({"type":"message","offset":2})).await;
    for (since, recovered) in [(&first, false), (&second, true)] {
        let (_, answer) = join(node, "bob", Some(&position(since))).await;
        assert_eq!(answer["recovered"], recovered, "{since}: {answer}");
    }
    let third = publish(node, 3, 1).await;
    let (bob, answer) = join(node, "bob", Some(&position(&second))).await;
    assert_eq!(answer["recovered"], true, "{answer}");
    bob.until(json!({"type":"message","offset":third["offset"]}))
        .await;
}

#[tokio::test]
async fn a_newer_envelope_than_a_node_knows_is_a_gap_and_one_without_a_place_too() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(1, &redis.url(), &with_streams(5)).await;
    let (tape, _) = join(&cluster[0], "alice", None).await;
    publish(&cluster[0], 1, 1).await;
    // A node that writes envelopes of version 1, or has other settings, publishes without a
    // position.
    let envelope = r#"{"v":1,"from":"old","data":2}"#;
    redis
        .run(&["PUBLISH", "curfew:channel:room:1", envelope])
        .await;
    tape.until(json!({"type":"gap","channel":"room:1","offset":1}))
        .await;
    publish(&cluster[0], 3, 1).await;
    tape.until(json!({"data":3})).await;
    let data: Vec<_> = tape
        .messages()
        .iter()
        .map(|seen| seen.frame["data"].clone())
        .collect();
    assert_eq!(data, [1, 2, 3]);
    // A message with an unknown version makes no gap, because the stream lacks no publication.
    redis
        .run(&["PUBLISH", "curfew:channel:room:1", r#"{"v":9}"#])
        .await;
    let dropped = "curfew_broker_messages_dropped_total{reason=\"malformed\"}";
    eventually("the message to be dropped", async || {
        (cluster[0].metric(dropped).await == 1.0).then_some(())
    })
    .await;
    publish(&cluster[0], 4, 1).await;
    tape.until(json!({"data":4})).await;
    assert_eq!(offsets(&tape, "room:1"), [1, -1, 2, 3]);
}

/// Regression: nodes with other settings of streams lost publications, and nothing showed it.
#[tokio::test]
async fn nodes_whose_channels_differ_are_warned_of_and_shown() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(2, &redis.url(), &with_streams(5)).await;
    let digests = async || {
        let nodes = cluster[0].nodes().await;
        let digests = nodes.iter().map(|node| node["channels"].to_string());
        digests.collect::<BTreeSet<_>>()
    };
    let one = digests().await;
    assert_eq!(one.len(), 1, "{one:?}");
    let put_in_force = async |settings: Settings, count: usize, says: &str| {
        cluster[1].write_config(&settings.on_redis(&redis.url()));
        cluster[1].reload();
        eventually("the nodes' digests", async || {
            (digests().await.len() == count).then_some(())
        })
        .await;
        let first = cluster[0].id().await;
        eventually_within(SOON, says, async || {
            let entries = cluster[1].log().entries();
            let mut said = entries.iter().filter(|entry| {
                entry["message"]
                    .as_str()
                    .is_some_and(|line| line.contains("[[channels]]"))
            });
            let last = said.next_back()?;
            (last["message"].as_str()?.contains(says)
                && last["nodes"].as_str().is_none_or(|nodes| nodes == first))
            .then_some(())
        })
        .await;
    };
    put_in_force(with_streams(6), 2, "differ from this node's").await;
    put_in_force(with_streams(5), 1, "every node has the same").await;
    assert_eq!(digests().await, one);
    // A node without any settings of channels also differs.
    put_in_force(Settings::default(), 2, "differ from this node's").await;
}
