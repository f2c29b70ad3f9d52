//! Links, connections, nodes and Redis itself fail at random. The lease must hold all the time.

use std::time::{Duration, Instant};

use curfew_tests::{
    Cluster, Dice, Kind, LEASE, Link, Redis, Settings, Tape, eventually_within, revocation_key,
};
use tokio::time::{sleep, sleep_until};

/// Number of revocations. Each revocation is of another user.
const REVOCATIONS: usize = 16;

/// Number of users who are not revoked.
const SPARED: usize = 4;

/// Interval between two revocations.
const ROUND: Duration = Duration::from_millis(900);

/// Deadline for a cluster to recover.
const RECOVERY: Duration = Duration::from_secs(20);

/// Makes something fail, or makes it recover. The last node's links and process never fail, because
/// it publishes.
async fn fail(dice: &mut Dice, redis: &Redis, cluster: &Cluster) {
    let node = dice.below(cluster.nodes().len() - 1);
    let link = dice.link();
    match dice.below(8) {
        0 | 1 => cluster.proxy(node).set(link),
        2 => cluster.proxy(node).set_only(Kind::Tracking, link),
        3 => cluster.proxy(node).set_only(Kind::Subscriber, link),
        4 => cluster.proxy(node).set_only(Kind::Other, link),
        5 => cluster.proxy(node).set(Link::PASS),
        6 => {
            let kind = ["normal", "pubsub"][dice.below(2)];
            redis.run(&["CLIENT", "KILL", "TYPE", kind]).await;
        }
        _ => {
            cluster[node].signal("STOP");
            sleep(Duration::from_millis(dice.below(800) as u64)).await;
            cluster[node].signal("CONT");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_a_revoked_session_gets_nothing_after_the_lease() {
    let mut dice = Dice::new();
    let redis = Redis::start().await;
    let settings = Settings::default().with("backend.grace = \"5m\"");
    let cluster = Cluster::behind_proxies(4, &redis, &settings).await;
    let publisher = cluster[3].publisher("publisher", "room:1").await;
    let user = |n: usize| format!("user-{n}");
    let mut tapes: Vec<Tape> = Vec::new();
    for n in 0..REVOCATIONS + SPARED {
        tapes.push(cluster[n % 4].tape(&user(n), "room:1").await);
    }
    let mut written: Vec<Instant> = Vec::new();
    for n in 0..REVOCATIONS {
        let next = Instant::now() + ROUND;
        fail(&mut dice, &redis, &cluster).await;
        fail(&mut dice, &redis, &cluster).await;
        written.push(Instant::now());
        redis
            .run(&["SET", &revocation_key("user", &user(n)), "1"])
            .await;
        // A revoked user gets no session on any node.
        let (node, revoked) = (&cluster[dice.below(4)], user(dice.below(n + 1)));
        let attempt = node.attempt(&revoked).await;
        assert!(
            attempt.is_revoked() || attempt.is_unavailable(),
            "{revoked}: {attempt:?}"
        );
        sleep_until(next.into()).await;
    }
    sleep_until((*written.last().unwrap() + LEASE).into()).await;
    for node in 0..4 {
        cluster.proxy(node).set(Link::PASS);
    }
    let healed = Instant::now();
    for (n, tape) in tapes.iter().enumerate() {
        if let Some(written) = written.get(n) {
            tape.revoked().await;
            tape.assert_revoked_within_the_lease(*written, &user(n));
        } else {
            tape.message_after(RECOVERY, healed).await;
            tape.assert_open("after").await;
        }
    }
    cluster.synced().await;
    for n in 0..REVOCATIONS {
        cluster[n % 4].assert_refused(&user(n)).await;
    }
    drop(publisher);
    eventually_within(RECOVERY, "the records of the spared only", async || {
        let keys = redis.keys().await;
        let records = keys
            .iter()
            .filter(|key| key.starts_with("curfew:session:"))
            .count();
        (records == SPARED).then_some(())
    })
    .await;
    cluster.assert_well().await;
}
