//! A Redis that refuses commands. The node reports this and waits (CONTRACT §8 R8).

use std::time::{Duration, Instant};

use curfew_testkit::mint::Key;
use curfew_tests::{Attempt, Cluster, Gateway, Link, Proxy, Redis, Settings, revocation_key};
use serde_json::json;

/// Deadline for a node to notice a fault, or to recover from it.
const SOON: Duration = Duration::from_secs(15);

/// Settings for the Redis user `curfew`, who has this password and all rights.
fn with_password(redis: &Redis, password: &str) -> Settings {
    Settings::default()
        .on_redis(&redis.url())
        .with("backend.redis.username = \"curfew\"")
        .with(&format!("backend.redis.password = {password:?}"))
}

async fn set_password(redis: &Redis, password: &str) {
    let password = format!(">{password}");
    let user = [
        "ACL", "SETUSER", "curfew", "reset", "on", &password, "~*", "&*", "+@all",
    ];
    redis.run(&user).await;
}

/// Asserts that no session opens, and that the tokens are refused as unavailable and not as
/// invalid.
async fn assert_unavailable(node: &Gateway) {
    for connect in [
        node.ws().bearer(&Key::default_secret().user("alice")),
        node.ws()
            .path(format!("/ws?token={}", Key::default_secret().user("bob"))),
    ] {
        let attempt = Attempt::make(connect).await;
        assert!(attempt.is_unavailable(), "{attempt:?}");
    }
    // The node still reports a fault of a token if it can tell the fault without Redis.
    match node.attempt_with("not.a.token").await {
        Attempt::Unavailable => {}
        Attempt::Refused(reason, code) => assert_eq!((&*reason, code), ("malformed", 4401)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_redis_that_is_out_of_memory_takes_the_node_down_until_it_has_some() {
    let redis = Redis::start_with(&["maxmemory-policy noeviction"]).await;
    let cluster = Cluster::start(2, &redis.url(), &Settings::default()).await;
    let bob = cluster[0].tape("bob", "room:1").await;
    redis.run(&["CONFIG", "SET", "maxmemory", "1"]).await;
    for node in cluster.nodes() {
        let reason = node.until_out_of_touch(SOON, &["oom", "memory"]).await;
        assert!(reason.len() < 1000, "{reason}");
        assert_unavailable(node).await;
        assert_eq!(node.metric("curfew_backend_synced").await, 0.0);
    }
    let published = bob
        .ask("full", json!({"type":"subscribe","channel":"room:2"}))
        .await;
    assert_eq!(published["code"], "unavailable", "{published}");
    redis.run(&["CONFIG", "SET", "maxmemory", "0"]).await;
    cluster.synced().await;
    assert_eq!(cluster.metric("curfew_backend_synced").await, 2.0);
    cluster[1].publish("room:1", json!("again")).await;
    bob.until(json!({"data":"again"})).await;
    bob.assert_open("after").await;
    cluster[0].assert_admits("alice").await;
    cluster.assert_well().await;
}

#[tokio::test]
async fn a_primary_that_is_alone_and_must_not_be_takes_the_node_down() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(1, &redis.url(), &Settings::default()).await;
    let bob = cluster[0].tape("bob", "room:1").await;
    redis
        .run(&["CONFIG", "SET", "min-replicas-to-write", "1"])
        .await;
    cluster[0].until_out_of_touch(SOON, &["replica"]).await;
    assert_unavailable(&cluster[0]).await;
    redis
        .run(&["CONFIG", "SET", "min-replicas-to-write", "0"])
        .await;
    cluster.synced().await;
    bob.assert_open("after").await;
    cluster.assert_well().await;
}

#[tokio::test]
async fn a_wrong_password_is_said_in_readiness_and_to_nobody_else() {
    let redis = Redis::start().await;
    set_password(&redis, "the-first-password").await;
    let node = Gateway::start_with(&with_password(&redis, "not-the-password")).await;
    let words = ["wrongpass", "password", "auth", "credential"];
    let reason = node.until_unready(SOON, &words).await;
    assert!(!reason.contains("not-the-password"), "{reason}");
    assert_unavailable(&node).await;
    // The node keeps trying to authenticate at Redis.
    set_password(&redis, "not-the-password").await;
    node.until_in_touch(SOON).await;
    let bob = node.tape("bob", "room:1").await;

    // The password changes without notice to the node, and every connection is cut.
    set_password(&redis, "the-second-password").await;
    redis.run(&["CLIENT", "KILL", "USER", "curfew"]).await;
    node.until_out_of_touch(SOON, &words).await;
    assert_unavailable(&node).await;
    let changed = Instant::now();
    set_password(&redis, "not-the-password").await;
    node.until_in_touch(SOON).await;
    let _publisher = node.publisher("carol", "room:1").await;
    bob.message_after(SOON, changed).await;
    bob.assert_open("after").await;
    redis
        .run(&["SET", &revocation_key("user", "bob"), "1"])
        .await;
    bob.revoked().await;
    let log = node.log().text();
    for secret in ["not-the-password", "the-second-password"] {
        assert!(!log.contains(secret), "a password is in the log");
    }
}

#[tokio::test]
async fn a_node_may_start_before_its_redis() {
    let mut redis = Redis::start().await;
    redis.kill();
    let node = Gateway::start_with(&Settings::default().on_redis(&redis.url())).await;
    node.until_unready(SOON, &[]).await;
    assert_unavailable(&node).await;
    for (method, path, body) in [
        (
            "POST",
            "/v1/publish",
            Some(json!({"channel":"room:1","data":1})),
        ),
        (
            "POST",
            "/v1/revocations",
            Some(json!({"kind":"user","value":"alice"})),
        ),
        ("DELETE", "/v1/revocations/user/alice", None),
        ("GET", "/v1/revocations", None),
        ("GET", "/v1/sessions", None),
        ("GET", "/v1/nodes", None),
    ] {
        let (status, answer) = node.admin(method, path, body).await;
        assert_eq!(status, 503, "{method} {path}: {answer}");
    }
    node.assert_alive().await;
    redis.restart().await;
    node.until_in_touch(SOON).await;
    assert!(
        node.attempt("alice").await.is_open(),
        "a node that is ready opens sessions"
    );
}

#[tokio::test]
async fn a_replica_is_not_taken_for_a_primary() {
    let primary = Redis::start().await;
    let replicaof = format!("replicaof 127.0.0.1 {}", primary.port());
    let replica = Redis::start_with(&[&replicaof]).await;
    let node = Gateway::start_with(&Settings::default().on_redis(&replica.url())).await;
    node.until_unready(SOON, &["replica", "primary", "slave", "master", "readonly"])
        .await;
    assert_unavailable(&node).await;
    replica.run(&["REPLICAOF", "NO", "ONE"]).await;
    node.until_in_touch(SOON).await;
    let alice = node.tape("alice", "room:1").await;

    // Now a primary that the node uses becomes a replica. Its connections stay open.
    replica
        .run(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()])
        .await;
    node.until_out_of_touch(SOON, &["replica", "primary", "slave", "master", "readonly"])
        .await;
    replica.run(&["REPLICAOF", "NO", "ONE"]).await;
    node.until_in_touch(SOON).await;
    alice.assert_open("after").await;
    let key = revocation_key("user", "alice");
    replica.run(&["SET", &key, "1"]).await;
    alice.revoked().await;
}

#[tokio::test]
async fn a_redis_that_may_evict_revocations_is_not_used() {
    let redis = Redis::start_with(&["maxmemory 100mb", "maxmemory-policy allkeys-lru"]).await;
    let node = Gateway::start_with(&Settings::default().on_redis(&redis.url())).await;
    node.until_unready(SOON, &["evict", "maxmemory", "allkeys"])
        .await;
    assert_unavailable(&node).await;
    redis
        .run(&["CONFIG", "SET", "maxmemory-policy", "noeviction"])
        .await;
    node.until_in_touch(SOON).await;
}

#[tokio::test]
async fn a_node_whose_clock_is_wrong_lets_nobody_in() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(1, &redis.url(), &Settings::default()).await;
    for seconds in [40, -40] {
        let proxy = Proxy::start(redis.address()).await;
        proxy.shift_time(seconds);
        let url = format!("redis://{}", proxy.address());
        let node = Gateway::start_with(&Settings::default().on_redis(&url)).await;
        node.until_unready(SOON, &["clock", "time"]).await;
        assert_unavailable(&node).await;
        // A small difference between the clocks is normal. The node measures it again at each
        // connect.
        proxy.shift_time(seconds / 10);
        proxy.set(Link::CUT);
        proxy.set(Link::PASS);
        node.until_in_touch(SOON).await;
        assert!(
            node.attempt("alice").await.is_open(),
            "a node that is ready opens sessions"
        );
    }
    cluster[0].assert_admits("alice").await;
    cluster.assert_well().await;
}
