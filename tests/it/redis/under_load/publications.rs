//! Publications of users who are revoked while their node is stopped or cut off. The publications
//! are on their way to Redis.

use std::time::Duration;

use curfew_tests::{
    Cluster, Flood, LEASE, Link, Moment, Redis, Settings, Witness, eventually_within,
};
use serde_json::json;
use tokio::time::sleep_until;

use super::{DATA, LEAST, PATIENCE, Verdict, revoke, rounds, user};

/// Number of users who publish all the time.
const FLOODERS: usize = 16;

/// Number of publications that are executed before the fault begins.
const UNDER_WAY: usize = 5_000;

/// Time for which the node is cut off. It is longer than the lease, and longer than any connection
/// waits.
const APART: Duration = Duration::from_secs(5);

/// Time for which the node is cut off in the long form of the test.
const LONG_APART: Duration = Duration::from_secs(20);

/// Time in which Redis executes the publications that still wait when the node has recovered.
const STRAGGLING: Duration = Duration::from_secs(1);

/// Number of publications that alice sends after her key was written.
const WORDS: usize = 5;

/// Users on node 0 who publish all the time, and a witness that receives their publications from
/// Redis.
struct Flooders {
    users: Vec<String>,
    flood: Flood,
    witness: Witness,
}

impl Flooders {
    async fn start(redis: &Redis, cluster: &Cluster) -> Self {
        let users: Vec<String> = (0..FLOODERS).map(user).collect();
        let witness = Witness::start(redis.address(), &["room:flood", "room:alice"]);
        let mut clients = Vec::new();
        for user in &users {
            clients.push(cluster[0].user(user).await);
        }
        let flood = Flood::start(clients, "room:flood", DATA);
        eventually_within(PATIENCE, "a flood of publications", async || {
            (witness.count() >= UNDER_WAY).then_some(())
        })
        .await;
        Self {
            users,
            flood,
            witness,
        }
    }

    /// Judges the publications that Redis executed after the lease, of users whose keys were
    /// written at `acknowledged`. First waits until all of their sessions have ended and all of
    /// their commands are executed.
    async fn verdict(&self, acknowledged: Moment) -> Verdict {
        eventually_within(PATIENCE, "the end of every revoked session", async || {
            (self.flood.gone() == FLOODERS as u64).then_some(())
        })
        .await;
        let settled = Moment::now() + STRAGGLING;
        eventually_within(PATIENCE, "a tick after the last command", async || {
            (self.witness.last_tick() > settled).then_some(())
        })
        .await;
        let late = self.witness.late(acknowledged + LEASE + LEAST, |from| {
            from == "alice" || self.users.iter().any(|user| user == from)
        });
        let last = late.iter().map(|late| late.after).max().unwrap_or_default();
        let told = format!(
            "{} publications of {} executed late, the last {:?} after the keys; the publishers were \
             told {:?}",
            late.len(),
            self.witness.count(),
            last.since(acknowledged),
            self.flood.told(),
        );
        match late.is_empty() {
            true => Verdict::Held(told),
            false => Verdict::Broken(told),
        }
    }
}

async fn frozen() -> Verdict {
    let redis = Redis::start().await;
    let cluster = Cluster::start(1, &redis.url(), &Settings::default()).await;
    let mut connection = redis.connect().await;
    let flooders = Flooders::start(&redis, &cluster).await;
    cluster[0].freeze().await;
    let acknowledged = revoke(&mut connection, &flooders.users).await;
    sleep_until((acknowledged + LEASE + LEAST).instant()).await;
    cluster[0].thaw();
    let verdict = flooders.verdict(acknowledged).await;
    cluster.synced().await;
    cluster.assert_well().await;
    verdict
}

async fn apart(time: Duration) -> Verdict {
    let redis = Redis::start().await;
    let cluster = Cluster::behind_proxies(2, &redis, &Settings::default()).await;
    let mut connection = redis.connect().await;
    let bob = cluster[1].tape("bob", "room:alice").await;
    let alice = cluster[0].tape("alice", "room:1").await;
    let publish = |word: String| {
        alice.send(json!({"type":"publish","id":word,"channel":"room:alice","data":word}));
    };
    publish("before".to_owned());
    bob.until(json!({"type":"message","data":"before"})).await;
    let flooders = Flooders::start(&redis, &cluster).await;
    cluster.proxy(0).set(Link::STALLED);
    let mut users = flooders.users.clone();
    users.push("alice".to_owned());
    let acknowledged = revoke(&mut connection, &users).await;
    for word in 0..WORDS {
        publish(format!("after-{word}"));
    }
    sleep_until((acknowledged + time).instant()).await;
    cluster.proxy(0).set(Link::PASS);
    alice.revoked().await;
    let verdict = flooders.verdict(acknowledged).await;
    cluster.synced().await;
    cluster.assert_well().await;
    let heard = bob.messages().len() - 1;
    let answers: Vec<_> = (0..WORDS)
        .flat_map(|word| alice.matching(&json!({"id":format!("after-{word}")})))
        .map(|seen| seen.frame["code"].clone())
        .collect();
    match verdict {
        Verdict::Broken(told) | Verdict::Held(told) if heard > 0 => Verdict::Broken(format!(
            "bob heard {heard} of what alice said after her key was written: {answers:?}; {told}"
        )),
        verdict => verdict,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stopped_node_held_of_the_revoked_is_not_executed_when_it_goes_on() {
    rounds("publications, freeze", async |_| frozen().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_revoked_say_while_their_node_is_cut_off_is_never_heard() {
    rounds("publications, partition", async |_| apart(APART).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the long form: half a minute a round"]
async fn nor_when_it_is_cut_off_for_long() {
    rounds("publications, long partition", async |_| {
        apart(LONG_APART).await
    })
    .await;
}
