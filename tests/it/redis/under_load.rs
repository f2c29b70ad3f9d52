//! The bound of R1 in its hardest case: the node's send queues are full (CONTRACT §8 R1, R3).
//!
//! A publisher on another node publishes without waiting for answers. A hundred clients subscribe,
//! and some of them do not read for a while. Then bare keys revoke 48 of their users, and the node
//! is stopped, cut off or both. Once the lease is over after a user's key was written, nothing may
//! be delivered to the user's session, and no publication of the user may be executed.
//!
//! # The test's own clock
//!
//! The test runs on the same machine as the nodes. If a thread of the test is not scheduled, it
//! reads bytes later than they arrived, and learns of a written key later than it was written. The
//! assertions depend on neither:
//!
//! - The time of a revocation is the time at which the test has read Redis' answer to the last
//!   `SET`. Redis executed every `SET` before that.
//! - The time at which a client reads does not count. At the bound the test asks the kernel how
//!   many bytes the node has written to each client: the bytes that the client has read, and those
//!   that are in the client's socket or in the node's socket ([`Audience::mark`]). Bytes after this
//!   mark were written after the bound, no matter when they are read. Bytes before the mark cannot
//!   be taken back (assumption (e) of the revocation protocol), even if a client that paused reads
//!   them much later. A frame is late in any case if its data says that it was published after the
//!   bound.
//! - A [`Witness`] publishes ticks at Redis itself, and one connection of the witness receives the
//!   ticks and the publications in the order of their execution. A publication was therefore
//!   executed after the time at which the tick before it was sent.
//!
//! If the test is delayed, it makes its mark later. It then counts fewer bytes as late, and never
//! too many. The difference is small: late frames could only leave the node after the test has
//! continued the node or repaired the link, and the test does that after the mark.
//!
//! [`Witness`]: curfew_tests::Witness
//!
//! # The allowance
//!
//! The machine can keep a thread of the node from running between the node's check of the lease and
//! the system call. This is no fault of Curfew. The test measures for how long the machine does
//! this: it is the longest time in which the thread that reads, which never waits, did not look at
//! its clients. The bound is the lease plus this time, which counts as at least [`LEAST`] and at
//! most [`MOST`]. If the machine stood still for longer, the round proves nothing and is repeated.
//! A signal may stop a node between its check and the system call. This is the exception of R1:
//! each thread of the node may then still make one system call of at most 64 KiB.
//!
//! # Rounds
//!
//! CI runs one round of each test. The following commands run thirty rounds with a release build:
//!
//! ```text
//! cargo build --release -p curfew
//! CURFEW_BIN=$PWD/target/release/curfew CURFEW_TEST_ROUNDS=30 \
//!     cargo test -p curfew-tests --test it redis::under_load -- --nocapture
//! ```
//!
//! Each test prints a line for each round, and the seed with which its random choices can be
//! repeated (`CURFEW_TEST_SEED`). A test fails at the end if any of its rounds broke the bound.

mod chaos;
mod control_link;
mod freeze;
mod opening;
mod publications;
mod rounds;

use std::time::Duration;

use curfew_tests::{
    Attempt, Audience, Cluster, Dice, Flood, LEASE, Late, Mark, Moment, Redis, Resp, Settings,
    Tape, eventually_within, revocation_key,
};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use rounds::{Verdict, rounds};

/// Number of sessions on the node that is stopped or cut off.
const SUBSCRIBERS: usize = 100;

/// Number of users who are revoked: the first users of all.
const REVOKED: usize = 48;

/// One of this many sessions does not read for a while.
const PAUSED: usize = 2;

/// Interval between two clients that stop reading. It makes some queues full and others not, at any
/// time.
const ONE_BY_ONE: Duration = Duration::from_millis(15);

/// Publications a second until the queues are full. The rate is low: otherwise the first clients
/// that do not read would be closed before the queues of the others are full.
const FILLING: u64 = 4_000;

/// Longest time for which the publisher has no limit. With queues of the default size, the queues
/// soon overflow, and their sessions are then closed.
const LOOSE: Duration = Duration::from_millis(300);

/// Size of the data in every frame, in bytes.
const DATA: usize = 200;

/// Bytes that fill the node's queues at their default size. They equal the limit of four sessions.
const FULL: f64 = 4.0 * 1024.0 * 1024.0;

/// Bytes that fill the node's queues if the queues are large.
const VERY_FULL: f64 = 64.0 * 1024.0 * 1024.0;

/// Publications a second while the node delivers nothing. Redis stores them for the node.
const MEANWHILE: u64 = 5_000;

/// Smallest allowance for the time in which the node's threads are not scheduled, even if the test
/// measures a shorter time.
const LEAST: Duration = Duration::from_millis(300);

/// Largest allowance. On a machine that stands still for longer, the test proves nothing.
const MOST: Duration = Duration::from_secs(1);

/// Metric of the sessions that were closed because their clients did not read.
const OVERFLOWED: &str = "curfew_connections_closed_total{code=\"4508\"}";

/// Deadline for a node under load to close or serve every session.
const PATIENCE: Duration = Duration::from_secs(30);

/// Limit on the bytes of one system call (R1).
const ONE_WRITE: usize = 64 * 1024;

fn user(n: usize) -> String {
    format!("user-{n}")
}

/// A Redis that stores everything that a node does not read. Publications to a stopped node thus
/// arrive when the node continues.
async fn patient_redis() -> Redis {
    Redis::start_with(&["client-output-buffer-limit pubsub 0 0 0"]).await
}

/// Settings with queues of the default size, or with queues so large that they close no session.
fn settings(large_queues: bool) -> Settings {
    match large_queues {
        false => Settings::default(),
        true => Settings::default()
            .with("limits.outbound_bytes = 67108864")
            .with("limits.node_outbound_bytes = 0"),
    }
}

/// Subscribers on node 0 of a cluster of two nodes, and a publisher on node 1 that does not wait
/// for answers.
struct Load {
    audience: Audience,
    flood: Flood,
}

impl Load {
    async fn start(cluster: &Cluster) -> Self {
        let mut opening = JoinSet::new();
        for n in 0..SUBSCRIBERS {
            let (connect, user) = (cluster[0].ws(), user(n));
            opening.spawn(async move {
                let token = curfew_testkit::mint::Key::default_secret().user(&user);
                let mut client = connect.bearer(&token).open().await;
                client.expect_json(json!({"type":"connected"})).await;
                let subscribe = json!({"type":"subscribe","id":0,"channel":"room:1"});
                client.send(subscribe).await;
                client.expect_json(json!({"type":"ok","id":0})).await;
                (n, client)
            });
        }
        let mut clients = opening.join_all().await;
        clients.sort_by_key(|(n, _)| *n);
        let audience = Audience::of(clients.into_iter().map(|(_, client)| client).collect());
        let publisher = cluster[1].user("publisher").await;
        let flood = Flood::start(vec![publisher], "room:1", DATA);
        Self { audience, flood }
    }

    /// Makes some clients stop reading, one by one, until `bytes` bytes wait for them in the node.
    /// Then removes the limit on the publisher's rate.
    async fn fill(&self, cluster: &Cluster, bytes: f64, dice: &mut Dice) {
        self.flood.pace(FILLING);
        for client in (0..SUBSCRIBERS).step_by(PAUSED) {
            self.audience.pause(client);
            sleep(ONE_BY_ONE).await;
        }
        let deadline = Moment::now() + PATIENCE;
        // On a busy machine publications come in bursts. The first client with a full queue is then
        // closed before the metric shows that its queue is full. The queues of the other clients
        // are then nearly full.
        while cluster[0].metric("curfew_send_queue_bytes").await < bytes
            && cluster[0].metric(OVERFLOWED).await < 1.0
        {
            assert!(
                Moment::now() < deadline,
                "the queues do not fill: {} bytes wait, {} publications, of which {:?} had come, {} of \
                 the revoked are left; the publisher was told {:?}",
                cluster[0].metric("curfew_send_queue_bytes").await,
                self.flood.published(),
                self.audience.publications(1),
                self.remaining(),
                self.flood.told(),
            );
            sleep(ONE_BY_ONE).await;
        }
        self.flood.pace(0);
        sleep(dice.time_below(LOOSE)).await;
    }

    /// Makes the paused `clients` read again, one after the other, at random times within `within`.
    async fn resume(&self, dice: &mut Dice, clients: Vec<usize>, within: Duration) {
        let now = Moment::now();
        let mut again: Vec<(Moment, usize)> = clients
            .into_iter()
            .map(|client| (now + dice.time_below(within), client))
            .collect();
        again.sort();
        for (at, client) in again {
            sleep_until(at.instant()).await;
            self.audience.resume(client);
        }
    }

    /// Number of clients of revoked users that are still connected.
    fn remaining(&self) -> usize {
        let remaining = |client: &usize| !self.audience.is_ended(*client);
        (0..REVOKED).filter(remaining).count()
    }

    /// Waits until every session of a revoked user has ended, every other session is served or was
    /// closed because its client did not read, and a new client is served.
    async fn until_well(&self, cluster: &Cluster) {
        let since = Moment::now();
        eventually_within(PATIENCE, "the end of every revoked session", async || {
            (self.remaining() == 0).then_some(())
        })
        .await;
        for client in 0..REVOKED {
            let code = self.audience.closed(client);
            // A session that was reset in the middle of a frame could not receive the reason.
            assert!(
                matches!(code, None | Some(4403 | 4508)),
                "{}: {code:?}",
                user(client)
            );
        }
        for client in REVOKED..SUBSCRIBERS {
            eventually_within(PATIENCE, "a client that is served or closed", async || {
                let served = self.audience.has_newer(client, since);
                (served || self.audience.is_ended(client)).then_some(())
            })
            .await;
            let code = self.audience.closed(client);
            assert!(matches!(code, None | Some(4508)), "{client}: {code:?}");
        }
        // Until the node is connected again, it refuses new clients with 503.
        let Attempt::Open(client) = cluster[0].answer("newcomer").await else {
            panic!("the newcomer is refused");
        };
        let newcomer = Tape::of(*client);
        newcomer.send(json!({"type":"subscribe","id":0,"channel":"room:1"}));
        newcomer.until(json!({"type":"message"})).await;
    }

    /// Judges the bytes that were sent to revoked clients after the mark. At most `excepted`
    /// clients may have received bytes of one system call, because as many threads may have been
    /// stopped before that call.
    fn verdict(&self, acknowledged: Moment, mark: &Mark, excepted: usize) -> Verdict {
        let gap = self.audience.longest_gap(acknowledged, mark.at());
        if gap > MOST {
            return Verdict::Blind(gap);
        }
        let late: Vec<Late> = (0..REVOKED)
            .map(|client| self.audience.late(client, mark))
            .filter(|late| late.bytes > 0)
            .collect();
        let sum = |what: fn(&Late) -> usize| late.iter().map(what).sum::<usize>();
        let read = late.iter().filter_map(|late| late.read).flatten();
        let [first, last] = [read.clone().min(), read.max()]
            .map(|read| read.unwrap_or_default().since(acknowledged));
        let told = format!(
            "{} frames, {} bytes for {} sessions later than {:?} after the keys, read {first:?} to \
             {last:?} after them; longest gap {gap:?}",
            sum(|late| late.frames),
            sum(|late| late.bytes),
            late.len(),
            mark.at().since(acknowledged),
        );
        let in_one_write = late.iter().all(|late| late.bytes <= ONE_WRITE + 2 * DATA);
        match late.len() <= excepted && in_one_write {
            true => Verdict::Held(told),
            false => Verdict::Broken(told),
        }
    }
}

/// Writes the revocation keys of these users. Returns a time at which Redis had all keys.
async fn revoke(connection: &mut Resp, users: &[String]) -> Moment {
    let commands: Vec<[String; 3]> = users
        .iter()
        .map(|user| ["SET".into(), revocation_key("user", user), "1".into()])
        .collect();
    for answer in connection.pipeline(&commands).await.unwrap() {
        answer.accepted();
    }
    Moment::now()
}

/// Waits for the bound of revocations that were written at `acknowledged`. The bound includes the
/// time for which the machine has stopped the test's threads so far. Then marks the bytes that the
/// node has written.
async fn bound(audience: &Audience, acknowledged: Moment) -> Mark {
    loop {
        let gap = audience.longest_gap(acknowledged, Moment::now());
        let bound = acknowledged + LEASE + gap.clamp(LEAST, MOST);
        if Moment::now() >= bound {
            return audience.mark().await;
        }
        sleep_until(bound.instant()).await;
    }
}
