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

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use curfew_model::{Gate, boottime};
use curfew_telemetry::Metrics;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, Value, cmd};
use tokio::sync::oneshot;
use tokio::time;
use tracing::warn;

use crate::core::Core;
use crate::fault::Fault;

/// Bytes of publications that one run of the script carries out, give or take one publication:
/// Redis does nothing else meanwhile, and what has begun is not refused any more.
const RUN_BYTES: usize = 1024 * 1024;

/// Between two looks at whether a lease is over: a timer does not run while the machine is
/// suspended, and must not be late by more when it wakes.
const LOOK: Duration = Duration::from_millis(100);

/// Between two warnings that publications were refused.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// What Redis' refusal of a late run begins with.
const FENCED: &str = "FENCED";

/// What Redis says of a script that it does not know.
const NO_SCRIPT: &str = "NOSCRIPT";

/// A deadline after every other, in microseconds: a number that Lua can hold.
const NEVER: u64 = 1 << 53;

/// Carries publications out, unless it is later than `ARGV[1]`, in microseconds since 1970. Answers
/// with the time; or, where some were refused, with the place and the error of each.
///
/// Redis runs it as a script that writes, so a replica and a primary that is fenced refuse it whole.
fn script(cluster: bool) -> String {
    let (step, publish) = match cluster {
        false => (2, "redis.pcall('PUBLISH', ARGV[i], ARGV[i + 1])"),
        true => (1, "redis.pcall('SPUBLISH', KEYS[1], ARGV[i])"),
    };
    format!(
        "#!lua
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if now > tonumber(ARGV[1]) then
  return redis.error_reply('{FENCED} the lease of the node that has sent this is over')
end
local refused
for i = 2, #ARGV, {step} do
  local reply = {publish}
  if type(reply) == 'table' then
    refused = refused or {{}}
    refused[#refused + 1] = (i - 2) / {step}
    refused[#refused + 1] = reply
  end
end
return refused or now
"
    )
}

/// The fence at one server, as one connection knows it.
pub(crate) struct Fence {
    gate: Arc<Gate>,
    metrics: Arc<Metrics>,
    cluster: bool,
    script: String,
    /// What Redis calls the script.
    digest: String,
    /// Microseconds from [`boottime`] to Redis' time.
    ahead: AtomicI64,
    /// When it was last warned of publications that came late, of [`boottime`].
    warned_at: Mutex<Option<Duration>>,
}

/// A publication on its way to Redis, and whoever waits for its answer. When it is dropped, they are
/// told what is known of it.
pub(crate) struct Publication {
    /// The channel's name at Redis.
    channel: String,
    payload: Bytes,
    /// The end of the lease under which it was accepted, of [`boottime`].
    until: Duration,
    /// Whether Redis may have it.
    sent: bool,
    answer: Option<oneshot::Sender<Result<(), Fault>>>,
}

/// Publications that one run of the script carries out.
pub(crate) struct Run {
    publications: Vec<Publication>,
    until: Duration,
    bytes: usize,
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
        connection: &mut MultiplexedConnection,
        cluster: bool,
    ) -> Result<Self, Fault> {
        let mut fence = Self {
            gate: Arc::clone(&core.gate),
            metrics: Arc::clone(&core.metrics),
            cluster,
            script: script(cluster),
            digest: String::new(),
            ahead: AtomicI64::new(0),
            warned_at: Mutex::new(None),
        };
        fence.digest = fence.load(connection).await?;
        fence.read_clock(connection).await?;
        Ok(fence)
    }

    /// Has Redis know the script, under the digest that it answers with.
    pub(crate) async fn load(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<String, Fault> {
        let mut load = cmd("SCRIPT");
        load.arg("LOAD").arg(&self.script);
        Ok(load.query_async(connection).await?)
    }

    /// Reads the clock again, and puts the script into place again where it is gone.
    pub(crate) async fn probe(&self, connection: &mut MultiplexedConnection) -> Result<(), Fault> {
        match self.read_clock(connection).await {
            Err(fault) if fault.code() == Some(NO_SCRIPT) => {
                self.load(connection).await?;
                Ok(())
            }
            read => read,
        }
    }

    /// Asks Redis for the time in the way in which it is asked for publications.
    async fn read_clock(&self, connection: &mut MultiplexedConnection) -> Result<(), Fault> {
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
        let lease = self.gate.lease_until();
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
        let now = boottime();
        let mut warned_at = self.warned_at.lock();
        if warned_at.is_none_or(|at| now.saturating_sub(at) >= WARN_INTERVAL) {
            *warned_at = Some(now);
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
            match self.gate.lease_until() {
                Some(later) => until = later,
                None => return,
            }
        }
    }
}

impl Publication {
    pub(crate) fn new(
        channel: String,
        payload: Bytes,
        until: Duration,
    ) -> (Self, oneshot::Receiver<Result<(), Fault>>) {
        let (answer, answered) = oneshot::channel();
        let publication = Self {
            channel,
            payload,
            until,
            sent: false,
            answer: Some(answer),
        };
        (publication, answered)
    }

    /// It was not done, and now others are that came later.
    pub(crate) fn overtaken(mut self) {
        self.answer(Err(Fault::Overtaken));
    }

    fn is_given_up(&self) -> bool {
        self.answer.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// Once; later answers are passed over.
    fn answer(&mut self, result: Result<(), Fault>) {
        if let Some(answer) = self.answer.take() {
            // The receiver may have gone.
            drop(answer.send(result));
        }
    }
}

impl Drop for Publication {
    fn drop(&mut self) {
        let fault = match self.sent {
            false => Fault::NotConnected,
            true => Fault::Unanswered(Box::new(Fault::NotConnected)),
        };
        self.answer(Err(fault));
    }
}

impl Run {
    fn push(&mut self, publication: Publication) {
        self.bytes += publication.channel.len() + publication.payload.len();
        self.publications.push(publication);
    }

    /// When the lease ends under which it is sent.
    pub(crate) fn until(&self) -> Duration {
        self.until
    }

    /// Tells whoever still waits that it is not known what Redis makes of it.
    pub(crate) fn leave_open(&mut self, error: &RedisError) {
        self.answer_rest(|| Err(Fault::Unanswered(Box::new(Fault::Redis(error.clone())))));
    }

    /// As [`Run::leave_open`], since the lease is over.
    pub(crate) fn give_up(&mut self) {
        self.answer_rest(|| Err(Fault::Unanswered(Box::new(Fault::LeaseOver))));
    }

    /// Refuses those that Redis did not take: their places, each with its error.
    fn refuse(&mut self, refused: Vec<Value>) {
        let mut refused = refused.into_iter();
        while let (Some(place), Some(error)) = (refused.next(), refused.next()) {
            let place = match place {
                Value::Int(place) => usize::try_from(place).ok(),
                _ => None,
            };
            let publication = place.and_then(|place| self.publications.get_mut(place));
            if let (Some(publication), Value::ServerError(error)) = (publication, error) {
                publication.answer(Err(RedisError::from(error).into()));
            }
        }
    }

    fn answer_rest(&mut self, result: impl Fn() -> Result<(), Fault>) {
        for publication in &mut self.publications {
            publication.answer(result());
        }
    }

    pub(crate) fn into_publications(self) -> Vec<Publication> {
        self.publications
    }
}

fn microseconds(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use curfew_telemetry::Names;

    use super::*;

    const LEASE: Duration = Duration::from_secs(3);

    type Answer = oneshot::Receiver<Result<(), Fault>>;

    /// At a Redis whose clock is this far from [`boottime`].
    fn fence(cluster: bool, ahead: i64) -> Fence {
        let gate = Arc::new(Gate::shut_at_first());
        gate.open_until(boottime() + LEASE);
        Fence {
            gate,
            metrics: Metrics::new(&Names::default()),
            cluster,
            script: script(cluster),
            digest: "digest".to_owned(),
            ahead: AtomicI64::new(ahead),
            warned_at: Mutex::new(None),
        }
    }

    /// Publications in these channels, with so many bytes each, under a lease that lasts.
    fn publications(channels: &[&str], bytes: usize) -> (Vec<Publication>, Vec<Answer>) {
        let until = boottime() + LEASE * 2;
        channels
            .iter()
            .map(|channel| Publication::new((*channel).to_owned(), vec![b'x'; bytes].into(), until))
            .unzip()
    }

    /// The one run that these publications make.
    fn run(fence: &Fence, count: usize) -> (Run, Vec<Answer>) {
        let (publications, answers) = publications(&vec!["a"; count], 1);
        let mut runs = fence.runs(publications);
        assert_eq!(runs.len(), 1);
        (runs.remove(0), answers)
    }

    fn outcomes(answers: Vec<Answer>) -> Vec<String> {
        answers
            .into_iter()
            .map(|mut answer| match answer.try_recv().expect("an answer") {
                Ok(()) => "ok".to_owned(),
                Err(fault) => curfew_backend::BackendError::from(fault)
                    .error_type()
                    .to_owned(),
            })
            .collect()
    }

    fn error(code: &str) -> Value {
        let reply = format!("-{code} it is so\r\n");
        redis::parse_redis_value(reply.as_bytes()).expect("an error is a reply")
    }

    #[test]
    fn only_differences_of_redis_clock_count() {
        for hours in [-30_000_000, -1, 0, 1, 500_000] {
            let ahead = hours * 3_600_000_000_i64;
            let fence = fence(false, ahead);
            let until = boottime() + LEASE;
            assert_eq!(
                fence.deadline(until) - ahead,
                microseconds(until),
                "{hours}"
            );
        }
        assert_eq!(fence(false, i64::MAX / 2).deadline(Duration::MAX), i64::MAX);
    }

    #[test]
    fn what_is_late_before_it_is_sent_is_not_sent() {
        let fence = fence(false, 0);
        let (late, answer) = Publication::new("a".to_owned(), Bytes::new(), boottime());
        assert!(fence.runs(vec![late]).is_empty());
        assert_eq!(outcomes(vec![answer]), ["unavailable"]);
        let (publications, answers) = publications(&["a"], 1);
        fence.gate.shut();
        assert!(fence.runs(publications).is_empty());
        assert_eq!(outcomes(answers), ["unavailable"]);
    }

    #[test]
    fn the_deadline_is_that_of_the_older_lease() {
        let fence = fence(false, 0);
        let soon = boottime() + LEASE / 2;
        let (older, _answer) = Publication::new("a".to_owned(), Bytes::new(), soon);
        let (mut all, _answers) = publications(&["a", "a"], 1);
        all.insert(0, older);
        let runs = fence.runs(all);
        let until: Vec<_> = runs.iter().map(Run::until).collect();
        assert_eq!(until, [soon, fence.gate.lease_until().unwrap()]);
    }

    #[test]
    fn runs_are_of_a_channel_in_a_cluster_and_of_a_size_everywhere() {
        let channels = ["a", "b", "a", "a", "b"];
        let sizes = |cluster, bytes| {
            let (publications, _answers) = publications(&channels, bytes);
            let runs = fence(cluster, 0).runs(publications);
            let sizes = runs.iter().map(|run| run.publications.len());
            sizes.collect::<Vec<_>>()
        };
        assert_eq!(sizes(false, 1), [5]);
        assert_eq!(sizes(true, 1), [3, 2]);
        assert_eq!(sizes(false, RUN_BYTES / 2), [2, 2, 1]);
        assert_eq!(sizes(true, RUN_BYTES), [1, 1, 1, 1, 1]);
    }

    #[test]
    fn each_publication_has_the_answer_that_redis_gave() {
        let fence = fence(false, 0);
        let refused = Value::Array(vec![
            Value::Int(1),
            error("ERR"),
            Value::Int(3),
            error("OOM"),
        ]);
        for (reply, expect) in [
            (Value::Int(1), ["ok"; 4]),
            (refused, ["ok", "unavailable", "ok", "unavailable"]),
            (error("FENCED"), ["unknown_outcome"; 4]),
            (error("READONLY"), ["unavailable"; 4]),
            (error("OOM"), ["unavailable"; 4]),
            (error("MOVED"), ["unavailable"; 4]),
            // It may have ended half way.
            (error("ERR"), ["unknown_outcome"; 4]),
            (Value::Okay, ["unknown_outcome"; 4]),
        ] {
            let (mut run, answers) = run(&fence, 4);
            assert_eq!(fence.answer(&mut run, reply.clone()), Ran::Answered);
            assert_eq!(outcomes(answers), expect, "{reply:?}");
        }
        assert_eq!(fence.metrics.broker_messages_fenced.get(), 4);
    }

    #[test]
    fn what_was_not_done_for_want_of_the_script_can_be_sent_again() {
        let fence = fence(false, 0);
        let (mut run, answers) = run(&fence, 2);
        assert_eq!(fence.answer(&mut run, error("NOSCRIPT")), Ran::NoScript);
        let mut again = fence.runs(run.into_publications());
        fence.answer(&mut again[0], Value::Int(1));
        assert_eq!(outcomes(answers), ["ok"; 2]);
    }

    #[test]
    fn whoever_waits_is_told_what_is_known_when_a_connection_goes() {
        let fence = fence(false, 0);
        let (unsent, answers) = publications(&["a"; 2], 1);
        drop(unsent);
        assert_eq!(outcomes(answers), ["unavailable"; 2]);
        let (sent, answers) = run(&fence, 2);
        drop(sent);
        assert_eq!(outcomes(answers), ["unknown_outcome"; 2]);
        let (mut timed_out, answers) = run(&fence, 2);
        timed_out.leave_open(&std::io::Error::from(std::io::ErrorKind::TimedOut).into());
        assert_eq!(outcomes(answers), ["unknown_outcome"; 2]);
    }

    #[tokio::test]
    async fn a_lease_is_over_when_it_ends_and_is_not_renewed() {
        let fence = fence(false, 0);
        let soon = boottime() + Duration::from_millis(20);
        let first = time::timeout(LEASE / 10, fence.lease_over(soon));
        assert!(first.await.is_err(), "the gate is open");
        fence.gate.shut();
        fence.lease_over(soon).await;
    }
}
