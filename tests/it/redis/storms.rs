//! A very large number of revocations, and a very large number of connects while Redis is slow.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use curfew_testkit::mint::Key;
use curfew_tests::{
    Attempt, Cluster, Flow, Link, Redis, Settings, Tape, eventually_within, revocation_key,
};
use serde_json::json;
use tokio::task::JoinSet;

/// Number of revocations that are written without a pause.
const REVOCATIONS: usize = 50_000;

/// Number of clients that connect at the same time.
const CONNECTS: usize = 5000;

/// Maximum number of admissions that wait for Redis at the same time.
const ADMISSIONS: usize = 64;

#[tokio::test]
async fn fifty_thousand_revocations_close_whom_they_name_and_leave_the_nodes_well() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(2, &redis.url(), &Settings::default()).await;
    let user = |n: usize| format!("user-{n}");
    // These users have sessions. Their revocations come at the beginning, in the middle and at the
    // end of the storm.
    let named = [
        0,
        1,
        9_999,
        25_000,
        33_333,
        REVOCATIONS - 2,
        REVOCATIONS - 1,
    ];
    let mut tapes: Vec<Tape> = Vec::new();
    for (at, n) in named.into_iter().enumerate() {
        tapes.push(cluster[at % 2].tape(&user(n), "room:1").await);
    }
    let bob = cluster[0].tape("bob", "room:1").await;
    let before: Vec<u64> = cluster.nodes().iter().map(|node| node.rss_kib()).collect();
    let commands: Vec<Vec<String>> = (0..REVOCATIONS)
        .map(|n| {
            let key = revocation_key("user", &user(n));
            ["SET", &key, "1", "EX", "3600"].map(str::to_owned).to_vec()
        })
        .collect();
    let mut connection = redis.connect().await;
    let written = Instant::now();
    for chunk in commands.chunks(5000) {
        connection.pipeline(chunk).await.unwrap();
    }
    for tape in &tapes {
        let closed = tape.revoked().await;
        assert!(closed.duration_since(written) < Duration::from_secs(10));
        tape.assert_revoked_within_the_lease(written, "a storm");
    }
    bob.assert_open("after").await;
    for node in cluster.nodes() {
        node.until_in_touch(Duration::from_secs(20)).await;
        node.assert_refused(&user(42)).await;
        assert!(!node.metrics().await.is_empty());
        assert!(
            node.series().await.len() < 2000,
            "the number of series grows with the number of revocations"
        );
    }
    // On a busy machine, both nodes may lose their connections during the storm. They get no push for
    // keys written meanwhile, so the keys that are missing on the list are written again.
    let mut connections = 0.0;
    for node in cluster.nodes() {
        connections += node.metric("curfew_backend_generations_total").await;
    }
    let reconnected = connections > cluster.nodes().len() as f64;
    eventually_within(
        Duration::from_secs(60),
        "all revocations on the list",
        async || {
            let (_, listed) = cluster[1].admin("GET", "/v1/revocations", None).await;
            let listed = listed["revocations"].as_array()?;
            if listed.len() == REVOCATIONS {
                return Some(());
            }
            if reconnected {
                let values = listed.iter().filter_map(|listed| listed["value"].as_str());
                let values: HashSet<&str> = values.collect();
                let missing = (0..REVOCATIONS).filter(|n| !values.contains(&*user(*n)));
                let missing: Vec<_> = missing.map(|n| commands[n].clone()).collect();
                connection.pipeline(&missing).await.unwrap();
            }
            None
        },
    )
    .await;
    cluster[1].publish("room:1", json!("calm")).await;
    bob.until(json!({"type":"message","data":"calm"})).await;
    let receipt = cluster[0]
        .revoke(json!({"kind":"user","value":"bob"}))
        .await;
    assert_eq!(
        receipt["nodes"],
        json!({"live":2,"confirmed":2,"missing":[]}),
        "{receipt}"
    );
    bob.revoked().await;
    for (node, before) in cluster.nodes().iter().zip(before) {
        let grown = node.rss_kib().saturating_sub(before);
        assert!(
            grown < 128 * 1024,
            "{grown} KiB for {REVOCATIONS} revocations"
        );
    }
    cluster.assert_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connects_beyond_what_a_slow_redis_takes_are_told_to_come_back() {
    let redis = Redis::start().await;
    let settings = Settings::default()
        .with(&format!("backend.max_admissions = {ADMISSIONS}"))
        .with("limits.unauthenticated_per_address = 100000")
        .with("telemetry.log_level = \"info\"");
    let cluster = Cluster::behind_proxies(1, &redis, &settings).await;
    let node = &cluster[0];
    let bob = node.tape("bob", "room:1").await;
    cluster
        .proxy(0)
        .set(Link::both(Flow::Delay(Duration::from_millis(200))));
    let token = Key::default_secret().user("alice");
    let mut attempts = JoinSet::new();
    for _ in 0..CONNECTS {
        let connect = node.ws().bearer(&token);
        attempts.spawn(Attempt::make(connect));
    }
    let (mut open, mut unavailable, mut lost) = (Vec::new(), 0, Vec::new());
    while let Some(attempt) = attempts.join_next().await {
        match attempt.unwrap() {
            Attempt::Open(client) => open.push(client),
            Attempt::Unavailable => unavailable += 1,
            Attempt::Lost(error) => lost.push(error),
            Attempt::Refused(reason, code) => panic!("a client was refused with {reason} {code}"),
        }
    }
    assert!(
        lost.is_empty(),
        "{} clients got no answer: {}",
        lost.len(),
        lost[0]
    );
    assert!(
        open.len() >= ADMISSIONS,
        "only {} clients were admitted",
        open.len()
    );
    assert!(
        unavailable > CONNECTS / 10,
        "only {unavailable} clients were refused, so admissions have no limit"
    );
    node.assert_alive().await;
    bob.assert_open("during").await;
    cluster.proxy(0).set(Link::PASS);
    node.until_in_touch(Duration::from_secs(10)).await;
    for n in 0..20 {
        node.assert_admits(&format!("user-{n}")).await;
    }
    // A revocation can close each open session, and no other session has a record.
    let sessions = usize::try_from(
        redis
            .run(&["ZCARD", "curfew:user:alice:sessions"])
            .await
            .integer(),
    );
    assert_eq!(sessions, Ok(open.len()));
    let receipt = node.revoke(json!({"kind":"user","value":"alice"})).await;
    assert_eq!(receipt["closed"], open.len(), "{receipt}");
    assert_eq!(
        receipt["nodes"],
        json!({"live":1,"confirmed":1,"missing":[]}),
        "{receipt}"
    );
    cluster.assert_well().await;
}
