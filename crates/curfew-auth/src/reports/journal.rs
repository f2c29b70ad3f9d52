//! The last reports of each issuer. They show operators why a user was or was not logged out.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use curfew_model::Repeats;
use schemars::JsonSchema;
use serde::Serialize;
use tracing::warn;

use crate::Authenticator;

/// A report that an issuer sent to this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LastReport {
    /// The kind: `backchannel_logout`, `global_token_revocation` or the type of a security event.
    pub report: &'static str,
    /// The outcome, by its name in the metrics.
    pub outcome: &'static str,
    /// The reason why the report had no effect; absent if it had an effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Seconds since the report.
    pub age_s: u64,
}

/// State of an event stream, as last reported to this node (Shared Signals Framework 1.0 §8.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StreamStatus {
    /// The transmitter sends events.
    Enabled,
    /// The transmitter keeps events and sends them later.
    Paused,
    /// The transmitter discards events.
    Disabled,
}

/// Reports to this node, by the issuer's configured name. A report to another node is not listed.
#[derive(Debug, Default)]
pub(crate) struct Journal(Mutex<BTreeMap<Box<str>, Entry>>);

#[derive(Debug, Default)]
struct Entry {
    last: Option<JournalEntry>,
    /// The last report without effect, stored separately so that later reports with effect do not
    /// hide it.
    last_failure: Option<JournalEntry>,
    stream: Option<StreamStatus>,
    /// The number of reports that wait for the issuer's keys.
    waiting: usize,
    /// The counts of reports without effect, by kind and outcome. They limit the warnings to one a
    /// minute.
    failures: BTreeMap<(&'static str, &'static str), Repeats<Box<str>>>,
}

#[derive(Debug, Clone)]
struct JournalEntry {
    report: &'static str,
    outcome: &'static str,
    why: Option<String>,
    at: Duration,
}

/// The reports of one issuer to this node.
#[derive(Debug, Default)]
pub(crate) struct Reported {
    pub(crate) last: Option<LastReport>,
    pub(crate) last_failure: Option<LastReport>,
    pub(crate) stream: Option<StreamStatus>,
    pub(crate) waiting: usize,
}

impl Journal {
    /// Locks the entries. Callers hold the lock for a few map operations, never across an await.
    fn entries(&self) -> MutexGuard<'_, BTreeMap<Box<str>, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The reports of one issuer.
    pub(crate) fn of(&self, issuer: &str, now: Duration) -> Reported {
        let entries = self.entries();
        let Some(entry) = entries.get(issuer) else {
            return Reported::default();
        };
        let report = |told: &JournalEntry| LastReport {
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
    /// Records the outcome of a report. `issuer` is the configured name of the issuer that sent it.
    pub fn note_report(&self, issuer: &str, report: &'static str, outcome: &'static str) {
        self.note(issuer, report, outcome, None);
    }

    /// Records a report without effect. Logs a warning, but at most once a minute for each issuer,
    /// kind and outcome.
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

    /// Logs the number of reports for which [`Self::note_failed_report`] has suppressed the
    /// warning, once the minute is over. The caller calls this about once a second.
    pub fn tell_rest(&self) {
        for (issuer, entry) in &*self.journal().entries() {
            for (report, repeats) in &entry.failures {
                if let Some((times, why)) = repeats.rest() {
                    warn_of(issuer, *report, times, &why);
                }
            }
        }
    }

    /// Records a report. If a warning is due, returns the number of reports since the last warning,
    /// and the reason to log.
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
        let told = JournalEntry {
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

    /// Records `count`, the number of reports that wait for the keys of an issuer. `issuer` is the
    /// issuer's configured name.
    pub fn note_waiting_reports(&self, issuer: &str, count: usize) {
        let mut entries = self.journal().entries();
        entries.entry(issuer.into()).or_default().waiting = count;
    }

    /// Records the state of an issuer's event stream. `issuer` is the issuer's configured name.
    pub fn note_stream(&self, issuer: &str, status: StreamStatus) {
        let mut entries = self.journal().entries();
        entries.entry(issuer.into()).or_default().stream = Some(status);
    }

    /// The names of the configured issuers whose event streams were last reported as paused or
    /// disabled.
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

/// Logs a warning. `times` counts the reports since the last warning, this report included.
fn warn_of(issuer: &str, (report, outcome): (&str, &str), times: u64, why: &str) {
    warn!(
        issuer,
        report,
        outcome,
        why,
        unsaid = times - 1,
        "a report with a valid signature of its issuer has no effect"
    );
}
