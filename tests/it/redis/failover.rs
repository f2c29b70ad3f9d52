//! Sentinel promotes a replica that lacks a part of the data (CONTRACT §8 R6, R8).

use std::time::{Duration, Instant};

use curfew_testkit::unix_now;
use curfew_tests::{
    Cluster, Redis, Sentinel, Settings, eventually, eventually_within, revocation_key,
};
use serde_json::json;

/// Deadline for a cluster to recover after the failover.
const RECOVERY: Duration = Duration::from_secs(20);

#[tokio::test]
async fn what_a_failover_lost_is_revoked_again_before_anybody_is_let_in() {
    let mut sentinel = Sentinel::start().await;
    let cluster = Cluster::start(2, &sentinel.url(), &Settings::default()).await;
    let publisher = cluster[1].publisher("dave", "room:1").await;
    let alice = cluster[0].tape("alice", "room:1").await;
    let bobs = [
        cluster[0].tape("bob", "room:1").await,
        cluster[1].tape("bob", "room:1").await,
    ];
    // The revocation is made wider later, when the replica no longer receives writes.
    let now = unix_now();
    let (past, carol) = ((now - 1000).to_string(), revocation_key("user", "carol"));
    sentinel
        .primary
        .run(&["SET", &carol, &past, "EX", "3000"])
        .await;
    sentinel.replica.until_key("curfew:{revoked}:epoch").await;
    sentinel.replica.until_key(&carol).await;
    cluster[0].assert_admits("carol").await;

    sentinel.cut_replication();
    let late = cluster[1].tape("frank", "room:1").await;
    let written = Instant::now();
    let key = revocation_key("user", "alice");
    sentinel
        .primary
        .run(&["SET", &key, "1", "EX", "3600"])
        .await;
    let body = json!({"kind":"user","value":"carol","ttl":"1h"});
    let (status, receipt) = cluster[0]
        .admin("POST", "/v1/revocations", Some(body))
        .await;
    alice.revoked().await;
    alice.assert_revoked_within_the_lease(written, "before the failover");
    for node in cluster.nodes() {
        eventually("both revocations on every node", async || {
            let listed = node.admin_ok("GET", "/v1/revocations", None).await;
            (listed["revocations"].as_array()?.len() == 2).then_some(())
        })
        .await;
    }
    assert!(
        !sentinel.replica.has(&key).await,
        "the replica has the revocation"
    );
    sentinel.primary.kill();

    // Until the nodes are connected again, they refuse tokens as unavailable, and do not admit
    // alice.
    let promoting = sentinel.promoted();
    tokio::pin!(promoting);
    loop {
        let attempt = cluster[0].attempt("alice").await;
        assert!(
            attempt.is_revoked() || attempt.is_unavailable(),
            "{attempt:?}"
        );
        tokio::select! {
            () = &mut promoting => break,
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
    }
    let promoted = Instant::now();
    for node in cluster.nodes() {
        eventually_within(RECOVERY, "readiness", async || {
            let attempt = node.attempt("alice").await;
            assert!(
                attempt.is_revoked() || attempt.is_unavailable(),
                "{attempt:?}"
            );
            (node.readiness().await.0 == 200).then_some(())
        })
        .await;
        node.assert_refused("alice").await;
        node.assert_refused("carol").await;
        node.assert_admits("erin").await;
    }
    for key in [&key, &carol] {
        let left = sentinel.replica.run(&["TTL", key]).await.integer();
        assert!((3500..=3600).contains(&left), "{key}: {left}");
    }
    for bob in &bobs {
        bob.message_after(RECOVERY, promoted).await;
        bob.assert_open("after").await;
    }
    // The replica did not have this session's record. The session stays open, and gets a record
    // again.
    late.assert_open("after").await;
    eventually_within(RECOVERY, "frank on the list", async || {
        let sessions = cluster[0].sessions().await;
        sessions
            .iter()
            .any(|session| session["user"] == "frank")
            .then_some(())
    })
    .await;
    drop(publisher);
    // Revocations are in force on the new primary.
    let written = Instant::now();
    sentinel
        .replica
        .run(&["SET", &revocation_key("user", "bob"), "1"])
        .await;
    for bob in &bobs {
        bob.revoked().await;
        bob.assert_revoked_within_the_lease(written, "after the failover");
    }
    cluster.synced().await;
    cluster.assert_well().await;
    // The receipt said before the failover that only the primary had the revocation.
    assert_eq!(
        (status, &receipt["durability"]),
        (202, &json!("primary-only")),
        "{receipt}"
    );
}

#[tokio::test]
async fn a_receipt_says_whether_a_replica_has_the_revocation() {
    let primary = Redis::start().await;
    let cluster = Cluster::start(1, &primary.url(), &Settings::default()).await;
    let revoke = async |user: &str| {
        let body = json!({"kind":"user","value":user});
        cluster[0]
            .admin("POST", "/v1/revocations", Some(body))
            .await
    };
    let (status, receipt) = revoke("alone").await;
    assert_eq!(
        status, 200,
        "there is no replica that could lack the revocation: {receipt}"
    );

    let replicaof = format!("replicaof 127.0.0.1 {}", primary.port());
    let mut replica = Redis::start_with(&[&replicaof]).await;
    eventually("the replica to be in sync", async || {
        let info = primary.run(&["INFO", "replication"]).await.text();
        info.contains("state=online").then_some(())
    })
    .await;
    // A node looks for replicas only from time to time, not before each revocation.
    let (status, receipt) = eventually("a replicated revocation", async || {
        let (status, receipt) = revoke("replicated").await;
        (receipt["durability"] == "replicated").then_some((status, receipt))
    })
    .await;
    assert_eq!(
        (status, &receipt["replicas"]),
        (200, &json!(1)),
        "{receipt}"
    );
    assert!(replica.has(&revocation_key("user", "replicated")).await);

    replica.kill();
    let (status, receipt) = revoke("at risk").await;
    assert_eq!(
        (status, &receipt["durability"]),
        (202, &json!("primary-only")),
        "{receipt}"
    );
    assert!(receipt["took_ms"].as_u64().unwrap() < 3000, "{receipt}");
}
