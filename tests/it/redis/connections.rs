//! Connections to Redis that are killed repeatedly.

use std::time::{Duration, Instant};

use curfew_tests::{Cluster, Redis, Settings, eventually_within, revocation_key};
use tokio::time::sleep;

/// Deadline for a cluster to recover.
const RECOVERY: Duration = Duration::from_secs(15);

#[tokio::test]
async fn killing_every_connection_again_and_again_costs_no_session_and_no_revocation() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(2, &redis.url(), &Settings::default()).await;
    let _publisher = cluster[1].publisher("carol", "room:1").await;
    let mut alices = Vec::new();
    for round in 0..12 {
        alices.push(
            cluster[round % 2]
                .tape(&format!("alice-{round}"), "room:1")
                .await,
        );
    }
    let bobs = [
        cluster[0].tape("bob", "room:1").await,
        cluster[1].tape("bob", "room:1").await,
    ];
    let mut written = Vec::new();
    for round in 0..alices.len() {
        let kinds: &[&str] = match round % 3 {
            0 => &["normal"],
            1 => &["pubsub"],
            _ => &["pubsub", "normal"],
        };
        for kind in kinds {
            redis.run(&["CLIENT", "KILL", "TYPE", kind]).await;
        }
        // Over the rounds, the kill comes at every point of a node's reconnect.
        sleep(Duration::from_millis(u64::try_from(round).unwrap() * 20)).await;
        written.push(Instant::now());
        let key = revocation_key("user", &format!("alice-{round}"));
        redis.run(&["SET", &key, "1"]).await;
        for kind in kinds {
            redis.run(&["CLIENT", "KILL", "TYPE", kind]).await;
        }
    }
    for (alice, written) in alices.iter().zip(written) {
        alice.revoked().await;
        alice.assert_revoked_within_the_lease(written, "the connections were killed");
    }
    cluster.synced().await;
    let after = Instant::now();
    for (n, bob) in bobs.iter().enumerate() {
        bob.message_after(RECOVERY, after).await;
        bob.assert_open("after").await;
        let numbers: Vec<u64> = bob
            .messages()
            .iter()
            .map(|seen| seen.frame["data"].as_u64().unwrap())
            .collect();
        assert!(
            numbers.windows(2).all(|pair| pair[0] < pair[1]),
            "{n}: {numbers:?}"
        );
    }
    // The records of alice's sessions are removed.
    eventually_within(
        RECOVERY,
        "the records of no sessions but the live ones",
        async || {
            let keys = redis.keys().await;
            let records = keys.iter().filter(|key| key.starts_with("curfew:session:"));
            let strays = keys.iter().any(|key| key.starts_with("curfew:user:alice-"));
            (records.count() == 3 && !strays).then_some(())
        },
    )
    .await;
    cluster.assert_well().await;
}
