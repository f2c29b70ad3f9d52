//! The one way out: every byte that a session's client may get only while the session has access
//! passes through [`Outbox::write`].

use std::io;
use std::task::Poll;
use std::time::Duration;

use curfew_model::{Clock, DeliveryLease};
use curfew_ws::{DirectWriter, Socket};

use super::lanes::WriteOutcome;
use super::owner::Owner;
use super::{Arrival, Ending, Outbox};
use crate::{FrameCounts, Member};

/// Everything that a session's access depends on beside the session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Access<'a> {
    pub(crate) lease: &'a DeliveryLease,
    pub(crate) clock: &'a dyn Clock,
    /// The wall clock a moment ago, where many sessions share one look at it. It only matters where it
    /// was set forward: the token's end is asked by the clock that is never set, each time.
    pub(crate) wall: Option<Duration>,
    pub(crate) member: &'a Member,
}

/// The reason why what is queued may not leave now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldBack {
    /// A revocation that may name the session is being read.
    Suspended,
    /// The node holds no delivery lease.
    NoLease,
}

/// The reason why what is queued may not leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Withheld {
    /// For now.
    For(HeldBack),
    /// The token is over.
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
    /// All is written.
    Done,
    /// The socket takes no more.
    Blocked {
        /// It took something first.
        wrote: bool,
    },
    /// The rest may not leave now.
    Held(HeldBack),
    /// The rest may not leave any more: the token is over.
    Expired,
    /// First of all, the session's subscriptions are to be decided anew.
    Reconsider,
    /// First of all, the client is to be asked for a sign of life.
    Probe,
    /// The session was told to end.
    End(Ending),
    /// The socket is broken.
    Broken(io::Error),
}

/// Who writes, and so what comes before writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// The session's task: it looks for interruptions between two writes.
    Live,
    /// The session's task at the very end: what an ending still lets out is written.
    Closing,
    /// A flusher, while the task sleeps: for the frames that wait when it begins.
    Flusher,
}

/// All that left and all that will not, to be counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Bytes written.
    pub(crate) bytes: usize,
    /// Bytes that were queued and are so no more.
    pub(crate) freed: usize,
    /// Frames begun.
    pub(crate) frame_counts: FrameCounts,
    /// Publications that were timed.
    pub(crate) arrivals: Vec<Arrival>,
    /// Frames let go of because the session was told to end while they were about to be written.
    pub(crate) dropped: Option<(Ending, usize)>,
}

impl Outbox {
    /// From now on flushers may write to the socket while the session's task waits in
    /// [`Outbox::poll_wake`].
    pub fn attach(&self, writer: DirectWriter) {
        *self.writer.lock() = Some(writer);
        self.state.lock().direct = true;
    }

    /// For the session's task, each time it wakes and before it does anything: from here until
    /// [`Outbox::poll_wake`] the socket is its own. A write that a flusher is about is waited for,
    /// which never waits itself.
    pub fn claim(&self) {
        let _writer = self.writer.lock();
        self.state.lock().owner = Owner::Task;
    }

    /// For the session's task: writes what may leave.
    pub(crate) fn write_live(
        &self,
        access: Access<'_>,
        socket: &mut impl Socket,
        tally: &mut Tally,
    ) -> Progress {
        self.write(access, socket, Turn::Live, tally)
    }

    /// For the session's task, once the session was told to end: writes what may still leave.
    pub(crate) fn write_last(
        &self,
        access: Access<'_>,
        socket: &mut impl Socket,
        tally: &mut Tally,
    ) -> Progress {
        self.write(access, socket, Turn::Closing, tally)
    }

    /// For a flusher that was told: writes what is queued to the socket. What the socket does not
    /// take, and what else the session's task has to see to, is left to the task, which is woken.
    ///
    /// Publishers are not held up meanwhile: one would follow from session to session, and each would
    /// get its frames one by one.
    pub(crate) fn flush(&self, access: Access<'_>, tally: &mut Tally) {
        let writer = self.writer.lock();
        let Some(mut writer) = writer.as_ref() else {
            return self.nudge();
        };
        match self.write(access, &mut writer, Turn::Flusher, tally) {
            // Its end wakes the task.
            Progress::Done | Progress::Held(HeldBack::Suspended) => {}
            // The socket is full or broken, or the session may not be written to: the task waits for
            // it, or finds out.
            _ => self.nudge(),
        }
    }

    /// Writes until all is written or something is in the way. Before each system call it is asked
    /// again whether the session has access: the lease is loaded first, then the session is looked at,
    /// and the lease and the token's end are asked last, when the bytes are ready. So what leaves
    /// without access is at most one system call that had begun, of at most
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
                // Spares it one more look.
                Poll::Ready(Ok(())) if left == Some(0) => return Progress::Done,
                // Notices may leave though access was denied.
                Poll::Ready(Ok(())) => wrote = true,
                Poll::Ready(Err(error)) => return Progress::Broken(error),
                Poll::Pending => return Progress::Blocked { wrote },
            }
        }
    }
}
