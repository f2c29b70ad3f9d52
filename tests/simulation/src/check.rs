//! Comparison of a run with the gateway's promises (README, "What is guaranteed"; CONTRACT §8).
//!
//! The check uses the bytes written to sockets, the commands that Redis executed and the keys that
//! operators wrote. It never uses the state of a node.

mod effects;
mod liveness;
mod lobby;
mod presence;
mod streams;
mod timeline;
mod vault;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use curfew_model::SessionId;

use crate::node::{GRACE, LEASE, LEEWAY};
use crate::record::{Ban, Record, Target, Token, Wire};
use crate::redis::Effect;
use crate::world::ConnectionId;

pub use liveness::{begin_probe, liveness, records};
pub use lobby::{lobby, notes};
use timeline::{Kind, Line, Timeline};

/// A promise that a run has broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The name of the promise in the README's table: `R1` to `R8`, a property of the model, or a
    /// word such as `expiry`.
    pub promise: &'static str,
    /// Time of the violation.
    pub at: Duration,
    /// A description of the violation.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:?}: {}", self.promise, self.at, self.what)
    }
}

/// Time within which a running node with a working link to Redis must end a revoked session.
const PROMPTLY: Duration = Duration::from_millis(700);

/// Shortest stop of its process that a node must notice: a tenth of the lease, plus some time
/// because the node looks for stops at intervals.
const NOTICED: Duration = Duration::from_millis(400);

/// Longest time for which a push is in flight on a link without faults.
const ON_ITS_WAY: Duration = Duration::from_millis(60);

/// Time within which a node must notice that its wall clock was set.
const COMPARED: Duration = Duration::from_secs(4);

/// Longest time between the end of `backend.grace` and the end of a session.
const CLOSED: Duration = Duration::from_secs(2);

/// Largest difference between clocks that nodes tolerate.
const MAX_CLOCK_SKEW_MICROS: u64 = 30_000_000;

/// The session of a connection; `None` until its client has received the session's id.
pub fn session_of(wire: &Wire) -> Option<SessionId> {
    Timeline::of(wire).session
}

/// Returns the events of a run that the promises exclude.
pub fn safety(record: &Record) -> Vec<Violation> {
    let lines: BTreeMap<ConnectionId, Timeline<'_>> = record
        .wires
        .iter()
        .map(|(id, wire)| (*id, Timeline::of(wire)))
        .collect();
    let check = Check {
        record,
        lines,
        beats: beats(record),
    };
    let mut found = Vec::new();
    for timeline in check.lines.values() {
        for line in &timeline.lines {
            check.line(timeline, line, &mut found);
        }
        check.order(timeline, &mut found);
        check.grace(timeline, &mut found);
    }
    check.publications(&mut found);
    check.streams(&mut found);
    check.presence(&mut found);
    check.vault(&mut found);
    check.receipts(&mut found);
    check.known(&mut found);
    found
}

/// The times at which Redis executed the heartbeats of each process.
fn beats(record: &Record) -> BTreeMap<usize, Vec<Duration>> {
    let mut beats: BTreeMap<usize, Vec<Duration>> = BTreeMap::new();
    for (at, node, effect) in &record.effects {
        if let (Some(node), Effect::Set { key, .. }) = (node, effect)
            && key.starts_with(b"curfew:hb:")
        {
            beats.entry(*node).or_default().push(*at);
        }
    }
    beats
}

struct Check<'a> {
    record: &'a Record,
    lines: BTreeMap<ConnectionId, Timeline<'a>>,
    beats: BTreeMap<usize, Vec<Duration>>,
}

impl Check<'_> {
    fn line(&self, timeline: &Timeline<'_>, line: &Line<'_>, found: &mut Vec<Violation>) {
        let wire = timeline.wire;
        let told = || {
            format!(
                "client {} of process {}: {}",
                wire.client,
                wire.node,
                line.shown()
            )
        };
        let mut report = |promise, why: String| {
            found.push(Violation {
                promise,
                at: line.at,
                what: format!("{why}: {}", told()),
            });
        };
        if line.kind == Kind::Refused {
            self.refusal(timeline, line, &mut report);
        }
        if !line.kind.is_access() {
            return;
        }
        // R2: a delivery requires a heartbeat that Redis has executed less than a lease before.
        let beats = self.beats.get(&wire.node).map_or(&[][..], Vec::as_slice);
        let last = beats.partition_point(|beat| *beat <= line.at);
        let last = beats[..last].last();
        let leased = last.is_some_and(|beat| line.at < *beat + LEASE);
        if !leased {
            report(
                "R2",
                "Redis executed no heartbeat of the process within the lease".to_owned(),
            );
        }
        let tokens = timeline.in_force(line.at);
        if let Some(token) = tokens.last() {
            self.expiry(timeline, line, tokens, token, &mut report);
        }
        for ban in &self.record.bans {
            let Some((from, until)) = self.in_force(ban, timeline, tokens, line.at) else {
                continue;
            };
            if line.at >= until {
                continue;
            }
            if line.at > from + LEASE {
                let why = format!("revoked at {from:?} by {}", shown(&ban.key));
                report("R1", why);
                return;
            }
            let first = timeline.wire.tokens.first();
            if line.kind == Kind::Connected && first.is_some_and(|token| token.sent_at > from) {
                report("R3", format!("revoked at {from:?} by {}", shown(&ban.key)));
                return;
            }
            if let Some(by) = self.promptly(wire.node, from)
                && line.at > by
            {
                let why = format!(
                    "revoked at {from:?}, known by {by:?}, by {}",
                    shown(&ban.key)
                );
                report("R1, promptly", why);
                return;
            }
        }
    }

    /// The period in which `ban` covers a session with `tokens`, by the settings in force at `at`
    /// on the session's node; `None` if the ban does not cover the session by `at`.
    fn in_force(
        &self,
        ban: &Ban,
        timeline: &Timeline<'_>,
        tokens: &[Token],
        at: Duration,
    ) -> Option<(Duration, Duration)> {
        let covers = |token: &Token| {
            let named = match &ban.target {
                Target::User(user) => token.user == *user,
                Target::Tenant(tenant) => token.tenant == *tenant,
                Target::Token(id) => token.id == *id,
                Target::Session(session) => timeline.session == Some(*session),
                Target::All => true,
            };
            named && ban.before.is_none_or(|before| token.issued_at <= before)
        };
        if tokens.is_empty() || !tokens.iter().all(covers) {
            return None;
        }
        let mut from = ban.at;
        let mut until = ban.lifted_at.unwrap_or(Duration::MAX);
        for (lost_at, data_of) in &self.record.losses {
            if ban.at <= *lost_at && ban.at > *data_of {
                until = until.min(*lost_at);
            }
        }
        if matches!(ban.target, Target::Tenant(_)) {
            let node = timeline.wire.node;
            let mut settings = self
                .record
                .reloads
                .iter()
                .filter(|reload| reload.node == node);
            let current = settings.rfind(|reload| reload.at <= at)?;
            if !current.tenants {
                return None;
            }
            from = from.max(current.settled_at?);
        }
        (from <= at).then_some((from, until))
    }

    /// The first ban that covers a session with `tokens` at `at`, and the time at which it began, if
    /// `late` returns true for that time.
    fn covering(
        &self,
        timeline: &Timeline<'_>,
        tokens: &[Token],
        at: Duration,
        late: impl Fn(Duration) -> bool,
    ) -> Option<(Duration, &Ban)> {
        self.record.bans.iter().find_map(|ban| {
            let (from, until) = self.in_force(ban, timeline, tokens, at)?;
            (at < until && late(from)).then_some((from, ban))
        })
    }

    /// The time by which a running node must have ended a session that was revoked at `from`;
    /// `None` if trouble with the node's link to Redis may have delayed the revocation.
    fn promptly(&self, node: usize, from: Duration) -> Option<Duration> {
        let mut by = from + PROMPTLY;
        let concerned = |of: Option<usize>| of.is_none_or(|of| of == node);
        for trouble in self
            .record
            .troubles
            .iter()
            .filter(|trouble| trouble.stopped)
        {
            if !concerned(trouble.node) || trouble.from > by || trouble.until < from {
                continue;
            }
            let noticed = trouble.until - trouble.from >= NOTICED;
            by = if noticed && trouble.until >= from + ON_ITS_WAY {
                // After a stop that it has noticed, the node must write nothing more to the
                // session. Its first write may follow in the instant at which the stop ends, so
                // `by` lies just before that instant.
                trouble.until.saturating_sub(Duration::from_nanos(1))
            } else {
                trouble.until + PROMPTLY
            };
        }
        // A link that had trouble shortly before may have delayed earlier bytes.
        let since = from.saturating_sub(Duration::from_secs(5));
        let bad = self.record.troubles.iter().any(|trouble| {
            !trouble.stopped
                && concerned(trouble.node)
                && trouble.from <= by
                && trouble.until >= since
        });
        (!bad).then_some(by)
    }

    /// Finds deliveries after the end of every token in force, by the wall clock or by elapsed
    /// time.
    fn expiry(
        &self,
        timeline: &Timeline<'_>,
        line: &Line<'_>,
        tokens: &[Token],
        last: &Token,
        report: &mut impl FnMut(&'static str, String),
    ) {
        let node = timeline.wire.node;
        let ends = tokens
            .iter()
            .map(|token| token.expires_at)
            .max()
            .unwrap_or_default();
        let ends = Duration::from_secs(ends) + LEEWAY;
        let wall = self.wall(node, line.at);
        if wall >= ends + Duration::from_secs(1) {
            report(
                "expiry",
                format!("the token ended at {ends:?}, but the node's clock shows {wall:?}"),
            );
        }
        // The longest lifetime that the token could have left when it was accepted. It is computed
        // with the earliest time that the node's clock has shown since the token was sent.
        let accepted_by = timeline.accepted(last).unwrap_or(line.at);
        let clocks = self.record.clocks.iter().filter(|(of, ..)| *of == node);
        let set = clocks
            .map(|(_, at, _)| *at)
            .filter(|at| (last.sent_at..=accepted_by).contains(at));
        let earliest = set
            .chain([last.sent_at])
            .map(|at| self.wall(node, at))
            .min()
            .unwrap_or_default();
        let left = ends.saturating_sub(earliest);
        if line.at > accepted_by + left + Duration::from_secs(1) {
            report(
                "expiry",
                format!("the token had only {left:?} left at {accepted_by:?}"),
            );
        }
    }

    /// The time that a node's wall clock shows at `at`.
    fn wall(&self, node: usize, at: Duration) -> Duration {
        let clocks = self.record.clocks.iter();
        let mut of_node = clocks.filter(|(of, set, _)| *of == node && *set <= at);
        let ahead = of_node.next_back().map_or(0, |(_, _, ahead)| *ahead);
        let right = crate::machine::EPOCH + at;
        match u64::try_from(ahead) {
            Ok(ahead) => right + Duration::from_micros(ahead),
            Err(_) => right.saturating_sub(Duration::from_micros(ahead.unsigned_abs())),
        }
    }

    /// R8: a node refuses a token only for a fault of the token itself.
    fn refusal(
        &self,
        timeline: &Timeline<'_>,
        line: &Line<'_>,
        report: &mut impl FnMut(&'static str, String),
    ) {
        let Some(token) = timeline.shown(line.at) else {
            return;
        };
        if line.is_revoked() {
            let named = |ban: &Ban| {
                let covers = self
                    .in_force(ban, timeline, std::slice::from_ref(token), line.at)
                    .is_some();
                // The settings may have changed shortly before, so a ban of the tenant counts under
                // any settings.
                covers || matches!(&ban.target, Target::Tenant(tenant) if *tenant == token.tenant)
            };
            if !self.record.bans.iter().any(named) {
                report("R8", "no revocation covers the token".to_owned());
            }
            return;
        }
        let node = timeline.wire.node;
        let since = line.at.saturating_sub(COMPARED);
        let clocks = self.record.clocks.iter().filter(|(of, ..)| *of == node);
        let steady = !clocks
            .clone()
            .any(|(_, at, _)| (since..=line.at).contains(at));
        let skew = self
            .wall(node, line.at)
            .abs_diff(crate::machine::EPOCH + line.at);
        let skewed = skew > Duration::from_micros(MAX_CLOCK_SKEW_MICROS + 3_000_000);
        let right = skew < Duration::from_millis(200);
        let right_now = (crate::machine::EPOCH + line.at).as_secs();
        let good = (token.issued_at..token.expires_at).contains(&right_now);
        let bad = self.record.troubles.iter().any(|trouble| {
            trouble.node.is_none_or(|of| of == node)
                && trouble.from <= line.at
                && trouble.until >= since
        });
        if good && steady && (right || (skewed && !bad)) {
            report("R8", "the node refused a valid token".to_owned());
        }
    }

    /// R2: a session is closed once its node was disconnected for `backend.grace`.
    fn grace(&self, timeline: &Timeline<'_>, found: &mut Vec<Violation>) {
        let node = timeline.wire.node;
        let beats = self.beats.get(&node).map_or(&[][..], Vec::as_slice);
        let ends = self.record.crashed.get(&node).copied();
        let next = beats.iter().skip(1).copied();
        let next = next.chain([ends.unwrap_or(self.record.ended_at)]);
        for (beat, next) in beats.iter().zip(next) {
            let by = *beat + LEASE + GRACE + CLOSED;
            let stood_still = self.record.troubles.iter().any(|trouble| {
                trouble.stopped
                    && trouble.node.is_none_or(|of| of == node)
                    && trouble.from <= by
                    && trouble.until >= *beat
            });
            let open = timeline.opened().is_some_and(|opened| opened <= *beat);
            let ended = timeline.wire.ended_at.is_some_and(|ended| ended <= by);
            if by < next && open && !ended && !stood_still {
                found.push(Violation {
                    promise: "R2, grace",
                    at: by,
                    what: format!(
                        "client {} is not closed, although process {node} sent its last heartbeat at {beat:?}",
                        timeline.wire.client
                    ),
                });
            }
        }
    }

    /// The messages of a publisher in a channel arrive in order, and each arrives once.
    /// Publications that were not answered with `ok`, or were sent twice, are not checked.
    fn order(&self, timeline: &Timeline<'_>, found: &mut Vec<Violation>) {
        let mut last: BTreeMap<(ConnectionId, usize), u64> = BTreeMap::new();
        for line in timeline
            .lines
            .iter()
            .filter(|line| line.kind == Kind::Message && line.whole)
        {
            let Some(number) = crate::record::marker(line.payload) else {
                continue;
            };
            let Some(published) = self.record.publications.get(&number) else {
                continue;
            };
            // A publication that was sent twice may have the position of either attempt.
            let [(sent_at, connection)] = published.attempts[..] else {
                continue;
            };
            if published.answer.as_deref() != Some("ok") {
                continue;
            }
            let before = last.insert((connection, published.channel), number);
            if before.is_some_and(|before| before >= number) {
                found.push(Violation {
                    promise: "order",
                    at: line.at,
                    what: format!(
                        "publication {number}, sent at {sent_at:?} and executed at {:?}, follows {before:?} to client {}",
                        published.executed, timeline.wire.client
                    ),
                });
            }
        }
    }
}

/// A key in readable form.
fn shown(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

/// The number of the command that a frame answers; `None` if the frame answers no command.
fn number_of(payload: &[u8]) -> Option<u64> {
    let name = br#""id":"#;
    let at = payload.windows(name.len()).position(|part| part == name)? + name.len();
    let digits = payload[at..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}
