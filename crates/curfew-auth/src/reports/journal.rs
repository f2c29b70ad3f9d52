//! What was reported last, for people who ask why somebody was logged out, or was not.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use crate::Authenticator;

/// What an issuer reported last, to this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LastReport {
    /// What: `backchannel_logout`, `global_token_revocation` or the type of a security event.
    pub report: &'static str,
    /// What became of it, as the metrics have it.
    pub outcome: &'static str,
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

#[derive(Debug, Default, Clone)]
struct Entry {
    last: Option<(&'static str, &'static str, Duration)>,
    stream: Option<StreamStatus>,
}

impl Journal {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<Box<str>, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of an issuer.
    pub(crate) fn of(
        &self,
        issuer: &str,
        now: Duration,
    ) -> (Option<LastReport>, Option<StreamStatus>) {
        let entry = self.entries().get(issuer).cloned().unwrap_or_default();
        let last = entry.last.map(|(report, outcome, at)| LastReport {
            report,
            outcome,
            age_s: now.saturating_sub(at).as_secs(),
        });
        (last, entry.stream)
    }
}

impl Authenticator {
    /// Remembers what the issuer called `issuer` has reported, and what became of it.
    pub fn note_report(&self, issuer: &str, report: &'static str, outcome: &'static str) {
        let now = self.clock().now();
        let mut entries = self.journal().entries();
        entries.entry(issuer.into()).or_default().last = Some((report, outcome, now));
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
