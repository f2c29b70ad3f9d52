//! A node with full send queues is stopped and continues.

use std::thread::available_parallelism;
use std::time::Duration;

use curfew_tests::{Cluster, Dice, LEASE, Settings};

use super::{
    FULL, Load, MEANWHILE, PAUSED, REVOKED, SUBSCRIBERS, VERY_FULL, Verdict, bound, patient_redis,
    revoke, rounds, settings, user,
};

/// One of this many paused clients reads again only after the node has continued.
const LATER: usize = 4;

/// Time within which these clients read again.
const AFTERWARDS: Duration = Duration::from_millis(500);

async fn round(settings: &Settings, full: f64, dice: &mut Dice) -> Verdict {
    let redis = patient_redis().await;
    let cluster = Cluster::start(2, &redis.url(), settings).await;
    let mut connection = redis.connect().await;
    let load = Load::start(&cluster).await;
    load.fill(&cluster, full, dice).await;
    cluster[0].freeze().await;
    let users: Vec<String> = (0..REVOKED).map(user).collect();
    let acknowledged = revoke(&mut connection, &users).await;
    let remaining = load.remaining();
    assert!(
        remaining > REVOKED / 4,
        "only {remaining} clients that are to be revoked are still connected"
    );
    load.flood.pace(MEANWHILE);
    // Most paused clients read again while the node is stopped, so their sockets are empty when the
    // node continues. The sockets of the other paused clients are full.
    let paused = (0..SUBSCRIBERS).step_by(PAUSED);
    let (paused, later) = paused.partition(|client| !(client / PAUSED).is_multiple_of(LATER));
    load.resume(dice, paused, LEASE / 2).await;
    let mark = bound(&load.audience, acknowledged).await;
    cluster[0].thaw();
    load.resume(dice, later, AFTERWARDS).await;
    load.until_well(&cluster).await;
    let threads = available_parallelism().unwrap().get();
    let verdict = load.verdict(acknowledged, &mark, threads);
    drop(load);
    cluster.assert_well().await;
    verdict
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_stopped_with_full_queues_delivers_nothing_to_the_revoked() {
    rounds("freeze", async |dice| {
        round(&settings(false), FULL, dice).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_with_queues_that_hold_much() {
    rounds("freeze, large queues", async |dice| {
        round(&settings(true), VERY_FULL, dice).await
    })
    .await;
}
