//! Who may write to a session's socket.

use std::task::Waker;

/// Who may write to the socket at this moment. The table of what moves it is in the documentation of
/// [`outbox`](super).
#[derive(Debug, Default)]
pub(super) enum Owner {
    /// The session's task: it runs, or was woken.
    #[default]
    Task,
    /// A flusher may: the task sleeps, and the socket had room. None was told.
    Idle(Waker),
    /// A flusher may, and was told that something is queued.
    Due(Waker),
    /// None: the task sleeps until the socket takes more, or until the session may be written to
    /// again. Frames that are queued do not wake it.
    Blocked(Waker),
}

impl Owner {
    /// Gives the socket to the session's task, which is woken if it sleeps.
    pub(super) fn wake(&mut self) {
        match std::mem::take(self) {
            Self::Task => {}
            Self::Idle(waker) | Self::Due(waker) | Self::Blocked(waker) => waker.wake(),
        }
    }

    /// Notes that a flusher was told. False when it need not be.
    pub(super) fn become_due(&mut self) -> bool {
        if !matches!(self, Self::Idle(_)) {
            return false;
        }
        if let Self::Idle(waker) = std::mem::take(self) {
            *self = Self::Due(waker);
        }
        true
    }

    /// For a flusher that was told: whether it may write. From here on another push tells one again.
    pub(super) fn begin_flush(&mut self) -> bool {
        if matches!(self, Self::Due(_))
            && let Self::Due(waker) = std::mem::take(self)
        {
            *self = Self::Idle(waker);
        }
        self.is_flushers()
    }

    /// True if a flusher may go on.
    pub(super) fn is_flushers(&self) -> bool {
        matches!(self, Self::Idle(_) | Self::Due(_))
    }
}
