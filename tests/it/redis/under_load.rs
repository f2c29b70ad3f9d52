//! The bound of R1 in its hardest case: with full queues (CONTRACT §8 R1, R3).
//!
//! A publisher never waits. Of a hundred subscribers some do not read for a while, and 48 are
//! revoked by bare keys. A node is stopped, cut off or both. Later than the lease after its key was
//! written, nothing may be delivered to a revoked session, and no publication of one may be
//! executed.
//!
//! # The test's own clock
//!
//! It stops with the machine: a thread that is not scheduled reads late, even if bytes came in
//! time, and a key may have been written before the test learns of it. The assertions depend on
//! neither:
//!
//! - The time of a revocation is when the test read Redis' answer to the last `SET`. Every `SET`
//!   was executed before that.
//! - The time of a read plays no part. At the bound the test asks the kernels how many bytes the
//!   node has written to each client: the bytes that the client has read, those in its socket and
//!   those in the node's socket ([`Audience::mark`]). Bytes behind this mark were written after the
//!   bound, regardless of when they are read. Bytes before it cannot be recalled (assumption (e) of
//!   the revocation protocol), even if a client that paused reads them much later. A frame whose data
//!   says that it was published after the bound is late in any case.
//! - A publication was executed after the tick before it was sent: a [`Witness`] subscribes at
//!   Redis itself and publishes ticks, and one connection gets both in the order of execution.
//!
//! So a test that is held up makes its mark later. It then sees fewer late bytes, never too many.
//! The difference is small: the test itself continues the node or repairs the link, which could
//! release late frames, only after the mark.
//!
//! [`Witness`]: curfew_tests::Witness
//!
//! # The allowance
//!
//! The machine can keep a thread of the node from running between its check and the system call,
//! which is no fault of Curfew. The test measures for how long the machine does that: it is the
//! longest time for which the reading thread, which never waits, did not look at its clients. The
//! bound is the lease plus this time, at least [`LEAST`] and at most [`MOST`]. If the machine stood
//! still for longer, the round proves nothing and is repeated. A signal may stop a node at that
//! very point, which is the exception of R1: one system call of at most 64 KiB for each of its
//! threads.
//!
//! # Rounds
//!
//! CI runs one round of each. For thirty, with a release build:
//!
//! ```text
//! cargo build --release -p curfew
//! CURFEW_BIN=$PWD/target/release/curfew CURFEW_TEST_ROUNDS=30 \
//!     cargo test -p curfew-tests --test it redis::under_load -- --nocapture
//! ```
//!
//! Each prints a line for each round, and the number that repeats the same choices
//! (`CURFEW_TEST_SEED`). It fails at the end if any round broke the bound.

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

/// Number of sessions on the node in trouble.
const SUBSCRIBERS: usize = 100;

/// Number of revoked users, who are the first ones.
const REVOKED: usize = 48;

/// One session in this many does not read for a while.
const PAUSED: usize = 2;

/// Interval between two clients that stop reading, so that at any time some queues are full and
/// some not.
const ONE_BY_ONE: Duration = Duration::from_millis(15);

/// Publications a second until the queues are full. The rate is low, so that no client that does
/// not read is closed for it before the others' queues are full.
const FILLING: u64 = 4_000;

/// Longest time in which nothing limits the publisher. With default sizes queues soon overflow,
/// and then their sessions are closed.
const LOOSE: Duration = Duration::from_millis(300);

/// Size of the data in every frame, in bytes.
const DATA: usize = 200;

/// Data in the node's queues at their default sizes, in bytes: the limit of four sessions.
const FULL: f64 = 4.0 * 1024.0 * 1024.0;

/// Data in the node's queues at large sizes, in bytes.
const VERY_FULL: f64 = 64.0 * 1024.0 * 1024.0;

/// Publications a second while the node delivers nothing. They wait for it in Redis.
const MEANWHILE: u64 = 5_000;

/// Smallest allowance for the scheduling of the node's threads, even if the measured time is
/// shorter.
const LEAST: Duration = Duration::from_millis(300);

/// Largest allowance. On a machine that stands still for longer, the test proves nothing.
const MOST: Duration = Duration::from_secs(1);

/// Metric of sessions that were closed for not reading.
const OVERFLOWED: &str = "curfew_connections_closed_total{code=\"4508\"}";

/// Deadline for a node to close or serve every session, at load.
const PATIENCE: Duration = Duration::from_secs(30);

/// Limit on the bytes of one system call (R1).
const ONE_WRITE: usize = 64 * 1024;

fn user(n: usize) -> String {
    format!("user-{n}")
}

/// A Redis that stores everything that a node does not read: publications to a stopped node arrive
/// when it continues.
async fn patient_redis() -> Redis {
    Redis::start_with(&["client-output-buffer-limit pubsub 0 0 0"]).await
}

/// Settings with default queues, or with queues so large that no session is closed for them.
fn settings(large_queues: bool) -> Settings {
    match large_queues {
        false => Settings::default(),
        true => Settings::default()
            .with("limits.outbound_bytes = 67108864")
            .with("limits.node_outbound_bytes = 0"),
    }
}

/// Subscribers on node 0 of a cluster of two, and a publisher on node 1 that never waits.
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

    /// Makes some clients stop reading, one by one, until this number of bytes waits for them in
    /// the node. Then removes the publisher's limit.
    async fn fill(&self, cluster: &Cluster, bytes: f64, dice: &mut Dice) {
        self.flood.pace(FILLING);
        for client in (0..SUBSCRIBERS).step_by(PAUSED) {
            self.audience.pause(client);
            sleep(ONE_BY_ONE).await;
        }
        let deadline = Moment::now() + PATIENCE;
        // On a busy machine publications come in bursts, and the first client with a full queue is
        // closed before the metric shows it. The others' queues are then nearly full.
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

    /// Makes paused clients read again, one after the other, at random times within `within`.
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

    /// Number of revoked clients that are still connected.
    fn remaining(&self) -> usize {
        let remaining = |client: &usize| !self.audience.is_ended(*client);
        (0..REVOKED).filter(remaining).count()
    }

    /// Waits until every revoked session has ended, the others are served or were closed for not
    /// reading, and new clients are served.
    async fn until_well(&self, cluster: &Cluster) {
        let since = Moment::now();
        eventually_within(PATIENCE, "the end of every revoked session", async || {
            (self.remaining() == 0).then_some(())
        })
        .await;
        for client in 0..REVOKED {
            let code = self.audience.closed(client);
            // A session that was reset in the middle of a frame has received no reason.
            assert!(
                matches!(code, None | Some(4403 | 4508)),
                "{}: {code:?}",
                user(client)
            );
        }
        for client in REVOKED..SUBSCRIBERS {
            eventually_within(PATIENCE, "somebody who is served", async || {
                let served = self.audience.has_newer(client, since);
                (served || self.audience.is_ended(client)).then_some(())
            })
            .await;
            let code = self.audience.closed(client);
            assert!(matches!(code, None | Some(4508)), "{client}: {code:?}");
        }
        // Until the node is back in touch, it refuses newcomers with 503.
        let Attempt::Open(client) = cluster[0].answer("newcomer").await else {
            panic!("the newcomer is refused");
        };
        let newcomer = Tape::of(*client);
        newcomer.send(json!({"type":"subscribe","id":0,"channel":"room:1"}));
        newcomer.until(json!({"type":"message"})).await;
    }

    /// Compares the bytes sent to revoked clients behind the mark with the allowance for `excepted`
    /// threads, which may have been stopped before a system call.
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

/// Writes the keys of these users. Returns the time at which Redis had all of them.
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

/// Waits until the bound for revocations that were written at `acknowledged`. It includes the time
/// for which the machine has stopped its threads so far. Then marks the written bytes.
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
