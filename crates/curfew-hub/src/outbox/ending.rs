//! The reason for which a session is told to end, and the frames that the ending drops.

use curfew_model::Disconnect;

/// The reason for which the server ends a session, and the server's advice to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// The close code and its name.
    pub disconnect: Disconnect,
    /// The delay that the client is advised to wait before it reconnects.
    pub retry_after_ms: Option<u64>,
}

impl Ending {
    /// Creates an ending with `disconnect`, without advice on when to reconnect.
    pub fn new(disconnect: Disconnect) -> Self {
        Self {
            disconnect,
            retry_after_ms: None,
        }
    }

    /// True if a revocation ends the session.
    pub fn is_revocation(self) -> bool {
        [Disconnect::REVOKED, Disconnect::REAUTH_REQUIRED].contains(&self.disconnect)
    }

    /// True if this ending replaces `earlier`. A revocation replaces every other ending, except
    /// that [`Disconnect::REVOKED`] is never replaced. [`Disconnect::INSUFFICIENT_STATE`] replaces
    /// every ending that does not withhold queued frames ([`Self::withholds`]).
    pub(super) fn replaces(self, earlier: Self) -> bool {
        let is_earlier = |disconnect| earlier.disconnect == disconnect;
        if self.is_revocation() {
            return !is_earlier(Disconnect::REVOKED) && !is_earlier(self.disconnect);
        }
        self.disconnect == Disconnect::INSUFFICIENT_STATE && !earlier.withholds()
    }

    /// True if queued frames are still sent before the close. Queued frames are dropped if access
    /// is withdrawn, if the client recovers the frames over a new connection, or if the client does
    /// not read.
    pub fn flushes(self) -> bool {
        !self.withholds() && self.disconnect != Disconnect::SLOW_CONSUMER
    }

    /// True if no byte of a queued frame may be sent any more.
    pub(super) fn withholds(self) -> bool {
        self.disconnect.withdraws_access() || self.disconnect == Disconnect::INSUFFICIENT_STATE
    }
}

/// Frames that were queued for a session and not written to its socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Undelivered {
    /// The number of frames.
    pub frames: usize,
    /// The total size of these frames, in bytes.
    pub bytes: usize,
}

impl Undelivered {
    /// Adds `frames` frames with `bytes` bytes in total.
    pub(super) fn add(&mut self, frames: usize, bytes: usize) {
        self.frames += frames;
        self.bytes += bytes;
    }
}

/// The ending of a session that was told to end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct QueuedEnding {
    pub(super) ending: Ending,
    /// The frames that were dropped for this ending, and for an ending that it replaced.
    pub(super) let_go: Undelivered,
}
