//! The fence: Redis refuses a publication that it executes after the end of the lease under which
//! this node accepted it.
//!
//! A node that was paused, or whose bytes are delayed, cannot take back a publication that it has
//! sent. The publishing session may have been revoked meanwhile, and only the server that executes
//! the publication can still refuse it. Publications are therefore sent as a call of a script,
//! which first compares Redis' clock with a deadline.
//!
//! The deadline is the end of the lease by Redis' clock. This node reads Redis' clock every second.
//! The deadline is the time in the latest answer, plus the part of the lease that was left when the
//! answer arrived. The answer took a while to arrive, so the deadline is early rather than late.
//! Only differences of Redis' clock count, not its absolute value. Redis' clock must not be set
//! back.

mod publication;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use curfew_model::{DeliveryLease, Position, Repeats, boottime};
use parking_lot::Mutex;
use redis::{Cmd, RedisError, Value, cmd, pipe};
use tokio::time;
use tracing::warn;

use crate::connect::Connection;
use crate::core::Core;
use crate::fault::Fault;
use crate::metrics::RedisMetrics;
use crate::streams::{APPEND, AppendCall, Appended};
pub(crate) use publication::{Publication, Run};

/// Total size of publications, in bytes, at which a run of the script is full. The last publication
/// of a run may exceed this size. The size is bounded because Redis does nothing else during a run,
/// and does not stop a run that has begun.
const RUN_BYTES: usize = 1024 * 1024;

/// Longest sleep between two checks of a lease's end. A timer stops while the machine is suspended,
/// so a check may be late by this much after the machine resumes.
const LOOK: Duration = Duration::from_millis(100);

/// The first word of Redis' refusal of a command that arrives after its deadline.
pub(crate) const FENCED: &str = "FENCED";

/// The first word of Redis' answer to a call of an unknown script.
const NO_SCRIPT: &str = "NOSCRIPT";

/// The first word of the script's refusal because of a missing right. The script then has had no
/// effect.
const NO_RIGHT: &str = "NORIGHT";

/// The text that Redis adds to an error of a command within a script.
const WITHIN_SCRIPT: &str = "@user_script";

/// A deadline that never passes, in microseconds. Lua represents integers up to this number
/// exactly.
const NEVER: u64 = 1 << 53;

/// The script that publishes, unless the deadline has passed. The answer is Redis' time in
/// microseconds since 1970. If Redis refused some publications, the answer is instead a list with
/// the index and the error of each refused publication.
///
/// Redis treats the script as one that writes, so a replica or a fenced primary refuses the whole
/// call.
const SCRIPT: &str = include_str!("fence/publish.lua");

/// The fence at one server, for one connection.
#[derive(Debug)]
pub(crate) struct Fence {
    lease: Arc<DeliveryLease>,
    /// The metrics of refused publications.
    metrics: Arc<RedisMetrics>,
    /// True for a cluster, where a run belongs to one channel.
    cluster: bool,
    digests: Digests,
    /// The replication id of the server, from the latest answer of a script; empty before the first
    /// answer. A failover changes the id and ends this connection.
    server_id: Mutex<String>,
    /// The offset from [`boottime`] to Redis' time, in microseconds.
    ahead: AtomicI64,
    /// Limits the warnings about late publications.
    bursts: Repeats,
}

/// The digests by which Redis knows the scripts.
#[derive(Debug, Default)]
pub(crate) struct Digests {
    publish: String,
    append: String,
}

/// The result of a run of the script.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ran {
    /// Each publication has its answer.
    Answered,
    /// Redis does not know the script, and has done nothing.
    NoScript,
}

impl Fence {
    /// Creates a fence: loads the scripts and reads Redis' clock.
    pub(crate) async fn raise(
        core: &Core,
        connection: &mut Connection,
        cluster: bool,
    ) -> Result<Self, Fault> {
        let mut fence = Self {
            lease: Arc::clone(&core.lease),
            metrics: Arc::clone(&core.metrics),
            cluster,
            digests: Digests::default(),
            server_id: Mutex::default(),
            ahead: AtomicI64::new(0),
            bursts: Repeats::default(),
        };
        fence.digests = fence.load(connection).await?;
        fence.read_clock(connection).await?;
        Ok(fence)
    }

    /// Loads the scripts into Redis.
    pub(crate) async fn load(&self, connection: &mut Connection) -> Result<Digests, Fault> {
        let mut loads = pipe();
        for script in [SCRIPT, APPEND] {
            loads.cmd("SCRIPT").arg("LOAD").arg(script);
        }
        let (publish, append) = loads.query_async(connection).await?;
        Ok(Digests { publish, append })
    }

    /// The replication id of the server; empty if it is not known.
    pub(crate) fn server_id(&self) -> String {
        self.server_id.lock().clone()
    }

    /// Reads Redis' clock again. If Redis has forgotten the script that reads the clock, loads the
    /// scripts again instead.
    pub(crate) async fn probe(&self, connection: &mut Connection) -> Result<(), Fault> {
        match self.read_clock(connection).await {
            Err(fault) if fault.code() == Some(NO_SCRIPT) => {
                self.load(connection).await?;
                Ok(())
            }
            read => read,
        }
    }

    /// Reads Redis' clock by a run of the script without publications.
    async fn read_clock(&self, connection: &mut Connection) -> Result<(), Fault> {
        let mut ask = cmd("EVALSHA");
        ask.arg(&self.digests.publish).arg(0).arg(NEVER);
        let theirs: i64 = ask.query_async(connection).await?;
        // Redis read its clock before this moment, so the offset is never too large.
        self.ahead
            .store(theirs - microseconds(boottime()), Ordering::Relaxed);
        Ok(())
    }

    /// The time `until` by Redis' clock, in microseconds since 1970.
    fn deadline(&self, until: Duration) -> i64 {
        microseconds(until).saturating_add(self.ahead.load(Ordering::Relaxed))
    }

    /// Groups publications into runs. The order is kept within each channel. Without a cluster, the
    /// order is also kept among all publications of channels without a stream. Publications whose
    /// lease is over are refused, so call this function right before the runs are sent.
    pub(crate) fn runs(&self, publications: Vec<Publication>) -> Vec<Run> {
        let lease = self.lease.held_until();
        let now = boottime();
        let mut runs: Vec<Run> = Vec::new();
        // Publications of a channel with a stream form separate runs. In a cluster, publications of
        // every channel form separate runs.
        let mut of_channel: HashMap<String, usize> = HashMap::new();
        let mut last_mixed = None;
        for mut publication in publications {
            // A publication whose publisher has given up is left out.
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
            let is_alone = self.cluster || publication.entry.is_some();
            let last = match is_alone {
                false => last_mixed,
                true => of_channel.get(&publication.channel).copied(),
            };
            let until = publication.until;
            match last.map(|last| &mut runs[last]) {
                Some(run)
                    if run.until == until && run.bytes < RUN_BYTES && run.takes(&publication) =>
                {
                    run.push(publication);
                }
                _ => {
                    match is_alone {
                        false => last_mixed = Some(runs.len()),
                        true => {
                            of_channel.insert(publication.channel.clone(), runs.len());
                        }
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

    /// The command that executes a run.
    pub(crate) fn command(&self, run: &Run) -> Cmd {
        // Bytes for the digest, the deadline and the name of the command.
        const HEAD_BYTES: usize = 128;
        let per_publication = if self.cluster { 1 } else { 2 };
        let arguments = 5 + run.publications.len() * per_publication;
        let mut command = Cmd::with_capacity(arguments, HEAD_BYTES + run.bytes);
        command.arg("EVALSHA");
        if let Some(first) = run.publications.first()
            && let Some(entry) = &first.entry
        {
            command.arg(&self.digests.append);
            let call = AppendCall {
                entry,
                channel: &first.channel,
                server_id: &self.server_id(),
                deadline: self.deadline(run.until),
                cluster: self.cluster,
            };
            call.write(run.entries(), &mut command);
            return command;
        }
        command.arg(&self.digests.publish);
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

    /// Answers the publications of a run from Redis' reply.
    pub(crate) fn answer(&self, run: &mut Run, reply: Value) -> Ran {
        match reply {
            Value::Int(_) if !run.appends() => run.answer_rest(|| Ok(None)),
            Value::Array(refused) if !run.appends() => {
                run.refuse(refused);
                run.answer_rest(|| Ok(None));
            }
            Value::Array(reply) => match Appended::read(reply) {
                Some(appended) => {
                    *self.server_id.lock() = appended.server;
                    run.answer_each(appended.positions);
                    run.answer_rest(unexpected);
                }
                None => run.answer_rest(unexpected),
            },
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
                    Some(NO_RIGHT) => run.answer_rest(|| Err(Fault::Redis(error.clone()))),
                    // Redis also gives these answers for a script that failed halfway, so the
                    // outcome is unknown.
                    Some("ERR" | "WRONGTYPE") | None => run.leave_open(&error),
                    Some(_) if is_within_script(&error) => run.leave_open(&error),
                    // Redis returns every other error before it runs the script.
                    Some(_) => run.answer_rest(|| Err(Fault::Redis(error.clone()))),
                }
            }
            _ => run.answer_rest(unexpected),
        }
        Ran::Answered
    }

    /// Counts refused publications, and logs one line for each burst.
    fn note_fenced(&self, count: usize) {
        let more = u64::try_from(count).unwrap_or(u64::MAX);
        self.metrics.broker_messages_fenced.inc_by(more);
        if self.bursts.note().is_some() {
            warn!(
                publications = count,
                "redis refused publications because they arrived after the node's lease had ended; further refusals within a minute are not logged"
            );
        }
    }

    /// The deadline of a command that is sent now, by Redis' clock. Redis refuses the command after
    /// the deadline. The deadline is the end of the lease, but at most `longest` from now; `None`
    /// without a lease.
    pub(crate) fn deadline_within(&self, longest: Duration) -> Option<i64> {
        let lease = self.lease.held_until()?;
        Some(self.deadline(lease.min(boottime() + longest)))
    }

    /// Resolves once the lease is over. `until` is the end of the lease as the caller knows it; a
    /// renewal of the lease prolongs the wait.
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

/// True if the error comes from a command within a script. The script may have done a part of its
/// work.
fn is_within_script(error: &RedisError) -> bool {
    error
        .detail()
        .is_some_and(|detail| detail.contains(WITHIN_SCRIPT))
}

/// The answer to publications when Redis' reply is malformed.
fn unexpected() -> Result<Option<Position>, Fault> {
    Err(Fault::Unanswered(Box::new(Fault::Unexpected("EVALSHA"))))
}

/// A time in whole microseconds, the unit of the deadline.
fn microseconds(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
