//! The only path to the socket: every byte that needs access passes through [`Outbox::write`].

use std::io;
use std::task::Poll;
use std::time::Duration;

use curfew_model::{Clock, DeliveryLease};
use curfew_ws::{DirectWriter, Socket};

use super::lanes::WriteOutcome;
use super::owner::Owner;
use super::{Arrival, Ending, Outbox};
use crate::{FrameCounts, Member};

/// The conditions of a session's access, besides the state of its queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Access<'a> {
    pub(crate) lease: &'a DeliveryLease,
    pub(crate) clock: &'a dyn Clock,
    /// A recent reading of the wall clock that many sessions share; `None` to read the clock at
    /// each check. If the clock is set forward after the reading, the change is noticed at the next
    /// reading. The token's end on the monotonic clock is checked each time.
    pub(crate) wall: Option<Duration>,
    pub(crate) member: &'a Member,
}

/// The reason for which queued frames wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldBack {
    /// A revocation that may name the session is being read.
    Suspended,
    /// The node holds no delivery lease.
    NoLease,
}

/// The reason for which queued frames may not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Withheld {
    /// The frames wait.
    For(HeldBack),
    /// The token has expired.
    Expired,
    /// The session was told to end in a way that withdraws its access.
    Ended(Ending),
}

impl From<Withheld> for Progress {
    fn from(withheld: Withheld) -> Self {
        match withheld {
            Withheld::For(why) => Self::Held(why),
            Withheld::Expired => Self::Expired,
            Withheld::Ended(ending) => Self::End(ending),
        }
    }
}

/// The outcome of an attempt to write.
#[derive(Debug)]
pub enum Progress {
    /// Every frame that may be sent is written.
    Done,
    /// The socket takes no more.
    Blocked {
        /// True if the socket took some bytes before.
        wrote: bool,
    },
    /// The remaining frames wait.
    Held(HeldBack),
    /// The remaining frames may never be sent: the token has expired.
    Expired,
    /// Before any frame is written, the session's subscriptions must be authorized again.
    Reconsider,
    /// Before any frame is written, the client must be asked for a sign of life.
    Probe,
    /// The session was told to end.
    End(Ending),
    /// The socket is broken.
    Broken(io::Error),
}

/// The task that writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// The session's task: work that is more urgent comes before each write.
    Live,
    /// The session's task, once the session is told to end: it writes the frames that the ending
    /// still allows.
    Closing,
    /// A flusher, while the session's task sleeps: it writes the frames that wait when it begins.
    Flusher,
}

/// The results of writes, to be added to the metrics.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Bytes written.
    pub(crate) bytes: usize,
    /// Bytes that are no longer queued.
    pub(crate) freed: usize,
    /// Frames whose first byte was written, by kind.
    pub(crate) frame_counts: FrameCounts,
    /// Timed publications that were written.
    pub(crate) arrivals: Vec<Arrival>,
    /// Frames dropped because the session was told to end while they were being written.
    pub(crate) dropped: Option<(Ending, usize)>,
}

impl Outbox {
    /// Lets flushers write to the socket while the session's task waits in [`Outbox::poll_wake`].
    pub fn attach(&self, writer: DirectWriter) {
        *self.writer.lock() = Some(writer);
        // The flag is set after the writer is in place: a flusher that sees the flag must find the
        // writer.
        self.state.lock().direct = true;
    }

    /// For the session's task, directly after it wakes: takes over the socket until
    /// [`Outbox::poll_wake`]. A flusher's write in progress ends first; such a write never waits.
    pub fn claim(&self) {
        // The writer is locked before `state`: this waits for a flusher in the middle of a write.
        let _writer = self.writer.lock();
        self.state.lock().owner = Owner::Task;
    }

    /// For the session's task: writes the frames that may be sent.
    pub(crate) fn write_live(
        &self,
        access: Access<'_>,
        socket: &mut impl Socket,
        tally: &mut Tally,
    ) -> Progress {
        self.write(access, socket, Turn::Live, tally)
    }

    /// For the session's task, once the session is told to end: writes the frames that may still be
    /// sent.
    pub(crate) fn write_last(
        &self,
        access: Access<'_>,
        socket: &mut impl Socket,
        tally: &mut Tally,
    ) -> Progress {
        self.write(access, socket, Turn::Closing, tally)
    }

    /// For a notified flusher: writes queued frames to the socket. If the socket takes no more, or
    /// the session needs its own task, the task is woken for the remaining frames.
    ///
    /// The queue's lock is free during the system call, so that publishers do not wait for the
    /// call. A waiting publisher would follow the flusher from session to session, and each session
    /// would get its frames one by one.
    pub(crate) fn flush(&self, access: Access<'_>, tally: &mut Tally) {
        let writer = self.writer.lock();
        let Some(mut writer) = writer.as_ref() else {
            // The session left, or has no direct writer: its task handles the frames.
            return self.nudge();
        };
        match self.write(access, &mut writer, Turn::Flusher, tally) {
            // Nothing is left to write, or the end of the suspension wakes the task.
            Progress::Done | Progress::Held(HeldBack::Suspended) => {}
            // The task handles a full socket, a broken socket and a session without access.
            _ => self.nudge(),
        }
    }

    /// Writes until no frame is left or an obstacle appears. Access is checked again before each
    /// system call, in this order: the lease is loaded, then the session's state is read, and the
    /// lease and the token's end are checked when the bytes are ready.
    ///
    /// If access ends, only the bytes of one system call in progress can still be sent: at most
    /// [`MAX_WRITE_BYTES`](curfew_ws::MAX_WRITE_BYTES).
    fn write(
        &self,
        access: Access<'_>,
        socket: &mut impl Socket,
        turn: Turn,
        tally: &mut Tally,
    ) -> Progress {
        let (mut flushing, mut wrote) = (None, false);
        let mut denied = None;
        loop {
            // The lease is loaded before the session's state: a lease that is renewed in between
            // must not permit a write based on the older state.
            let lease = access.lease.snapshot();
            let (mut lanes, step) = {
                let mut state = self.state.lock();
                if let Some(progress) = state.before_writing(turn, &mut flushing) {
                    return progress;
                }
                let withheld = denied.or_else(|| state.withheld());
                if withheld.is_some() {
                    tally.freed += state.release_notices();
                }
                match (state.lanes.next(withheld.is_none()), withheld) {
                    (Some(step), _) => (state.take_lanes(), step),
                    (None, Some(why)) if state.lanes.needs_access() => return why.into(),
                    (None, _) => return Progress::Done,
                }
            };
            let has_access = || {
                let wall = access.wall.unwrap_or_else(|| access.clock.now());
                denied = if access.member.is_over_at(wall, access.clock.boottime()) {
                    Some(Withheld::Expired)
                } else if lease.holds() {
                    None
                } else {
                    Some(Withheld::For(HeldBack::NoLease))
                };
                denied.is_none()
            };
            let mut written = WriteOutcome::default();
            let taken = lanes.take(step, socket, has_access, &mut written);
            let left = flushing.as_mut().map(|left: &mut usize| {
                *left = left.saturating_sub(written.normal_frames);
                *left
            });
            self.state.lock().put_back(lanes, written, tally);
            match taken {
                // The flusher has no frame left, so the queue is not read again.
                Poll::Ready(Ok(())) if left == Some(0) => return Progress::Done,
                // The next iteration may still write notices, even if access was denied.
                Poll::Ready(Ok(())) => wrote = true,
                Poll::Ready(Err(error)) => return Progress::Broken(error),
                Poll::Pending => return Progress::Blocked { wrote },
            }
        }
    }
}
