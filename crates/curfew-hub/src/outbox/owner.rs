//! The owner of a session's socket.

use std::task::Waker;

/// The task that may write to the socket now. The table in the documentation of [`outbox`](super)
/// says how the owner changes.
#[derive(Debug, Default)]
pub(super) enum Owner {
    /// The session's task: it runs, or was woken.
    #[default]
    Task,
    /// The next flusher that is notified. The session's task sleeps, and the socket had room.
    Idle(Waker),
    /// A flusher that was notified of a queued frame.
    Due(Waker),
    /// No task: the session's task sleeps until the socket takes more, or until the session may be
    /// written to again. Queued frames do not wake the task.
    Blocked(Waker),
}

impl Owner {
    /// Gives the socket to the session's task, and wakes the task if it sleeps.
    pub(super) fn wake(&mut self) {
        match std::mem::take(self) {
            Self::Task => {}
            Self::Idle(waker) | Self::Due(waker) | Self::Blocked(waker) => waker.wake(),
        }
    }

    /// Notes that a flusher is notified. Returns false if no flusher needs to be notified.
    pub(super) fn become_due(&mut self) -> bool {
        if !matches!(self, Self::Idle(_)) {
            return false;
        }
        if let Self::Idle(waker) = std::mem::take(self) {
            *self = Self::Due(waker);
        }
        true
    }

    /// For a notified flusher: returns true if it may write. The next push then notifies a flusher
    /// again.
    pub(super) fn begin_flush(&mut self) -> bool {
        if matches!(self, Self::Due(_))
            && let Self::Due(waker) = std::mem::take(self)
        {
            *self = Self::Idle(waker);
        }
        self.is_flushers()
    }

    /// True if a flusher may write.
    pub(super) fn is_flushers(&self) -> bool {
        matches!(self, Self::Idle(_) | Self::Due(_))
    }
}
