//! A Redis user that lacks rights which streams need.

use std::time::Duration;

use curfew_tests::{Cluster, Gateway, Redis, Reply, Settings, eventually_within};
use serde_json::{Value, json};

use super::with_streams;

/// Deadline for a node to connect to Redis.
const SOON: Duration = Duration::from_secs(15);

/// Creates a user with all rights, and then applies the changes `rights`.
async fn set_user(redis: &Redis, rights: &[&str]) {
    let all = [
        "ACL", "SETUSER", "curfew", "on", ">secret", "~*", "&*", "+@all",
    ];
    redis.run(&[&all[..], rights].concat()).await;
}

fn as_user(settings: Settings, redis: &Redis) -> Settings {
    settings
        .on_redis(&redis.url())
        .with("backend.redis.username = \"curfew\"")
        .with("backend.redis.password = \"secret\"")
}

async fn publish(node: &Gateway) -> (u16, Value) {
    let body = json!({"channel":"room:1","data":1,"key":fresh_key()});
    node.admin("POST", "/v1/publish", Some(body)).await
}

/// An idempotency key that no other publication has.
fn fresh_key() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed).to_string()
}

/// The keys of all streams in Redis, with their values.
async fn streams(redis: &Redis) -> Vec<(String, Reply)> {
    let mut found = Vec::new();
    for key in redis.keys().await {
        if !key.starts_with("curfew:stream:") {
            continue;
        }
        let read = match redis.run(&["TYPE", &key]).await.text().as_str() {
            "stream" => redis.run(&["XRANGE", &key, "-", "+"]).await,
            "hash" => redis.run(&["HGETALL", &key]).await,
            _ => redis.run(&["GET", &key]).await,
        };
        let ttl = redis.run(&["PTTL", &key]).await.integer();
        assert!(ttl > 0, "{key} never expires");
        found.push((key, read));
    }
    found
}

/// Regression: a missing right was noticed only when a client needed it.
#[tokio::test]
async fn rights_that_streams_need_are_named_at_the_start() {
    let redis = Redis::start().await;
    set_user(&redis, &["-xadd", "-xrevrange", "-eval"]).await;
    let plain = Gateway::start_with(&as_user(Settings::default(), &redis)).await;
    let node = Gateway::start_with(&as_user(with_streams(5), &redis)).await;
    for started in [&plain, &node] {
        started.until_in_touch(SOON).await;
    }
    let told = |entry: &Value| entry["missing"].as_str().map(str::to_owned);
    let missing = eventually_within(SOON, "a log line with the missing rights", async || {
        node.log().entries().iter().find_map(told)
    })
    .await;
    assert_eq!(missing, "EVAL, XADD, XREVRANGE");
    assert!(
        plain
            .log()
            .entries()
            .iter()
            .all(|entry| told(entry).is_none())
    );

    // A reload may configure a node's first stream.
    plain.write_config(&as_user(with_streams(5), &redis));
    plain.reload();
    eventually_within(SOON, "a log line with the missing rights", async || {
        plain.log().entries().iter().find_map(told)
    })
    .await;
}

/// Regression: if a script lacked a right, Redis did not undo what the script had written before.
#[tokio::test]
async fn a_publication_that_a_right_is_missing_for_leaves_nothing_behind() {
    let redis = Redis::start().await;
    set_user(&redis, &[]).await;
    let cluster = Cluster::start(1, &redis.url(), &as_user(with_streams(5), &redis)).await;
    for is_new in [true, false] {
        for command in ["publish", "xadd", "pexpire", "hset"] {
            let before = streams(&redis).await;
            assert_eq!(before.is_empty(), is_new);
            set_user(&redis, &[&format!("-{command}")]).await;
            let (_, problem) = publish(&cluster[0]).await;
            // If the script uses this command only after its first write, the node does not know if
            // the publication had an effect.
            let code = match command {
                "pexpire" | "hset" if !is_new => "unknown_outcome",
                _ => "unavailable",
            };
            assert_eq!(problem["code"], code, "{command}: {problem}");
            set_user(&redis, &[]).await;
            assert_eq!(streams(&redis).await, before, "{command}");
        }
        let placed = eventually_within(SOON, "a publication", async || {
            let (status, placed) = publish(&cluster[0]).await;
            (status == 200).then_some(placed)
        })
        .await;
        assert_eq!(placed["offset"], if is_new { 1 } else { 2 });
    }
}

/// Regression: each subscription that lacked a right made the node reconnect its connection for
/// commands.
#[tokio::test]
async fn a_right_that_streams_lack_costs_other_channels_nothing() {
    let redis = Redis::start().await;
    set_user(&redis, &["-eval"]).await;
    let node = Gateway::start_with(&as_user(with_streams(5), &redis)).await;
    node.until_in_touch(SOON).await;
    let alice = node.tape("alice", "plain").await;
    let clients = async || {
        let clients = redis.run(&["CLIENT", "LIST"]).await.text();
        let own = clients.lines().filter(|line| line.contains("user=curfew"));
        own.filter_map(|line| line.split(' ').next().map(str::to_owned))
            .collect::<Vec<_>>()
    };
    let before = clients().await;
    for id in ["1", "2", "3"] {
        let subscribe = json!({"type":"subscribe","channel":"room:1"});
        let refused = alice.ask(id, subscribe).await;
        assert_eq!(refused["code"], "unavailable", "{refused}");
        node.publish("plain", json!(id)).await;
        alice.until(json!({"channel":"plain","data":id})).await;
    }
    assert_eq!(clients().await, before);
}

/// Regression: a separate step notified the nodes of a deletion, and this step could fail.
#[tokio::test]
async fn a_deletion_tells_nodes_in_the_step_that_deletes() {
    let redis = Redis::start().await;
    set_user(&redis, &[]).await;
    let cluster = Cluster::start(1, &redis.url(), &with_streams(5)).await;
    let other = Gateway::start_with(&as_user(with_streams(5), &redis)).await;
    other.until_in_touch(SOON).await;
    let (alice, joined) = super::join(&cluster[0], "alice", None).await;
    cluster[0].publish("room:1", json!(1)).await;
    alice.until(json!({"offset":1})).await;
    // The user may publish to channels, but may not send messages to nodes.
    set_user(&redis, &["resetchannels", "&curfew:channel:*"]).await;
    let path = "/v1/channels/room:1/history";
    eventually_within(SOON, "the deletion", async || {
        (other.admin("DELETE", path, None).await.0 == 200).then_some(())
    })
    .await;
    // This publication comes after the deletion's notice to the nodes.
    cluster[0].publish("room:1", json!(2)).await;
    alice.until(json!({"offset":2})).await;
    let since = super::position(&joined);
    let (_, answer) = super::join(&cluster[0], "bob", Some(&since)).await;
    assert_eq!(answer["recovered"], false, "{answer}");
    assert_eq!(super::offsets(&alice, "room:1"), [1, 2]);
}
