//! Nodes that die or seem to be dead, and the removal of their sessions' records (CONTRACT §8 R4).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use curfew_testkit::mint::Key;
use curfew_testkit::{Connect, WsClient};
use curfew_tests::{Cluster, Redis, Settings, eventually_within};
use serde_json::json;
use tokio::task::JoinSet;

/// Number of sessions on the node that dies.
const SESSIONS: usize = 1000;

/// Deadline for the removal of all records of a dead node.
const GONE: Duration = Duration::from_secs(30);

/// Opens `count` sessions of different users, a hundred at a time.
async fn crowd(connect: &Connect, count: usize) -> Vec<WsClient> {
    let (mut opening, mut open) = (JoinSet::new(), Vec::new());
    for n in 0..count {
        let token = Key::default_secret().user(&format!("user-{n}"));
        let connect = connect.clone().bearer(&token);
        opening.spawn(async move {
            let mut client = connect.open().await;
            client.expect_json(json!({"type":"connected"})).await;
            client
        });
        if opening.len() == 100 {
            open.push(opening.join_next().await.unwrap().unwrap());
        }
    }
    open.extend(opening.join_all().await);
    open
}

#[tokio::test]
async fn nothing_is_left_of_a_node_that_died_and_everything_of_one_that_returns() {
    let redis = Redis::start().await;
    let settings = Settings::default().with("backend.grace = \"5m\"");
    let mut cluster = Cluster::start(3, &redis.url(), &settings).await;
    let survivor = cluster[0].tape("bob", "room:1").await;
    let sleeper = cluster[1].tape("carol", "room:1").await;
    let doomed = cluster[2].id().await;
    let mut others: BTreeSet<String> = redis.keys().await;
    others.retain(|key| !key.contains(&doomed));
    let crowd = crowd(&cluster[2].ws(), SESSIONS).await;
    let records = async |prefix: &str| {
        let keys = redis.keys().await;
        keys.iter().filter(|key| key.starts_with(prefix)).count()
    };
    assert_eq!(records("curfew:session:").await, SESSIONS + 2);
    assert_eq!(
        redis
            .run(&["SCARD", &format!("curfew:node:{doomed}:sessions")])
            .await
            .integer(),
        1000
    );

    cluster[1].signal("STOP");
    let node = cluster.remove(2);
    node.signal("KILL");
    let died = Instant::now();
    drop((node, crowd));
    eventually_within(
        GONE,
        "the removal of the dead node's and the stopped node's keys",
        async || {
            let mut keys = redis.keys().await;
            let left = keys
                .iter()
                .filter(|key| key.starts_with("curfew:session:"))
                .count();
            // A node that has cleaned up may still hold the lock for the cleanup.
            keys.retain(|key| !key.starts_with("curfew:reap:"));
            let of_the_dead = keys
                .iter()
                .any(|key| key.contains(&doomed) || key.contains("user-"));
            (left == 1 && !of_the_dead).then_some(())
        },
    )
    .await;
    assert!(died.elapsed() < GONE, "{:?}", died.elapsed());
    let listed = cluster[0].sessions().await;
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!(listed[0]["user"], "bob");
    assert_eq!(cluster[0].nodes().await.len(), 1);
    survivor.assert_open("survivor").await;

    // The stopped node continues, and is listed again with its session.
    cluster[1].signal("CONT");
    cluster.synced().await;
    eventually_within(GONE, "the records of the node that continues", async || {
        let missing = others.difference(&redis.keys().await).count();
        (missing == 0).then_some(())
    })
    .await;
    sleeper.assert_open("sleeper").await;
    cluster[0].publish("room:1", json!("hello again")).await;
    for tape in [&survivor, &sleeper] {
        tape.until(json!({"type":"message","data":"hello again"}))
            .await;
    }
    cluster.assert_well().await;
}
