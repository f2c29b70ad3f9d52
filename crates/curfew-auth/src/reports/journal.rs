//! What was reported last, for people who ask why somebody was logged out, or was not.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use curfew_model::Repeats;
use schemars::JsonSchema;
use serde::Serialize;
use tracing::warn;

use crate::Authenticator;

/// What an issuer reported last, to this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LastReport {
    /// What: `backchannel_logout`, `global_token_revocation` or the type of a security event.
    pub report: &'static str,
    /// What became of it, as the metrics have it.
    pub outcome: &'static str,
    /// The reason why it had no effect; absent where it had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Seconds since then.
    pub age_s: u64,
}

/// How a stream of events is, as far as this node was told (Shared Signals Framework 1.0 §8.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StreamStatus {
    /// Events are sent.
    Enabled,
    /// Events are kept for later.
    Paused,
    /// Events are neither sent nor kept.
    Disabled,
}

/// By the issuer's configured name. Told to this node: others are told other things.
#[derive(Debug, Default)]
pub(crate) struct Journal(Mutex<BTreeMap<Box<str>, Entry>>);

#[derive(Debug, Default)]
struct Entry {
    last: Option<Told>,
    /// The last one without effect, which others with one must not hide.
    last_failure: Option<Told>,
    stream: Option<StreamStatus>,
    /// The number of reports that wait for the issuer's keys.
    waiting: usize,
    /// Reports without effect, by what they are and what became of them.
    failures: BTreeMap<(&'static str, &'static str), Repeats<Box<str>>>,
}

#[derive(Debug, Clone)]
struct Told {
    report: &'static str,
    outcome: &'static str,
    why: Option<String>,
    at: Duration,
}

/// An issuer's reports, as this node knows of them.
#[derive(Debug, Default)]
pub(crate) struct Reported {
    pub(crate) last: Option<LastReport>,
    pub(crate) last_failure: Option<LastReport>,
    pub(crate) stream: Option<StreamStatus>,
    pub(crate) waiting: usize,
}

impl Journal {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<Box<str>, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of an issuer.
    pub(crate) fn of(&self, issuer: &str, now: Duration) -> Reported {
        let entries = self.entries();
        let Some(entry) = entries.get(issuer) else {
            return Reported::default();
        };
        let report = |told: &Told| LastReport {
            report: told.report,
            outcome: told.outcome,
            why: told.why.clone(),
            age_s: now.saturating_sub(told.at).as_secs(),
        };
        Reported {
            last: entry.last.as_ref().map(report),
            last_failure: entry.last_failure.as_ref().map(report),
            stream: entry.stream,
            waiting: entry.waiting,
        }
    }
}

impl Authenticator {
    /// Remembers what the issuer called `issuer` has reported, and what became of it.
    pub fn note_report(&self, issuer: &str, report: &'static str, outcome: &'static str) {
        self.note(issuer, report, outcome, None);
    }

    /// Remembers a report that had no effect, and warns of it: once a minute for each issuer, report and
    /// outcome.
    pub fn note_failed_report(
        &self,
        issuer: &str,
        report: &'static str,
        outcome: &'static str,
        why: &str,
    ) {
        if let Some((times, why)) = self.note(issuer, report, outcome, Some(why)) {
            warn_of(issuer, (report, outcome), times, &why);
        }
    }

    /// Warns of the reports without effect that no line has told, where the interval of the last one is
    /// over. To be called every second or so.
    pub fn tell_rest(&self) {
        for (issuer, entry) in &*self.journal().entries() {
            for (report, repeats) in &entry.failures {
                if let Some((times, why)) = repeats.rest() {
                    warn_of(issuer, *report, times, &why);
                }
            }
        }
    }

    /// Remembers a report; of one without effect the number of those that a warning is due for.
    fn note(
        &self,
        issuer: &str,
        report: &'static str,
        outcome: &'static str,
        why: Option<&str>,
    ) -> Option<(u64, Box<str>)> {
        let at = self.clock().now();
        let mut entries = self.journal().entries();
        let entry = entries.entry(issuer.into()).or_default();
        let told = Told {
            report,
            outcome,
            why: why.map(str::to_owned),
            at,
        };
        entry.last = Some(told.clone());
        let why = why?;
        entry.last_failure = Some(told);
        let failures = entry.failures.entry((report, outcome));
        failures.or_default().note_event(why.into())
    }

    /// Remembers how many reports wait for the keys of the issuer called `issuer`.
    pub fn note_waiting_reports(&self, issuer: &str, count: usize) {
        let mut entries = self.journal().entries();
        entries.entry(issuer.into()).or_default().waiting = count;
    }

    /// Remembers how the stream of the issuer called `issuer` is.
    pub fn note_stream(&self, issuer: &str, status: StreamStatus) {
        let mut entries = self.journal().entries();
        entries.entry(issuer.into()).or_default().stream = Some(status);
    }

    /// The configured issuers whose streams send no events, as far as this node was told.
    pub fn stopped_streams(&self) -> Vec<String> {
        let entries = self.journal().entries();
        let silent = entries
            .iter()
            .filter(|(_, entry)| !matches!(entry.stream, None | Some(StreamStatus::Enabled)))
            .map(|(issuer, _)| issuer.to_string());
        silent
            .filter(|issuer| self.event_stream(issuer).is_some())
            .collect()
    }
}

/// `times`: how many there were since the last line, this one included.
fn warn_of(issuer: &str, (report, outcome): (&str, &str), times: u64, why: &str) {
    warn!(
        issuer,
        report,
        outcome,
        why,
        unsaid = times - 1,
        "a report that its issuer has signed has no effect"
    );
}
