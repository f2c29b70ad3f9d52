//! Faulty links between nodes and Redis (CONTRACT §8 R1, R2, R8).

use std::time::{Duration, Instant};

use curfew_tests::{
    Attempt, Cluster, Flow, Gateway, Kind, LEASE, Link, Redis, Settings, Tape, revocation_key,
};
use serde_json::json;
use tokio::time::{sleep, sleep_until};

/// A delay shorter than `backend.redis.timeout`, so the node keeps its lease.
const FAR: Duration = Duration::from_millis(900);

/// Deadline for a node to recover once its link has recovered.
const RECOVERY: Duration = Duration::from_secs(15);

/// A fault of a node's link to Redis.
struct Fault {
    name: &'static str,
    link: Link,
    /// The only kind of connection that has the fault; `None` for all kinds.
    only: Option<Kind>,
    /// True if the node loses its lease during the fault.
    isolates: bool,
}

const fn fault(name: &'static str, link: Link) -> Fault {
    Fault {
        name,
        link,
        only: None,
        isolates: true,
    }
}

const FAULTS: [Fault; 11] = [
    fault("cut", Link::CUT),
    fault("black hole", Link::BLACK_HOLE),
    fault("stalled", Link::STALLED),
    fault("deaf", Link::DEAF),
    fault("mute", Link::MUTE),
    Fault {
        isolates: false,
        ..fault("far one way", Link::only_down(Flow::Delay(FAR)))
    },
    Fault {
        isolates: false,
        ..fault(
            "far both ways",
            Link::both(Flow::Delay(FAR.checked_div(2).unwrap())),
        )
    },
    // Publications still reach the node. Only the lease keeps the node from delivering them to a
    // revoked session.
    Fault {
        only: Some(Kind::Tracking),
        ..fault("revocations lost", Link::BLACK_HOLE)
    },
    Fault {
        only: Some(Kind::Tracking),
        ..fault("revocations late", Link::only_down(Flow::Stall))
    },
    Fault {
        only: Some(Kind::Subscriber),
        isolates: false,
        ..fault("publications lost", Link::BLACK_HOLE)
    },
    // Existing sessions continue, but the node cannot open a new session.
    Fault {
        only: Some(Kind::Other),
        isolates: false,
        ..fault("commands lost", Link::BLACK_HOLE)
    },
];

impl Fault {
    fn strike(&self, cluster: &Cluster, node: usize) {
        match self.only {
            None => cluster.proxy(node).set(self.link),
            Some(kind) => cluster.proxy(node).set_only(kind, self.link),
        }
    }
}

/// Asserts that the node answers every command with `unavailable`, executes none, and opens no
/// session.
async fn assert_no_lease(node: &Gateway, tape: &Tape, name: &str) {
    for (id, command) in [
        (
            "publish",
            json!({"type":"publish","channel":"room:9","data":1}),
        ),
        ("subscribe", json!({"type":"subscribe","channel":"room:9"})),
        (
            "unsubscribe",
            json!({"type":"unsubscribe","channel":"room:1"}),
        ),
    ] {
        let answer = tape.ask(id, command).await;
        assert_eq!(answer["code"], "unavailable", "{name}: {answer}");
    }
    let attempt = node.attempt("newcomer").await;
    assert!(attempt.is_unavailable(), "{name}: {attempt:?}");
    let (status, body) = node.readiness().await;
    assert_eq!(body["backend"], "unavailable", "{name}: {body}");
    assert_eq!(status, 200, "{name}: {body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_link_does_a_revoked_session_gets_nothing_after_the_lease() {
    let redis = Redis::start().await;
    let cluster = Cluster::behind_proxies(FAULTS.len() + 1, &redis, &Settings::default()).await;
    let healthy = &cluster[FAULTS.len()];
    let _publisher = healthy.publisher("carol", "room:1").await;
    let (mut alices, mut bobs) = (Vec::new(), Vec::new());
    for node in cluster.nodes() {
        alices.push(node.tape("alice", "room:1").await);
        bobs.push(node.tape("bob", "room:1").await);
    }
    for tape in alices.iter().chain(&bobs) {
        tape.until(json!({"type":"message"})).await;
    }
    for (node, fault) in FAULTS.iter().enumerate() {
        fault.strike(&cluster, node);
    }
    let written = Instant::now();
    redis
        .run(&["SET", &revocation_key("user", "alice"), "1"])
        .await;
    let prompt = alices[FAULTS.len()].revoked().await;
    assert!(prompt.duration_since(written) < Duration::from_secs(1));

    sleep_until((written + LEASE + Duration::from_secs(1)).into()).await;
    for (node, fault) in FAULTS.iter().enumerate() {
        alices[node].assert_revoked_within_the_lease(written, fault.name);
        if fault.isolates {
            assert_no_lease(&cluster[node], &bobs[node], fault.name).await;
        }
        if fault.only == Some(Kind::Other) {
            let attempt = cluster[node].attempt("newcomer").await;
            assert!(attempt.is_unavailable(), "{}: {attempt:?}", fault.name);
        }
    }
    let lost = FAULTS
        .iter()
        .position(|fault| fault.only == Some(Kind::Tracking))
        .unwrap();
    let dropped = cluster[lost]
        .metric(r#"curfew_messages_dropped_total{reason="unvouched"}"#)
        .await;
    assert!(
        dropped > 0.0,
        "the node dropped no publication, so it did not lose its lease"
    );

    let healed = Instant::now();
    for node in 0..FAULTS.len() {
        cluster.proxy(node).set(Link::PASS);
    }
    for (node, fault) in FAULTS.iter().enumerate() {
        cluster[node].until_in_touch(RECOVERY).await;
        alices[node].revoked().await;
        alices[node].assert_revoked_within_the_lease(written, fault.name);
        bobs[node].message_after(RECOVERY, healed).await;
        bobs[node].assert_open("healed").await;
        cluster[node].assert_refused("alice").await;
        cluster[node].assert_admits("bob").await;
    }
    bobs[FAULTS.len()].assert_open("healthy").await;
    cluster.assert_well().await;
}

#[tokio::test]
async fn a_link_that_stays_bad_closes_every_session_as_unavailable() {
    let grace = Duration::from_secs(4);
    let redis = Redis::start().await;
    let settings = Settings::default().with("backend.grace = \"4s\"");
    let faults = [Link::CUT, Link::BLACK_HOLE, Link::DEAF];
    let cluster = Cluster::behind_proxies(faults.len() + 1, &redis, &settings).await;
    let (mut alices, mut bobs) = (Vec::new(), Vec::new());
    for node in cluster.nodes() {
        alices.push(node.tape("alice", "room:1").await);
        bobs.push(node.tape("bob", "room:1").await);
    }
    for (node, link) in faults.into_iter().enumerate() {
        cluster.proxy(node).set(link);
    }
    let struck = Instant::now();
    redis
        .run(&["SET", &revocation_key("user", "alice"), "1"])
        .await;
    for node in 0..faults.len() {
        for tape in [&alices[node], &bobs[node]] {
            let closed = tape.closed_with(4503, "unavailable").await;
            let after = closed.duration_since(struck);
            // The last renewal of the lease may have begun up to a second before the fault.
            let (least, most) = (grace + LEASE - Duration::from_secs(2), grace + LEASE * 3);
            assert!(
                (least..most).contains(&after),
                "{:?}: {after:?}",
                faults[node]
            );
            let closing = &tape.matching(&json!({"type":"closing"}))[0].frame;
            assert_eq!(closing["reconnect"], true);
        }
        // The node refuses each token as unavailable, and not as invalid. This also holds for a
        // revoked user.
        for user in ["alice", "bob", "newcomer"] {
            let attempt = cluster[node].attempt(user).await;
            assert!(attempt.is_unavailable(), "{user}: {attempt:?}");
        }
        cluster.proxy(node).set(Link::PASS);
        cluster[node].until_in_touch(RECOVERY).await;
        cluster[node].assert_refused("alice").await;
        cluster[node].assert_admits("bob").await;
    }
    bobs[faults.len()].assert_open("healthy").await;
    // The records of the sessions that were closed are removed.
    curfew_tests::eventually(
        "the removal of all records but that of the healthy node's session",
        async || (cluster[0].sessions().await.len() == 1).then_some(()),
    )
    .await;
    cluster.assert_well().await;
}

#[tokio::test]
async fn a_link_that_flaps_costs_no_session() {
    let redis = Redis::start().await;
    let cluster = Cluster::behind_proxies(2, &redis, &Settings::default()).await;
    let _publisher = cluster[1].publisher("carol", "room:1").await;
    let (alice, bob) = (
        cluster[0].tape("alice", "room:1").await,
        cluster[0].tape("bob", "room:1").await,
    );
    for link in [Link::CUT, Link::STALLED, Link::DEAF, Link::MUTE, Link::CUT].repeat(4) {
        cluster.proxy(0).set(link);
        // The fault is short. The node may notice it or not.
        sleep(Duration::from_millis(120)).await;
        cluster.proxy(0).set(Link::PASS);
        sleep(Duration::from_millis(40)).await;
        // The node either opens a session for a new client, or answers `unavailable`.
        match cluster[0].attempt("dave").await {
            Attempt::Open(_) | Attempt::Unavailable => {}
            other => panic!("{other:?}"),
        }
    }
    let written = Instant::now();
    cluster.proxy(0).set(Link::CUT);
    redis
        .run(&["SET", &revocation_key("user", "alice"), "1"])
        .await;
    cluster.proxy(0).set(Link::PASS);
    alice.revoked().await;
    alice.assert_revoked_within_the_lease(written, "flapping");
    bob.message_after(RECOVERY, Instant::now()).await;
    bob.assert_open("after").await;
    let numbers: Vec<u64> = bob
        .messages()
        .iter()
        .map(|seen| seen.frame["data"].as_u64().unwrap())
        .collect();
    assert!(
        numbers.is_sorted(),
        "the publications are out of order: {numbers:?}"
    );
    assert!(
        numbers.windows(2).all(|pair| pair[0] < pair[1]),
        "a publication was delivered twice: {numbers:?}"
    );
    cluster.assert_well().await;
}

#[tokio::test]
async fn the_lease_is_as_long_as_configured() {
    let lease = Duration::from_secs(1);
    let redis = Redis::start().await;
    let settings = Settings::default().with("backend.lease = \"1s\"");
    let cluster = Cluster::behind_proxies(2, &redis, &settings).await;
    let _publisher = cluster[1].publisher("carol", "room:1").await;
    let alice = cluster[0].tape("alice", "room:1").await;
    alice.until(json!({"type":"message"})).await;
    // Publications still reach the node, and revocations do not.
    cluster.proxy(0).set_only(Kind::Tracking, Link::BLACK_HOLE);
    let written = Instant::now();
    redis
        .run(&["SET", &revocation_key("user", "alice"), "1"])
        .await;
    sleep_until((written + lease * 3).into()).await;
    let last = alice
        .last_message()
        .unwrap()
        .saturating_duration_since(written);
    assert!(
        last < lease + Duration::from_millis(300),
        "a message was delivered {last:?} after the revocation"
    );
    cluster.proxy(0).set(Link::PASS);
    alice.revoked().await;
    cluster.assert_well().await;
}

#[tokio::test]
async fn a_revocation_that_was_lifted_while_a_node_was_out_of_touch_keeps_nobody_out() {
    let redis = Redis::start().await;
    let cluster = Cluster::behind_proxies(1, &redis, &Settings::default()).await;
    let node = &cluster[0];
    let key = revocation_key("user", "alice");
    redis.run(&["SET", &key, "1"]).await;
    node.assert_refused("alice").await;
    cluster.proxy(0).set(Link::CUT);
    node.until_out_of_touch(RECOVERY, &[]).await;
    redis.run(&["DEL", &key]).await;
    cluster.proxy(0).set(Link::PASS);
    node.until_in_touch(RECOVERY).await;
    node.assert_admits("alice").await;
    cluster.assert_well().await;
}
