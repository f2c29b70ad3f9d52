//! The probe of a session's client for a sign of life. Other tasks request the probe; the session's
//! task asks the client and notes its answer.

use super::{Outbox, Phase};

/// The state of a probe, as the asking task sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// The client has not answered yet.
    Awaited,
    /// The client has answered, or the session is still opening.
    Given,
    /// The session was told to end.
    Ending,
}

/// The state of a probe, as the session's task stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probe {
    None,
    /// The session's task must ask the client.
    Asked,
    /// The session's task has asked the client.
    Sent,
    /// The client has answered.
    Answered,
}

impl Outbox {
    /// Asks the client for a sign of life, and returns the result so far. The caller repeats the
    /// call until the result is no longer [`Sign::Awaited`]. Concurrent callers share one probe.
    pub fn probe(&self) -> Sign {
        let mut state = self.state.lock();
        match state.phase {
            Phase::Pending => return Sign::Given,
            Phase::Open => {}
            Phase::Ending(_) | Phase::Left => return Sign::Ending,
        }
        match state.probe {
            Probe::Answered => {
                state.probe = Probe::None;
                // The state starts over, so that a later caller asks the client again.
                return Sign::Given;
            }
            Probe::None => {
                state.probe = Probe::Asked;
                state.owner.wake();
            }
            Probe::Asked | Probe::Sent => {}
        }
        Sign::Awaited
    }

    /// For the session's task: the client has given a sign of life, or cannot be asked for one.
    pub fn answer_probe(&self) {
        self.state.lock().probe = Probe::Answered;
    }
}
