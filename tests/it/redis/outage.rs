//! A supervisor sees that an outage of Redis is no reason to restart a node or to remove it from
//! service (CONTRACT §2, §8 R2, R8).

use std::time::{Duration, Instant};

use curfew_testkit::mint::Key;
use curfew_tests::{Cluster, Gateway, LEASE, Redis, Settings, Tape};
use serde_json::json;
use tokio::time::interval;

/// Length of the outage. It is much longer than the lease, and much shorter than `backend.grace`.
const OUTAGE: Duration = Duration::from_secs(8);

/// Deadline for a cluster to recover once its Redis has recovered.
const RECOVERY: Duration = Duration::from_secs(15);

/// The kinds of outages of Redis.
#[derive(Debug, Clone, Copy)]
enum Outage {
    /// Connections stay open, but Redis answers nothing (SIGSTOP).
    Hang,
    /// Redis refuses connections (`SHUTDOWN NOSAVE`).
    End,
}

impl Outage {
    async fn begin(self, redis: &Redis) {
        match self {
            Self::Hang => redis.freeze(),
            // Redis may end before it has answered, so an error is accepted.
            Self::End => drop(redis.call(&["SHUTDOWN", "NOSAVE"]).await),
        }
    }

    async fn end(self, redis: &mut Redis) {
        match self {
            Self::Hang => redis.thaw(),
            Self::End => redis.restart().await,
        }
    }
}

/// Asserts that the node tells a new client to retry, both before the upgrade and after it.
async fn assert_unavailable(node: &Gateway) {
    let attempt = node.attempt("newcomer").await;
    assert!(attempt.is_unavailable(), "{attempt:?}");
    let mut late = node.ws().open().await;
    let token = Key::default_secret().user("newcomer");
    late.send(json!({"type":"auth","token":token})).await;
    let closing = late.expect_close(4503, "unavailable").await;
    assert_eq!(closing["reconnect"], true, "{closing}");
}

#[tokio::test]
async fn nodes_stay_ready_and_sessions_open_while_redis_hangs_or_is_down() {
    let mut redis = Redis::start().await;
    let cluster = Cluster::start(2, &redis.url(), &Settings::default()).await;
    let _publisher = cluster[1].publisher("carol", "room:1").await;
    let mut tapes: Vec<Tape> = Vec::new();
    for node in cluster.nodes() {
        tapes.push(node.tape("bob", "room:1").await);
    }
    for outage in [Outage::Hang, Outage::End] {
        outage.begin(&redis).await;
        let began = Instant::now();
        for node in cluster.nodes() {
            // The node may lose the connections for commands before the lease ends.
            let words = ["disconnected from redis"];
            node.until_out_of_touch(LEASE * 2, &words).await;
        }
        let mut look = interval(Duration::from_millis(100));
        while began.elapsed() < OUTAGE {
            for node in cluster.nodes() {
                assert!(node.ready().await, "{outage:?}");
                node.assert_alive().await;
                // The alert CurfewNotSynced uses this metric.
                assert_eq!(node.metric("curfew_backend_synced").await, 0.0);
            }
            let closed = tapes.iter().any(Tape::is_closed);
            assert!(!closed, "{outage:?}: a session was closed within the grace");
            look.tick().await;
        }
        for node in cluster.nodes() {
            assert_unavailable(node).await;
        }
        outage.end(&mut redis).await;
        let ended = Instant::now();
        cluster.synced().await;
        for (n, tape) in tapes.iter().enumerate() {
            tape.message_after(RECOVERY, ended).await;
            tape.assert_open(&format!("{outage:?}-{n}")).await;
        }
        cluster[0].assert_admits("newcomer").await;
    }
    cluster.assert_well().await;
}

#[tokio::test]
async fn a_node_is_not_ready_before_it_was_and_when_it_leaves() {
    let mut redis = Redis::start().await;
    redis.kill();
    let mut node = Gateway::start_with(&Settings::default().on_redis(&redis.url())).await;
    node.until_unready(RECOVERY, &["redis"]).await;
    node.assert_alive().await;
    redis.restart().await;
    node.until_in_touch(RECOVERY).await;
    let mut alice = node.user("alice").await;
    redis.freeze();
    node.until_out_of_touch(LEASE * 2, &["redis"]).await;
    let told = Instant::now();
    node.terminate();
    alice.expect_close(1012, "draining").await;
    let (status, body) = node.readiness().await;
    assert_eq!((status, &body["reason"]), (503, &json!("draining")));
    // The node cannot remove its records while Redis is frozen. It does not wait, and leaves the
    // records to other nodes.
    assert_eq!(node.exited(RECOVERY).await, 0);
    assert!(
        told.elapsed() < Duration::from_secs(10),
        "{:?}",
        told.elapsed()
    );
    redis.thaw();
}
