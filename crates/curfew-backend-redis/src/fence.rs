//! The fence: Redis refuses a publication that it comes to after the lease under which this node
//! accepted it.
//!
//! A node that was stopped, or whose bytes are held up on their way, cannot take back what it has
//! sent: the session that published may have been revoked meanwhile, and only the server that
//! executes it can still say no. So publications go to Redis in a script, which compares its own
//! clock with a deadline first. The deadline is the end of the lease by Redis' clock: `TIME` as last
//! read, each second, and what was left of the lease when the answer came. That answer was under way
//! for a while, so the deadline is early rather than late. Only differences of Redis' clock count,
//! whatever it shows; it must not be set back.

mod publication;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use curfew_model::{DeliveryLease, Repeats, boottime};
use redis::{Cmd, RedisError, Value, cmd};
use tokio::time;
use tracing::warn;

use crate::connect::Connection;
use crate::core::Core;
use crate::fault::Fault;
use crate::metrics::RedisMetrics;
pub(crate) use publication::{Publication, Run};

/// Bytes of publications that one run of the script carries out, give or take one publication:
/// Redis does nothing else meanwhile, and what has begun is not refused any more.
const RUN_BYTES: usize = 1024 * 1024;

/// Between two looks at whether a lease is over: a timer does not run while the machine is
/// suspended, and must not be late by more when it wakes.
const LOOK: Duration = Duration::from_millis(100);

/// What Redis' refusal of a late run begins with.
const FENCED: &str = "FENCED";

/// What Redis says of a script that it does not know.
const NO_SCRIPT: &str = "NOSCRIPT";

/// A deadline after every other, in microseconds: a number that Lua can hold.
const NEVER: u64 = 1 << 53;

/// Carries publications out, unless it is later than the deadline. Answers with the time, in
/// microseconds since 1970; or, where some were refused, with the place and the error of each.
///
/// Redis runs it as a script that writes, so a replica and a primary that is fenced refuse it whole.
const SCRIPT: &str = include_str!("fence/publish.lua");

/// The fence at one server, as one connection knows it.
pub(crate) struct Fence {
    lease: Arc<DeliveryLease>,
    metrics: Arc<RedisMetrics>,
    cluster: bool,
    /// What Redis calls the script.
    digest: String,
    /// Microseconds from [`boottime`] to Redis' time.
    ahead: AtomicI64,
    /// When it was last warned of publications that came late, of [`boottime`].
    bursts: Repeats,
}

/// What became of a run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ran {
    /// Each publication has its answer.
    Answered,
    /// Redis does not know the script: nothing was done.
    NoScript,
}

impl Fence {
    /// Puts the script into place, and reads the clock.
    pub(crate) async fn raise(
        core: &Core,
        connection: &mut Connection,
        cluster: bool,
    ) -> Result<Self, Fault> {
        let mut fence = Self {
            lease: Arc::clone(&core.lease),
            metrics: Arc::clone(&core.metrics),
            cluster,
            digest: String::new(),
            ahead: AtomicI64::new(0),
            bursts: Repeats::default(),
        };
        fence.digest = fence.load(connection).await?;
        fence.read_clock(connection).await?;
        Ok(fence)
    }

    /// Has Redis know the script, under the digest that it answers with.
    pub(crate) async fn load(&self, connection: &mut Connection) -> Result<String, Fault> {
        let mut load = cmd("SCRIPT");
        load.arg("LOAD").arg(SCRIPT);
        Ok(load.query_async(connection).await?)
    }

    /// Reads the clock again, and puts the script into place again where it is gone.
    pub(crate) async fn probe(&self, connection: &mut Connection) -> Result<(), Fault> {
        match self.read_clock(connection).await {
            Err(fault) if fault.code() == Some(NO_SCRIPT) => {
                self.load(connection).await?;
                Ok(())
            }
            read => read,
        }
    }

    /// Asks Redis for the time in the way in which it is asked for publications.
    async fn read_clock(&self, connection: &mut Connection) -> Result<(), Fault> {
        let mut ask = cmd("EVALSHA");
        ask.arg(&self.digest).arg(0).arg(NEVER);
        let theirs: i64 = ask.query_async(connection).await?;
        // It was that time at Redis at some moment before this one.
        self.ahead
            .store(theirs - microseconds(boottime()), Ordering::Relaxed);
        Ok(())
    }

    /// The moment `until` by Redis' clock, in microseconds since 1970.
    fn deadline(&self, until: Duration) -> i64 {
        microseconds(until).saturating_add(self.ahead.load(Ordering::Relaxed))
    }

    /// Sorts publications into runs, in their order; in a cluster, in the order within each
    /// channel. What is late already is refused. To be called at the last moment.
    pub(crate) fn runs(&self, publications: Vec<Publication>) -> Vec<Run> {
        let lease = self.lease.held_until();
        let now = boottime();
        let mut runs: Vec<Run> = Vec::new();
        let mut of_channel: HashMap<String, usize> = HashMap::new();
        for mut publication in publications {
            // Whoever gave up before it was sent need not be served.
            if publication.is_given_up() {
                continue;
            }
            match lease {
                Some(lease) if publication.until > now => {
                    publication.until = publication.until.min(lease);
                }
                _ => {
                    publication.answer(Err(Fault::LeaseOver));
                    continue;
                }
            }
            publication.sent = true;
            let last = match self.cluster {
                false => runs.len().checked_sub(1),
                true => of_channel.get(&publication.channel).copied(),
            };
            let until = publication.until;
            match last.map(|last| &mut runs[last]) {
                Some(run) if run.until == until && run.bytes < RUN_BYTES => run.push(publication),
                _ => {
                    if self.cluster {
                        of_channel.insert(publication.channel.clone(), runs.len());
                    }
                    let mut run = Run {
                        publications: Vec::new(),
                        until,
                        bytes: 0,
                    };
                    run.push(publication);
                    runs.push(run);
                }
            }
        }
        runs
    }

    /// What Redis is asked to carry out a run.
    pub(crate) fn command(&self, run: &Run) -> Cmd {
        // The digest, the deadline and their like.
        const HEAD_BYTES: usize = 128;
        let per_publication = if self.cluster { 1 } else { 2 };
        let arguments = 5 + run.publications.len() * per_publication;
        let mut command = Cmd::with_capacity(arguments, HEAD_BYTES + run.bytes);
        command.arg("EVALSHA").arg(&self.digest);
        match run.publications.first() {
            Some(first) if self.cluster => command.arg(1).arg(&first.channel),
            _ => command.arg(0),
        };
        command.arg(self.deadline(run.until));
        for publication in &run.publications {
            if !self.cluster {
                command.arg(&publication.channel);
            }
            command.arg(&publication.payload[..]);
        }
        command
    }

    /// Answers a run's publications by what Redis said.
    pub(crate) fn answer(&self, run: &mut Run, reply: Value) -> Ran {
        match reply {
            Value::Int(_) => run.answer_rest(|| Ok(())),
            Value::Array(refused) => {
                run.refuse(refused);
                run.answer_rest(|| Ok(()));
            }
            Value::ServerError(error) => {
                let error = RedisError::from(error);
                match error.code() {
                    Some(NO_SCRIPT) => {
                        for publication in &mut run.publications {
                            publication.sent = false;
                        }
                        return Ran::NoScript;
                    }
                    Some(FENCED) => {
                        self.note_fenced(run.publications.len());
                        run.answer_rest(|| Err(Fault::Fenced));
                    }
                    // Also said of a script that ended half way.
                    Some("ERR") | None => run.leave_open(&error),
                    // Said before a script is run.
                    Some(_) => run.answer_rest(|| Err(Fault::Redis(error.clone()))),
                }
            }
            _ => run.answer_rest(|| Err(Fault::Unanswered(Box::new(Fault::Unexpected("EVALSHA"))))),
        }
        Ran::Answered
    }

    /// One burst is one line of the log.
    fn note_fenced(&self, count: usize) {
        let more = u64::try_from(count).unwrap_or(u64::MAX);
        self.metrics.broker_messages_fenced.inc_by(more);
        if self.bursts.note().is_some() {
            warn!(
                publications = count,
                "redis was reached after this node's lease and refused publications; there may be more in the next minute"
            );
        }
    }

    /// Resolves when a lease that ended at `until` is over and was not renewed.
    pub(crate) async fn lease_over(&self, mut until: Duration) {
        loop {
            let left = until.saturating_sub(boottime());
            if !left.is_zero() {
                time::sleep(left.min(LOOK)).await;
                continue;
            }
            match self.lease.held_until() {
                Some(later) => until = later,
                None => return,
            }
        }
    }
}

fn microseconds(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
