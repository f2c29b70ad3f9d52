//! The log of protocol steps, which a test compares with the model.

use tracing::debug;

use super::Control;
use crate::fault::Fault;

/// A step to be logged.
#[derive(Debug)]
pub(super) struct Step {
    name: &'static str,
    generation: u64,
    outcome: Option<&'static str>,
    count: Option<u64>,
    sessions: Option<u64>,
    revoked: Option<u64>,
    reason: Option<String>,
}

impl Control {
    /// Begins the log entry of a step in this generation.
    pub(super) fn step(&self, name: &'static str) -> Step {
        Step {
            name,
            generation: self.generation,
            outcome: None,
            count: None,
            sessions: None,
            revoked: None,
            reason: None,
        }
    }
}

impl Step {
    /// Adds the outcome of the step.
    pub(super) fn outcome(mut self, outcome: &'static str) -> Self {
        self.outcome = Some(outcome);
        self
    }

    /// Adds a number of keys.
    pub(super) fn count(mut self, count: usize) -> Self {
        self.count = Some(count as u64);
        self
    }

    /// Adds a number of sessions.
    pub(super) fn sessions(mut self, sessions: usize) -> Self {
        self.sessions = Some(sessions as u64);
        self
    }

    /// Adds the number of sessions ended.
    pub(super) fn revoked(mut self, revoked: usize) -> Self {
        self.revoked = Some(revoked as u64);
        self
    }

    /// Adds the fault that caused the step.
    pub(super) fn reason(mut self, fault: &Fault) -> Self {
        self.reason = Some(fault.to_string());
        self
    }

    /// Writes the step to the log.
    pub(super) fn log(self) {
        debug!(
            step = self.name,
            generation = self.generation,
            outcome = self.outcome,
            count = self.count,
            sessions = self.sessions,
            revoked = self.revoked,
            reason = self.reason,
            "protocol"
        );
    }
}
