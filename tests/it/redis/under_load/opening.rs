//! Half of many clients are revoked while all of them open sessions (CONTRACT §8 R3).

use std::time::Duration;

use curfew_testkit::WsClient;
use curfew_testkit::mint::Key;
use curfew_tests::{Attempt, Cluster, Dice, Moment, Queues, Redis, Settings};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use super::{PATIENCE, Verdict, revoke, rounds, user};

/// Number of clients that open a session at the same time, each for its own user. Every second user
/// is revoked.
const CLIENTS: usize = 1000;

/// The shortest time for which the node is stopped, and the longest addition to it. Their sum is
/// shorter than the lease, so the node continues without asking Redis.
const FROZEN: Duration = Duration::from_millis(500);
const LONGER: Duration = Duration::from_millis(1000);

/// Longest time in which a client recognizes an answer in the bytes that it has read.
const READ: Duration = Duration::from_millis(200);

/// The outcomes of the clients: the number of each kind.
#[derive(Debug, Default)]
struct Tally {
    connected: usize,
    revoked: usize,
    unavailable: usize,
    lost: Vec<String>,
}

impl Tally {
    fn add(&mut self, attempt: &Attempt) {
        match attempt {
            Attempt::Open(_) => self.connected += 1,
            Attempt::Refused(reason, 4403) if reason == "revoked" => self.revoked += 1,
            Attempt::Unavailable => self.unavailable += 1,
            Attempt::Refused(..) | Attempt::Lost(_) => self.lost.push(format!("{attempt:?}")),
        }
    }
}

/// The attempts of the clients to open sessions.
struct Attempts {
    unfinished: JoinSet<(usize, Attempt)>,
    revoked: Tally,
    spared: Tally,
    /// The sessions of revoked users that were opened.
    open: Vec<WsClient>,
}

impl Attempts {
    fn of(unfinished: JoinSet<(usize, Attempt)>) -> Self {
        Self {
            unfinished,
            revoked: Tally::default(),
            spared: Tally::default(),
            open: Vec::new(),
        }
    }

    /// Waits until `count` further clients have an answer.
    async fn finish(&mut self, count: usize) {
        for _ in 0..count {
            assert!(
                self.next_within(PATIENCE).await,
                "some clients have no answer"
            );
        }
    }

    /// Waits at most `patience` for the next answer. Returns true if an answer came.
    async fn next_within(&mut self, patience: Duration) -> bool {
        let Ok(Some(answer)) = timeout(patience, self.unfinished.join_next()).await else {
            return false;
        };
        let (n, attempt) = answer.unwrap();
        match is_revoked(n) {
            true => self.revoked.add(&attempt),
            false => self.spared.add(&attempt),
        }
        if let Attempt::Open(client) = attempt
            && is_revoked(n)
        {
            self.open.push(*client);
        }
        true
    }
}

fn is_revoked(n: usize) -> bool {
    n.is_multiple_of(2)
}

async fn round(dice: &mut Dice, freezes: bool) -> Verdict {
    let redis = Redis::start().await;
    let cluster = Cluster::start(1, &redis.url(), &Settings::default()).await;
    let node = &cluster[0];
    let mut connection = redis.connect().await;
    let users: Vec<String> = (0..CLIENTS).filter(|n| is_revoked(*n)).map(user).collect();
    let token = |n| Key::default_secret().user(&user(n));
    let connects: Vec<_> = (0..CLIENTS).map(|n| node.ws().bearer(&token(n))).collect();
    let mut attempts = JoinSet::new();
    for (n, connect) in connects.into_iter().enumerate() {
        attempts.spawn(async move { (n, Attempt::make(connect).await) });
    }
    let mut attempts = Attempts::of(attempts);
    attempts.finish(dice.below(CLIENTS / 4)).await;
    if freezes {
        node.freeze().await;
    }
    let acknowledged = revoke(&mut connection, &users).await;
    if freezes {
        // While the node is stopped, the clients read all bytes that it has already sent.
        sleep_until((acknowledged + FROZEN + dice.time_below(LONGER)).instant()).await;
        while attempts.next_within(READ).await
            || Queues::now().unread_from(node.address().port()) > 0
        {}
        node.thaw();
    }
    let went_on = Moment::now();
    let before = std::mem::take(&mut attempts.revoked);
    while attempts.next_within(PATIENCE).await {}
    assert!(
        attempts.unfinished.is_empty(),
        "some clients have no answer"
    );
    let Attempts {
        revoked,
        spared,
        mut open,
        ..
    } = attempts;
    // A client that had a session receives the reason for which its session ended.
    for client in &mut open {
        assert_eq!(client.closed().await.0, 4403);
    }
    node.assert_alive().await;
    cluster.assert_well().await;
    let told = format!(
        "the node continued {:?} after the keys; the revoked: first {before:?}, then {revoked:?}; the \
         others: {spared:?}",
        went_on.since(acknowledged)
    );
    // If the node is not stopped, a session may have been opened before the user's key was written.
    let told_late = freezes && revoked.connected > 0;
    // If no spared client was told that the node is unavailable, the node was available for the
    // revoked clients too.
    let blamed_on_us = revoked.unavailable > 0 && spared.unavailable == 0;
    let lost = !revoked.lost.is_empty() || !spared.lost.is_empty();
    match told_late || blamed_on_us || lost {
        true => Verdict::Broken(told),
        false => Verdict::Held(told),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_revoked_while_a_node_is_stopped_for_less_than_the_lease_is_not_connected() {
    rounds("opening, short freeze", async |dice| {
        round(dice, true).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_revoked_while_connecting_hears_so() {
    rounds("opening", async |dice| round(dice, false).await).await;
}
