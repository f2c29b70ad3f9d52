//! Checks of publications and revocations: their effects, the answers to their requests, and
//! revocations that Redis has lost.

use std::time::Duration;

use super::{Check, PROMPTLY, Violation, shown};
use crate::node::LEASE;
use crate::record::{Ban, Target, Token};
use crate::redis::Effect;

/// Time for which Redis lists a node after a heartbeat.
const LISTED: Duration = Duration::from_secs(9);

impl Check<'_> {
    /// Checks that publications are executed once, that the answers to publishers are true, and
    /// that Redis executes no publication later than a lease after the revocation of its session
    /// (R1).
    pub(super) fn publications(&self, found: &mut Vec<Violation>) {
        for (number, published) in &self.record.publications {
            let mut report = |promise, at, why: String| {
                let what = format!(
                    "publication {number}, sent at {:?}: {why}",
                    published.sent_at()
                );
                found.push(Violation { promise, at, what });
            };
            let times = &published.executed;
            let last = times.last().copied().unwrap_or(published.sent_at());
            // A publication with an idempotency key may be executed again in a new epoch, because
            // the keys of an earlier epoch do not count.
            if times.len() > 1 && (published.attempts.len() == 1 || self.is_doubled(*number)) {
                report(
                    "once",
                    last,
                    format!("executed more than once, at {times:?}"),
                );
            }
            match published.answer.as_deref() {
                Some("ok") if times.is_empty() => {
                    report("truth", last, "answered `ok`, but not executed".to_owned());
                }
                // A publication that was sent again may have been accepted the first time.
                Some(code)
                    if code != "ok"
                        && code != "unknown_outcome"
                        && !times.is_empty()
                        && published.attempts.len() == 1 =>
                {
                    report("truth", last, format!("answered `{code}`, but executed"));
                }
                _ => {}
            }
            for at in times {
                // Any attempt before this time may be the executed one, so all must be banned.
                let tried = published
                    .attempts
                    .iter()
                    .filter(|(sent_at, _)| sent_at <= at);
                let bans: Option<Vec<_>> = tried
                    .map(|(_, connection)| {
                        let timeline = self.lines.get(connection)?;
                        let late = |from| *at > from + LEASE;
                        self.covering(timeline, timeline.in_force(*at), *at, late)
                    })
                    .collect();
                if let Some((from, ban)) = bans.and_then(|bans| bans.first().copied()) {
                    let why = format!(
                        "executed, although its publisher was revoked at {from:?} by {}",
                        shown(&ban.key)
                    );
                    report("R1, effects", *at, why);
                }
            }
        }
    }

    /// R5: a node that has confirmed a revocation delivers nothing more to the revoked sessions.
    pub(super) fn receipts(&self, found: &mut Vec<Violation>) {
        for receipt in &self.record.receipts {
            let ban = self.record.bans.iter().find(|ban| {
                ban.target == receipt.target && ban.at >= receipt.asked_at && ban.at <= receipt.at
            });
            // A node wrote the key of this receipt, so its ban is found by target and time.
            let until = ban.and_then(|ban| ban.lifted_at).unwrap_or(Duration::MAX);
            let until = self.lifted_after(receipt.at, &receipt.target).min(until);
            let lost = self
                .record
                .losses
                .iter()
                .map(|(at, _)| *at)
                .filter(|at| *at >= receipt.asked_at);
            let until = lost.fold(until, Duration::min);
            // After a loss of data, Redis lists a node only from the node's next heartbeat on.
            let losses = self.record.losses.iter().map(|(at, _)| *at);
            let forgotten = losses.filter(|at| *at <= receipt.asked_at).max();
            for timeline in self.lines.values() {
                let wire = timeline.wire;
                let beats = self.beats.get(&wire.node).map_or(&[][..], Vec::as_slice);
                let listed = beats.iter().any(|beat| {
                    *beat <= receipt.asked_at
                        && receipt.asked_at < *beat + LISTED
                        && forgotten.is_none_or(|lost| *beat > lost)
                });
                // The node that answered may have read the list of nodes at any time until just
                // before its answer.
                let meanwhile = beats
                    .iter()
                    .filter(|beat| **beat + LISTED >= receipt.asked_at && **beat <= receipt.at);
                let listed = listed
                    && meanwhile
                        .clone()
                        .zip(meanwhile.skip(1).chain([&receipt.at]))
                        .all(|(beat, next)| *next < *beat + LISTED);
                if receipt.missing.contains(&wire.node) || !listed {
                    continue;
                }
                let named = |token: &Token| match &receipt.target {
                    Target::User(user) => token.user == *user,
                    Target::Tenant(tenant) => token.tenant == *tenant,
                    _ => false,
                };
                for line in timeline.lines.iter().filter(|line| line.kind.is_access()) {
                    let tokens = timeline.in_force(line.at);
                    let applies = !matches!(receipt.target, Target::Tenant(_))
                        || !self.took_tenants_away(wire.node, receipt.asked_at, line.at);
                    if line.at > receipt.at
                        && line.at < until
                        && applies
                        && !tokens.is_empty()
                        && tokens.iter().all(named)
                    {
                        found.push(Violation {
                            promise: "R5",
                            at: line.at,
                            what: format!(
                                "process {} confirmed the revocation of {:?} by {:?}, but still writes {}",
                                wire.node,
                                receipt.target,
                                receipt.at,
                                line.shown()
                            ),
                        });
                        break;
                    }
                }
            }
        }
    }

    /// The time of the next deletion of a key that names this target.
    fn lifted_after(&self, at: Duration, target: &Target) -> Duration {
        let removed = self
            .record
            .effects
            .iter()
            .filter_map(|(when, _, effect)| match effect {
                Effect::Removed { key } if *when >= at && names(key, target) => Some(*when),
                _ => None,
            });
        removed.min().unwrap_or(Duration::MAX)
    }

    /// True if a reload in this period made sessions of a node no longer revocable by tenant. A
    /// node without revocation by tenant during the whole period, or with a reload in progress,
    /// confirms no revocation of a tenant.
    fn took_tenants_away(&self, node: usize, since: Duration, until: Duration) -> bool {
        self.record.reloads.iter().any(|reload| {
            reload.node == node && !reload.tenants && reload.at > since && reload.at <= until
        })
    }

    /// R6: a revocation that a surviving node knew before a loss of data is in Redis at the end.
    pub(super) fn known(&self, found: &mut Vec<Violation>) {
        for ban in &self.record.bans {
            let lost: Vec<Duration> = self
                .record
                .losses
                .iter()
                .filter(|(at, data_of)| ban.at <= *at && ban.at > *data_of)
                .map(|(at, _)| *at)
                .collect();
            let (Some(first), None) = (lost.first(), ban.lifted_at) else {
                continue;
            };
            // A node may learn of a key only by a refusal, if the key was written while the link
            // was broken and names no existing session.
            let since = ban.at.saturating_sub(LEASE);
            let clean = |node: usize| {
                !self.record.troubles.iter().any(|trouble| {
                    trouble.node.is_none_or(|of| of == node)
                        && !trouble.stopped
                        && trouble.from <= ban.at + LEASE
                        && trouble.until >= since
                })
            };
            // A running node whose link works receives the push at once. If Redis comes back with
            // older data, it lacks only keys that were written shortly before the loss. The loss
            // itself counts as trouble of every node.
            let pushed = |node: usize| {
                !self.record.troubles.iter().any(|trouble| {
                    trouble.node.is_none_or(|of| of == node)
                        && trouble.from <= ban.at + PROMPTLY
                        && trouble.until >= since
                })
            };
            let knows = |(node, beats): &(&usize, &Vec<Duration>)| {
                let heard_since = |since: Duration| {
                    let heard = beats
                        .iter()
                        .filter(|beat| **beat > since && **beat < *first);
                    heard.count() >= 2
                };
                let met = || self.refused(ban, **node, *first);
                !self.record.crashed.contains_key(node)
                    && ((clean(**node) || pushed(**node)) && heard_since(ban.at + PROMPTLY)
                        || met().is_some_and(|at| heard_since(at + PROMPTLY)))
            };
            let known = self.beats.iter().any(|beats| knows(&beats));
            if known && !self.record.left.contains(&ban.key) {
                found.push(Violation {
                    promise: "R6",
                    at: *first,
                    what: format!(
                        "{} was known to a surviving node, but is missing at the end",
                        shown(&ban.key)
                    ),
                });
            }
        }
    }

    /// The first time before `before` at which a node refused a token that only `ban` covers.
    fn refused(&self, ban: &Ban, node: usize, before: Duration) -> Option<Duration> {
        let of_node = self
            .lines
            .values()
            .filter(|timeline| timeline.wire.node == node);
        let refusals = of_node.flat_map(|timeline| {
            let lines = timeline.lines.iter().filter(|line| line.is_revoked());
            lines.map(move |line| (timeline, line.at))
        });
        let met = refusals.filter(|(timeline, at)| {
            let Some(token) = timeline.shown(*at) else {
                return false;
            };
            let covers = |ban: &&Ban| {
                let token = std::slice::from_ref(token);
                self.in_force(ban, timeline, token, *at).is_some()
            };
            let mut by = self.record.bans.iter().filter(covers);
            *at > ban.at + PROMPTLY
                && *at < before
                && by.next().is_some_and(|by| by.key == ban.key)
                && by.next().is_none()
        });
        met.map(|(_, at)| at).min()
    }
}

/// True if a key names a target.
fn names(key: &[u8], target: &Target) -> bool {
    let key = String::from_utf8_lossy(key);
    match target {
        Target::User(user) => key.ends_with(&format!(":user:{user}")) || key.contains(":user:~"),
        Target::Tenant(tenant) => {
            key.ends_with(&format!(":tenant:{tenant}")) || key.contains(":tenant:~")
        }
        _ => false,
    }
}
