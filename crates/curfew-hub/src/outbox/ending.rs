//! The reason why a session is told to end, and what that costs.

use curfew_model::Disconnect;

/// The reason and the way in which the server ends a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// The close code and its name.
    pub disconnect: Disconnect,
    /// Told to the client with it.
    pub retry_after_ms: Option<u64>,
}

impl Ending {
    /// Ends with `disconnect` and no advice on when to come back.
    pub fn new(disconnect: Disconnect) -> Self {
        Self {
            disconnect,
            retry_after_ms: None,
        }
    }

    /// True if it is a revocation that ends the session.
    pub fn is_revocation(self) -> bool {
        [Disconnect::REVOKED, Disconnect::REAUTH_REQUIRED].contains(&self.disconnect)
    }

    /// True if frames that are queued still go out before the close. Where access is over, or the
    /// reader does not read, they do not.
    pub fn flushes(self) -> bool {
        !self.disconnect.withdraws_access() && self.disconnect != Disconnect::SLOW_CONSUMER
    }
}

/// Frames that were queued for a session, and that its socket was not given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Undelivered {
    /// The number of them.
    pub frames: usize,
    /// All of them together.
    pub bytes: usize,
}

impl Undelivered {
    pub(super) fn add(&mut self, frames: usize, bytes: usize) {
        self.frames += frames;
        self.bytes += bytes;
    }
}

/// A session was told to end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) ending: Ending,
    /// The part of its queue that was let go of for it.
    pub(super) let_go: Undelivered,
}
