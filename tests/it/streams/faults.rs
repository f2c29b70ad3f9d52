//! Streams while links break, data is lost, or other programs use the streams' keys.

use std::time::{Duration, Instant};

use curfew_tests::{Cluster, Gateway, LEASE, Redis, RedisCluster, Reply, Tape, eventually_within};
use serde_json::{Value, json};
use tokio::time::sleep_until;

use super::{join, offsets, position, with_streams};

/// Deadline for a node to recover.
const RECOVERY: Duration = Duration::from_secs(20);

/// Publishes until the publication is accepted. Returns its position.
async fn publish(node: &Gateway, data: Value) -> Value {
    eventually_within(RECOVERY, "a publication to be accepted", async || {
        let body = json!({"channel":"room:1","data":data});
        let (status, answer) = node.admin("POST", "/v1/publish", Some(body)).await;
        (status == 200).then_some(answer)
    })
    .await
}

#[tokio::test]
async fn a_link_that_is_lost_again_and_again_leaves_no_hole_and_tells_no_gap() {
    const COUNT: i64 = 400;
    let redis = Redis::start().await;
    let cluster = Cluster::start(2, &redis.url(), &with_streams(1_000)).await;
    let (alice, _) = join(&cluster[0], "alice", None).await;
    let (bob, _) = join(&cluster[1], "bob", None).await;
    for n in 1..=COUNT {
        if n % 40 == 0 {
            redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        }
        publish(&cluster[0], json!(n)).await;
    }
    for tape in [&alice, &bob] {
        tape.until_within(RECOVERY, json!({"offset":COUNT})).await;
        assert_eq!(offsets(tape, "room:1"), (1..=COUNT).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn the_last_publication_before_a_break_comes_though_none_follows() {
    let redis = Redis::start().await;
    let cluster = Cluster::behind_proxies(2, &redis, &with_streams(100)).await;
    let (alice, _) = join(&cluster[0], "alice", None).await;
    for n in 1..=5 {
        redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        publish(&cluster[1], json!(n)).await;
        alice.until_within(RECOVERY, json!({"offset":n})).await;
    }
    assert_eq!(offsets(&alice, "room:1"), [1, 2, 3, 4, 5]);
}

/// Ends the subscriber connections of all nodes. The nodes cannot subscribe again until
/// [`restore_link`] is called.
async fn break_link(redis: &Redis, cluster: &Cluster) {
    redis
        .run(&["ACL", "SETUSER", "default", "-subscribe"])
        .await;
    redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    for node in cluster.nodes() {
        eventually_within(RECOVERY, "a node that knows of its lost link", async || {
            (node.metric("curfew_broker_connected").await == 0.0).then_some(())
        })
        .await;
    }
}

async fn restore_link(redis: &Redis) {
    redis
        .run(&["ACL", "SETUSER", "default", "+subscribe"])
        .await;
}

/// Regression: while its link was lost, a node recovered publications from its own window of recent
/// publications instead of the stream in Redis. The window had only the publications from before
/// the break.
#[tokio::test]
async fn while_a_link_is_lost_the_stream_is_read_for_each_subscriber() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(2, &redis.url(), &with_streams(100)).await;
    let (alice, joined) = join(&cluster[0], "alice", None).await;
    publish(&cluster[0], json!(1)).await;
    alice.until(json!({"offset":1})).await;
    break_link(&redis, &cluster).await;
    let since = position(&joined);
    let mut tapes = vec![alice];
    for n in 2..=4 {
        publish(&cluster[1], json!(n)).await;
        let (tape, answer) = join(&cluster[0], &format!("user-{n}"), Some(&since)).await;
        assert_eq!(
            (&answer["recovered"], &answer["offset"]),
            (&json!(true), &json!(n))
        );
        tape.until(json!({"offset":n})).await;
        tapes.push(tape);
    }
    restore_link(&redis).await;
    publish(&cluster[1], json!(5)).await;
    for tape in &tapes {
        tape.until_within(RECOVERY, json!({"offset":5})).await;
        assert_eq!(offsets(tape, "room:1"), [1, 2, 3, 4, 5]);
    }
}

/// Regression: a node whose link was lost did not learn of the deletion, and recovered publications
/// that were deleted.
#[tokio::test]
async fn deleted_publications_are_not_recovered_while_a_link_is_lost() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(2, &redis.url(), &with_streams(100)).await;
    let (alice, joined) = join(&cluster[0], "alice", None).await;
    for n in 1..=3 {
        publish(&cluster[0], json!(n)).await;
    }
    alice.until(json!({"offset":3})).await;
    break_link(&redis, &cluster).await;
    let path = "/v1/channels/room:1/history";
    cluster[1].admin_ok("DELETE", path, None).await;
    let (_, answer) = join(&cluster[0], "bob", Some(&position(&joined))).await;
    assert_eq!(
        (&answer["recovered"], &answer["offset"]),
        (&json!(false), &json!(3))
    );
}

/// Regression: a stream that was reset to an older copy of itself assigned offsets that subscribers
/// had already received. The subscribers took the new publications for old ones.
#[tokio::test]
async fn a_stream_that_goes_back_begins_another_epoch() {
    const COPY: &str =
        "for i = 1, #KEYS, 2 do redis.call('COPY', KEYS[i], KEYS[i + 1], 'REPLACE') end";
    let redis = Redis::start().await;
    let cluster = Cluster::start(3, &redis.url(), &with_streams(100)).await;
    let (alice, _) = join(&cluster[0], "alice", None).await;
    let (bob, _) = join(&cluster[1], "bob", None).await;
    publish(&cluster[0], json!("first")).await;
    let keys = redis.keys().await;
    let stream = keys.iter().find(|key| key.ends_with("}:room:1")).unwrap();
    let ends = [":meta", ":old", ":meta:old"];
    let [meta, old_stream, old_meta] = ends.map(|end| format!("{stream}{end}"));
    // The second publisher is on a node without a subscriber. That node therefore has no position
    // in the stream.
    for (round, publisher) in [0, 2].into_iter().enumerate() {
        let copy = ["EVAL", COPY, "4", stream, &old_stream, &meta, &old_meta];
        redis.run(&copy).await;
        for n in 0..10 {
            publish(&cluster[0], json!(n)).await;
        }
        let before = publish(&cluster[0], json!({"before":round})).await;
        for tape in [&alice, &bob] {
            tape.until_within(RECOVERY, json!({"data":{"before":round}}))
                .await;
        }
        let back = ["EVAL", COPY, "4", &old_stream, stream, &old_meta, &meta];
        redis.run(&back).await;
        let after = eventually_within(RECOVERY, "another epoch", async || {
            let placed = publish(&cluster[publisher], json!({"after":round})).await;
            (placed["epoch"] != before["epoch"]).then_some(placed)
        })
        .await;
        for tape in [&alice, &bob] {
            tape.until_within(
                RECOVERY,
                json!({"data":{"after":round},"offset":after["offset"]}),
            )
            .await;
            let gaps = tape.matching(&json!({"type":"gap","channel":"room:1"}));
            assert_eq!(gaps.len(), round + 1, "{:?}", tape.seen());
            assert_eq!(gaps[round].frame["epoch"], after["epoch"]);
        }
        let (_, answer) = join(&cluster[publisher], "carol", Some(&position(&before))).await;
        assert_eq!(answer["recovered"], false, "{answer}");
    }
}

#[tokio::test]
async fn nothing_is_recovered_across_a_loss_of_data() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(2, &redis.url(), &with_streams(100)).await;
    let (alice, joined) = join(&cluster[0], "alice", None).await;
    for n in 1..=3 {
        publish(&cluster[0], json!(n)).await;
    }
    alice.until(json!({"offset":3})).await;
    redis.run(&["FLUSHALL"]).await;
    let since = position(&joined);
    cluster.synced().await;
    for node in cluster.nodes() {
        let (_, answer) = join(node, "bob", Some(&since)).await;
        assert_eq!(answer["recovered"], false, "{answer}");
        assert_ne!(answer["epoch"], since["epoch"]);
    }
    let placed = publish(&cluster[1], json!("new")).await;
    assert_eq!(placed["offset"], 1);
    alice.until_within(RECOVERY, json!({"data":"new"})).await;
    let gaps = alice.matching(&json!({"type":"gap","channel":"room:1"}));
    assert_eq!(gaps.len(), 1, "{:?}", alice.seen());
    assert_eq!(gaps[0].frame["epoch"], placed["epoch"]);
    assert_eq!(offsets(&alice, "room:1"), [1, 2, 3, 0, 1]);
}

#[tokio::test]
async fn what_the_stream_has_no_more_is_a_gap_where_it_is_missing() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(2, &redis.url(), &with_streams(3)).await;
    let (alice, joined) = join(&cluster[0], "alice", None).await;
    publish(&cluster[1], json!(1)).await;
    alice.until(json!({"offset":1})).await;
    cluster[0].freeze().await;
    redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    for n in 2..=10 {
        publish(&cluster[1], json!(n)).await;
    }
    cluster[0].thaw();
    alice.until_within(RECOVERY, json!({"offset":10})).await;
    assert_eq!(offsets(&alice, "room:1"), [1, -7, 8, 9, 10]);
    // The link of the other node was cut as well. That node refuses subscriptions until its link is
    // back.
    let answer = eventually_within(RECOVERY, "a subscription to be accepted", async || {
        let bob = Tape::of(cluster[1].user("bob").await);
        let since = position(&joined);
        let subscribe = json!({"type":"subscribe","channel":"room:1","since":since});
        let answer = bob.ask("join", subscribe).await;
        (answer["type"] == "ok").then_some(answer)
    })
    .await;
    assert_eq!(answer["recovered"], false);
}

#[tokio::test]
async fn keys_that_are_not_ours_begin_another_epoch() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(1, &redis.url(), &with_streams(10)).await;
    let first = publish(&cluster[0], json!(1)).await;
    let keys = redis.keys().await;
    let stream = keys.iter().find(|key| key.ends_with("}:room:1")).unwrap();
    let meta = format!("{stream}:meta");
    let mut epochs = vec![first["epoch"].clone()];
    for commands in [
        vec![vec!["DEL", stream], vec!["SET", stream, "x"]],
        vec![vec!["XADD", stream, "99-0", "x", "y"]],
        vec![vec!["DEL", &meta], vec!["SET", &meta, "x"]],
        vec![vec!["HSET", &meta, "top", "x"]],
        vec![vec!["HSET", &meta, "server", "x"]],
    ] {
        for command in &commands {
            redis.run(command).await.accepted();
        }
        let placed = publish(&cluster[0], json!(2)).await;
        assert_eq!(placed["offset"], 1, "{commands:?}");
        assert!(!epochs.contains(&placed["epoch"]), "{commands:?}");
        epochs.push(placed["epoch"].clone());
    }
}

#[tokio::test]
async fn a_key_is_of_the_epoch_in_which_it_was_taken() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(1, &redis.url(), &with_streams(10)).await;
    let (alice, _) = join(&cluster[0], "alice", None).await;
    let keyed = || json!({"channel":"room:1","data":"order","key":"order-77"});
    let publish = async || {
        cluster[0]
            .admin_ok("POST", "/v1/publish", Some(keyed()))
            .await
    };
    let first = publish().await;
    assert_eq!(publish().await, first);
    let keys = redis.keys().await;
    let stream = keys.iter().find(|key| key.ends_with("}:room:1")).unwrap();
    // The idempotency key still exists in Redis, but its publication is lost.
    redis.run(&["DEL", stream, &format!("{stream}:meta")]).await;
    let again = publish().await;
    assert_eq!(again["offset"], 1);
    assert_ne!(again["epoch"], first["epoch"]);
    assert_eq!(publish().await, again);
    let body = json!({"channel":"room:1","data":"the end"});
    cluster[0].admin_ok("POST", "/v1/publish", Some(body)).await;
    alice
        .until_within(RECOVERY, json!({"data":"the end"}))
        .await;
    assert_eq!(offsets(&alice, "room:1"), [1, 0, 1, 2]);
}

#[tokio::test]
async fn a_script_that_redis_has_forgotten_loses_nothing() {
    const COUNT: i64 = 100;
    let redis = Redis::start().await;
    let cluster = Cluster::start(1, &redis.url(), &with_streams(1_000)).await;
    let (alice, _) = join(&cluster[0], "alice", None).await;
    for n in 1..=COUNT {
        if n % 10 == 0 {
            redis.run(&["SCRIPT", "FLUSH", "SYNC"]).await.accepted();
        }
        publish(&cluster[0], json!(n)).await;
    }
    alice.until(json!({"offset":COUNT})).await;
    assert_eq!(offsets(&alice, "room:1"), (1..=COUNT).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_stream_takes_nothing_after_the_lease() {
    const COUNT: usize = 3;
    let redis = Redis::start().await;
    let cluster = Cluster::start(1, &redis.url(), &with_streams(10)).await;
    let bob = Tape::of(cluster[0].user("bob").await);
    let first = publish(&cluster[0], json!("first")).await;
    redis.freeze();
    let frozen_at = Instant::now();
    // Redis is frozen, so the publications wait in its sockets.
    for n in 0..COUNT {
        bob.send(json!({"type":"publish","id":n,"channel":"room:1","data":n}));
    }
    for n in 0..COUNT {
        let answer = bob.until_within(RECOVERY, json!({"id":n})).await.frame;
        assert_eq!(answer["code"], "unknown_outcome", "{answer}");
    }
    // The lease ends at this time at the latest, because the last heartbeat was executed before
    // Redis was frozen.
    sleep_until((frozen_at + LEASE).into()).await;
    redis.thaw();
    let next = publish(&cluster[0], json!("next")).await;
    assert_eq!((&first["offset"], &next["offset"]), (&json!(1), &json!(2)));
}

/// Regression: when a slot was assigned to the primary that already had it, the primary dropped the
/// subscriptions in the slot. The node then received nothing in the slot's channels any more.
#[tokio::test]
async fn a_slot_that_its_primary_is_given_again_is_listened_to_again() {
    let redis = RedisCluster::start().await;
    let cluster = Cluster::start(1, &redis.url(), &with_streams(100)).await;
    let (alice, _) = join(&cluster[0], "alice", None).await;
    let plain = cluster[0].tape("alice", "plain").await;
    let cases = [(&alice, "room:1"), (&plain, "plain")];
    for (tape, channel) in cases {
        let name = format!("curfew:channel:{channel}");
        let owner = redis.owner(&["GET", &name]).await;
        let slot = owner.run(&["CLUSTER", "KEYSLOT", &name]).await.integer();
        let (slot, id) = (
            slot.to_string(),
            owner.run(&["CLUSTER", "MYID"]).await.text(),
        );
        let count = ["PUBSUB", "SHARDNUMSUB", &name];
        let listeners = async || match owner.run(&count).await {
            Reply::List(counts) => counts[1].integer(),
            other => panic!("{other:?}"),
        };
        assert_eq!(listeners().await, 1);
        owner.run(&["CLUSTER", "SETSLOT", &slot, "NODE", &id]).await;
        // The node does not receive this publication, because the primary has dropped the
        // subscription.
        let body = json!({"channel":channel,"data":"missed"});
        cluster[0].admin_ok("POST", "/v1/publish", Some(body)).await;
        eventually_within(RECOVERY, "the node to subscribe again", async || {
            (listeners().await == 1).then_some(())
        })
        .await;
        let body = json!({"channel":channel,"data":"heard"});
        cluster[0].admin_ok("POST", "/v1/publish", Some(body)).await;
        tape.until(json!({"channel":channel,"data":"heard"})).await;
    }
    assert_eq!(offsets(&alice, "room:1"), [1, 2]);
    plain.until(json!({"type":"gap","channel":"plain"})).await;
}

/// Regression: after a channel's slot had moved, a subscription to the channel was refused until
/// the node's next regular lookup of the primaries, up to five seconds later.
#[tokio::test]
async fn a_subscription_where_the_slot_has_moved_has_the_node_look_for_it() {
    const SOON: Duration = Duration::from_secs(3);
    let redis = RedisCluster::start().await;
    let cluster = Cluster::start(1, &redis.url(), &with_streams(100)).await;
    let alice = Tape::of(cluster[0].user("alice").await);
    let name = "curfew:channel:room:1";
    let from = redis.owner(&["GET", name]).await.port();
    let mut servers = redis.servers().iter();
    let to = servers.find(|server| server.port() != from).unwrap();
    let moving = redis.begin_move(name, to).await;
    moving.end().await;
    moving.tell().await;
    let joined = eventually_within(SOON, "a subscription to be accepted", async || {
        let subscribe = json!({"type":"subscribe","channel":"room:1"});
        let id = format!("join {}", alice.seen().len());
        let answer = alice.ask(&id, subscribe).await;
        (answer["type"] == "ok").then_some(answer)
    })
    .await;
    assert_eq!(joined["offset"], 0, "{joined}");
}
