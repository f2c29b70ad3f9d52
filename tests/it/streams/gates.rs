//! Access that ends while the node reads a stream for a subscriber (ST4).

use std::time::Duration;

use curfew_tests::{Cluster, Flow, Kind, Link, Redis, Settings, Tape, eventually, revocation_key};
use serde_json::{Value, json};

use super::{position, with_streams};

/// Deadline for a reload to be in force, and for an answer.
const SOON: Duration = Duration::from_secs(15);

/// A node and a session. The node has read the session's recovery from Redis, but the answer of
/// Redis has not arrived yet.
struct Reading {
    redis: Redis,
    cluster: Cluster,
    alice: Tape,
}

/// Number of calls of `EVAL` so far. The node reads streams by `EVAL`.
async fn reads(redis: &Redis) -> String {
    let stats = redis.run(&["INFO", "commandstats"]).await.text();
    let eval = stats.lines().find(|line| line.starts_with("cmdstat_eval:"));
    let calls = eval.and_then(|line| line.split(',').next());
    calls.unwrap_or_default().to_owned()
}

fn settings() -> Settings {
    // The node waits longer than the test holds the answer back.
    with_streams(100).with("backend.redis.timeout = \"10s\"")
}

async fn reading() -> Reading {
    let redis = Redis::start().await;
    let cluster = Cluster::behind_proxies(1, &redis, &settings()).await;
    let alice = Tape::of(cluster[0].user("alice").await);
    let mut first = Value::Null;
    for data in 1..=5 {
        let body = json!({"channel":"room:1","data":data});
        let placed = cluster[0].admin_ok("POST", "/v1/publish", Some(body)).await;
        if data == 1 {
            first = position(&placed);
        }
    }
    let before = reads(&redis).await;
    let held = Link::only_down(Flow::Stall);
    cluster.proxy(0).set_only(Kind::Other, held);
    alice.send(json!({"type":"subscribe","id":"held","channel":"room:1","since":first}));
    eventually("the stream to be read", async || {
        (reads(&redis).await != before).then_some(())
    })
    .await;
    Reading {
        redis,
        cluster,
        alice,
    }
}

#[tokio::test]
async fn a_revocation_while_the_stream_is_read_withholds_what_was_read() {
    let Reading {
        redis,
        cluster,
        alice,
    } = reading().await;
    let key = revocation_key("user", "alice");
    redis.run(&["SET", &key, "1"]).await;
    alice.revoked().await;
    cluster.proxy(0).set(Link::PASS);
    let bob = cluster[0].tape("bob", "room:1").await;
    cluster[0].publish("room:1", json!("later")).await;
    bob.until(json!({"data":"later"})).await;
    let channel = json!({"channel":"room:1"});
    assert_eq!(alice.matching(&channel).len(), 0, "{:?}", alice.seen());
    assert_eq!(alice.matching(&json!({"type":"ok"})).len(), 0);
}

#[tokio::test]
async fn the_policy_at_the_write_decides_about_what_was_read_before_a_reload() {
    let reading = reading().await;
    let (cluster, alice) = (&reading.cluster, &reading.alice);
    let rules = "[[policy.rules]]\nname = \"publishing\"\nchannels = [\"*\"]\n\
                 actions = [\"publish\"]\n\
                 [[channels]]\npattern = \"room:*\"\nhistory = { size = 100, ttl = \"10m\" }\n";
    let url = format!("redis://{}", cluster.proxy(0).address());
    cluster[0].write_config(&settings().rules(rules).on_redis(&url));
    cluster[0].reload();
    let taken = |line: &str| {
        let says = ["configuration in force", "configuration reloaded"];
        says.iter().any(|says| line.contains(says)).then_some(())
    };
    let taken_over = cluster[0].log().line(SOON, taken).await;
    assert_eq!(taken_over, Some(()));
    cluster.proxy(0).set(Link::PASS);
    let answer = alice.until_within(SOON, json!({"id":"held"})).await;
    assert_eq!(answer.frame["code"], "forbidden", "{:?}", alice.seen());
    cluster[0].publish("room:1", json!("later")).await;
    alice.assert_open("after").await;
    assert_eq!(alice.messages().len(), 0, "{:?}", alice.seen());
}
