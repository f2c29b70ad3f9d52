//! The question if the client of a session lives: asked by others, answered by the session's task.

use super::{Outbox, Phase};

/// The knowledge of a client that was asked for a sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// It has not given one yet.
    Awaited,
    /// It has; or the session is opening.
    Given,
    /// The session was told to end.
    Ending,
}

/// The state of a question for a sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probe {
    None,
    /// The session's task is to ask the client.
    Asked,
    /// It has.
    Sent,
    /// The client lives.
    Answered,
}

impl Outbox {
    /// Asks the client for a sign of life, or says what came of having asked. The one that asks goes on
    /// asking until it is more than [`Sign::Awaited`]: many who ask at once share a question.
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

    /// For the session's task: the client has given a sign of life, or cannot be judged.
    pub fn answer_probe(&self) {
        self.state.lock().probe = Probe::Answered;
    }
}
