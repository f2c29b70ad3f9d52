//! A session's outbound queue: bounded in bytes, filled by all who have something for the session, and
//! written to its socket by the session's task or, while that sleeps, by a flusher.
//!
//! It is also where a session is told to end: a revocation changes the phase under the same lock that
//! guards the queue, so that nothing is queued afterwards, and nothing queued is sent.
//!
//! A frame waits in one place, the [`Lanes`], until a write takes it; every write goes through
//! [`write`]. The socket has one owner at a time:
//!
//! | owner | a frame is pushed | an ending, a policy change, a nudge | the task is polled | the task waits | a flusher looks |
//! | --- | --- | --- | --- | --- | --- |
//! | task | is found by the task | is found by the task | task | idle, or blocked | leaves it alone |
//! | idle | due, and a flusher is told; without a flusher, task | task, woken | task | | writes; what is left, or in the way, wakes the task |
//! | due | stays due | task, woken | task | | idle, and writes as above |
//! | blocked | waits | task, woken | task | | leaves it alone |
//!
//! *Blocked* is a task that waits for room in the socket, for the lease, or for a revocation that is
//! being read. The end of the last two nudges it.

mod arrival;
mod ending;
mod lanes;
mod owner;
mod probe;
mod write;

use std::task::{Context, Poll};

use bytes::Bytes;
use curfew_model::Disconnect;
use curfew_ws::DirectWriter;
use parking_lot::Mutex;

use arrival::Arrivals;
use ending::Told;
use lanes::WriteOutcome;
use owner::Owner;
use probe::Probe;
use write::{Turn, Withheld};

pub(crate) use arrival::Arrival;
pub use ending::{Ending, Undelivered};
pub use lanes::Lanes;
pub use probe::Sign;
pub(crate) use write::{Access, Tally};
pub use write::{HeldBack, Progress};

/// While the node is over its own bound, a queue that holds this many bytes counts as overflowing:
/// a reader that keeps up holds less.
const TIGHT_BYTES: usize = 64 * 1024;

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// Registered, not yet open: nothing may be queued.
    Pending,
    Open,
    /// Boxed: a session that is not ending need not have the room for it.
    Ending(Box<Told>),
    /// Out of the hub: nothing is queued or counted any more.
    Left,
}

/// True if frames may pass to and from a session, as far as it alone is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// They may.
    Good,
    /// Not now: a revocation that may name it is being read.
    Suspended,
    /// It was told to end.
    Ending(Ending),
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It is queued.
    Queued,
    /// It overflowed the queue: the session ends as a slow consumer; this many queued bytes and
    /// frames were let go.
    Overflowed { bytes: usize, frames: usize },
    /// The session is not open.
    Closed,
    /// Queued, and a flusher has to be told: see [`Outbox::flush`].
    Due,
}

#[derive(Debug)]
struct QueueState {
    lanes: Lanes,
    /// Publications that are timed and not written.
    arrivals: Arrivals,
    /// Bytes of the normal lane, those that are about to be written included.
    unwritten: usize,
    owner: Owner,
    phase: Phase,
    reconsider: bool,
    probe: Probe,
    /// Revocation keys that name the session and are being read: nothing leaves meanwhile.
    suspensions: u32,
    /// Flushers can write to the socket.
    direct: bool,
}

impl QueueState {
    /// Lets go of what is queued, but for the rest of a frame begun; returns how much.
    fn clear(&mut self) -> (usize, usize) {
        let (bytes, frames) = self.lanes.clear();
        self.arrivals.clear();
        self.unwritten -= bytes;
        (bytes, frames)
    }

    /// True if frames wait that may leave, as far as the session alone is concerned.
    fn has_frames(&self) -> bool {
        self.lanes.notices() > 0 || (self.suspensions == 0 && self.lanes.normal() > 0)
    }

    fn ending(&self) -> Option<Ending> {
        match &self.phase {
            Phase::Ending(told) => Some(told.ending),
            Phase::Pending | Phase::Open | Phase::Left => None,
        }
    }

    fn is_interrupted(&self) -> bool {
        self.reconsider || self.probe == Probe::Asked || matches!(self.phase, Phase::Ending(_))
    }

    /// Says what has to be done before anything is written. `flushing` is how many frames a flusher has yet to
    /// write, once it has begun.
    fn before_writing(&mut self, turn: Turn, flushing: &mut Option<usize>) -> Option<Progress> {
        match turn {
            Turn::Live => match self.ending() {
                Some(ending) => Some(Progress::End(ending)),
                // Before the frames: a channel that is never quiet must not put it off.
                None if std::mem::take(&mut self.reconsider) => Some(Progress::Reconsider),
                None if self.probe == Probe::Asked => {
                    self.probe = Probe::Sent;
                    Some(Progress::Probe)
                }
                None => None,
            },
            Turn::Closing => None,
            Turn::Flusher => {
                let goes_on = match flushing {
                    Some(_) => self.owner.is_flushers(),
                    None => self.owner.begin_flush(),
                };
                flushing.get_or_insert(self.lanes.normal());
                (!goes_on).then_some(Progress::Done)
            }
        }
    }

    /// Says why frames of the normal lane may not leave, as far as the session alone is concerned.
    fn withheld(&self) -> Option<Withheld> {
        match self.ending() {
            Some(ending) if ending.disconnect.withdraws_access() => Some(Withheld::Ended(ending)),
            _ => (self.suspensions > 0).then_some(Withheld::For(HeldBack::Suspended)),
        }
    }

    /// Lets notices leave that wait for their turn. Returns how many bytes count no more.
    fn release_notices(&mut self) -> usize {
        let bytes = self.lanes.release_notices();
        self.unwritten -= bytes;
        bytes
    }

    /// Takes what is queued, to be written and put back.
    fn take_lanes(&mut self) -> Lanes {
        self.arrivals.taken(self.lanes.normal());
        std::mem::take(&mut self.lanes)
    }

    /// Puts what was not written before what was queued since.
    fn put_back(&mut self, mut lanes: Lanes, written: WriteOutcome, tally: &mut Tally) {
        if !self.lanes.is_empty() {
            lanes.append(std::mem::take(&mut self.lanes));
        }
        self.lanes = lanes;
        self.unwritten -= written.normal_bytes;
        tally.freed += written.normal_bytes;
        tally.bytes += written.bytes;
        tally.frame_counts.join(written.frame_counts);
        self.arrivals
            .written(written.normal_frames, &mut tally.arrivals);
        // Told to end meanwhile.
        if let Some(ending) = self.ending()
            && !ending.flushes()
        {
            let (bytes, frames) = self.clear();
            if let Phase::Ending(told) = &mut self.phase {
                told.let_go.add(frames, bytes);
            }
            tally.freed += bytes;
            let before = tally.dropped.map_or(0, |(_, frames)| frames);
            tally.dropped = Some((ending, before + frames));
        }
    }
}

/// The queue between everyone who has something for a session and the session's task.
#[derive(Debug)]
pub struct Outbox {
    state: Mutex<QueueState>,
    /// To the socket, past the session's task: held while it is written to, and taken before
    /// `state`.
    writer: Mutex<Option<DirectWriter>>,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(QueueState {
                lanes: Lanes::default(),
                arrivals: Arrivals::default(),
                unwritten: 0,
                owner: Owner::Task,
                phase: Phase::Pending,
                reconsider: false,
                probe: Probe::None,
                suspensions: 0,
                direct: false,
            }),
            writer: Mutex::new(None),
        }
    }

    /// From now on frames are accepted, behind those in `before`. False when the session was ended
    /// meanwhile.
    pub fn open(&self, mut before: Lanes) -> bool {
        let mut state = self.state.lock();
        before.append(std::mem::take(&mut state.lanes));
        state.lanes = before;
        match state.phase {
            Phase::Pending => {
                state.phase = Phase::Open;
                true
            }
            Phase::Open => true,
            Phase::Ending(_) | Phase::Left => false,
        }
    }

    /// Why the session was told to end, if it was.
    pub fn ending(&self) -> Option<Ending> {
        self.state.lock().ending()
    }

    /// True if frames may be delivered.
    pub fn standing(&self) -> Standing {
        let state = self.state.lock();
        match &state.phase {
            Phase::Ending(told) => Standing::Ending(told.ending),
            _ if state.suspensions > 0 => Standing::Suspended,
            Phase::Pending | Phase::Open | Phase::Left => Standing::Good,
        }
    }

    /// True if a revocation that may name the session is being read.
    pub fn is_suspended(&self) -> bool {
        self.state.lock().suspensions > 0
    }

    /// True if the session is open: neither opening nor ending.
    pub(crate) fn is_open(&self) -> bool {
        self.state.lock().phase == Phase::Open
    }

    /// True if its task has let go of it.
    pub(crate) fn has_left(&self) -> bool {
        self.state.lock().phase == Phase::Left
    }

    /// Holds back what is queued and will be, until as many [`Outbox::resume`].
    pub(crate) fn suspend(&self) {
        self.state.lock().suspensions += 1;
    }

    /// Undoes one [`Outbox::suspend`].
    pub(crate) fn resume(&self) {
        let mut state = self.state.lock();
        state.suspensions -= 1;
        if state.suspensions == 0 {
            state.owner.wake();
        }
    }

    /// Wakes the task, whatever it waits for.
    pub fn nudge(&self) {
        self.state.lock().owner.wake();
    }

    /// Adds a notice, which leaves past what is queued and though the session may not be written to
    /// otherwise. For the session's task.
    pub fn push_notice(&self, frame: Bytes) {
        self.state.lock().lanes.push_notice(frame);
    }

    /// The number of notices that wait.
    pub fn notices(&self) -> usize {
        self.state.lock().lanes.notices()
    }

    /// For the session's task, while it writes for the last time and the socket takes no more: has it
    /// woken should the session be revoked meanwhile.
    pub fn wake_on_end(&self, cx: &Context<'_>) {
        self.state.lock().owner = Owner::Blocked(cx.waker().clone());
    }

    /// For the session's task, at the end: takes the notices out.
    pub fn take_notices(&self) -> Lanes {
        self.state.lock().lanes.take_notices()
    }

    /// For the session's task, at the end: what was queued and has not left, nor may.
    pub fn undelivered(&self) -> Undelivered {
        let state = self.state.lock();
        let mut undelivered = match &state.phase {
            Phase::Ending(told) => told.let_go,
            Phase::Pending | Phase::Open | Phase::Left => Undelivered::default(),
        };
        undelivered.add(state.lanes.normal(), state.unwritten);
        undelivered
    }

    /// True if a frame is written in part for whose rest the session must have access.
    pub fn is_amid_frame(&self) -> bool {
        self.state.lock().lanes.is_amid_frame()
    }

    /// Queues a frame and wakes the task, unless that takes the queue over `limit` bytes.
    /// `tight`: the node is over its own bound. `arrival`: it is timed. `flushed`: a flusher can be
    /// told instead of the task. `is_notice`: it may leave although the session may not be written to.
    pub(crate) fn push(
        &self,
        frame: Bytes,
        limit: usize,
        tight: bool,
        arrival: Option<&Arrival>,
        flushed: bool,
        is_notice: bool,
    ) -> Pushed {
        let mut state = self.state.lock();
        if state.phase != Phase::Open {
            return Pushed::Closed;
        }
        let limit = if tight { limit.min(TIGHT_BYTES) } else { limit };
        // A queue is never too small for a single frame: only what waits behind it is bounded.
        if state.unwritten > 0 && state.unwritten + frame.len() > limit {
            let (bytes, frames) = state.clear();
            let mut let_go = Undelivered::default();
            // The one that did not fit as well.
            let_go.add(frames + 1, bytes + frame.len());
            state.phase = Phase::Ending(Box::new(Told {
                ending: Ending::new(Disconnect::SLOW_CONSUMER),
                let_go,
            }));
            state.owner.wake();
            return Pushed::Overflowed { bytes, frames };
        }
        state.unwritten += frame.len();
        state.lanes.push(frame, is_notice);
        if let Some(arrival) = arrival {
            state.arrivals.add(arrival);
        }
        // A task that is awake looks for itself, and one that is blocked is woken by what it waits for.
        if state.suspensions > 0 || !state.owner.is_flushers() {
            return Pushed::Queued;
        }
        if !(flushed && state.direct) {
            state.owner.wake();
            return Pushed::Queued;
        }
        match state.owner.become_due() {
            true => Pushed::Due,
            false => Pushed::Queued,
        }
    }

    /// Tells the session to end; the first reason stays, except that a revocation replaces any
    /// other.
    /// Returns whether it did, with how much was let go of the queue.
    pub(crate) fn end(&self, ending: Ending) -> Option<(usize, usize)> {
        let mut state = self.state.lock();
        let mut let_go = match &state.phase {
            Phase::Pending | Phase::Open => Undelivered::default(),
            Phase::Ending(earlier)
                if ending.is_revocation()
                    && ![Disconnect::REVOKED, ending.disconnect]
                        .contains(&earlier.ending.disconnect) =>
            {
                earlier.let_go
            }
            Phase::Ending(_) | Phase::Left => return None,
        };
        let freed = if ending.flushes() {
            (0, 0)
        } else {
            state.clear()
        };
        let_go.add(freed.1, freed.0);
        state.phase = Phase::Ending(Box::new(Told { ending, let_go }));
        state.owner.wake();
        Some(freed)
    }

    pub(crate) fn reconsider(&self) {
        let mut state = self.state.lock();
        state.reconsider = true;
        // A blocked session too: what it may publish has changed as well.
        state.owner.wake();
    }

    /// For the session's task, before it waits: has it woken when there is something to write, or, if
    /// `blocked`, only when the session is to end, its subscriptions are to be decided anew, or it is
    /// nudged. Ready when that is so already.
    pub fn poll_wake(&self, cx: &Context<'_>, blocked: bool) -> Poll<()> {
        let mut state = self.state.lock();
        if state.is_interrupted() || (!blocked && state.has_frames()) {
            return Poll::Ready(());
        }
        let waker = cx.waker().clone();
        state.owner = match blocked {
            true => Owner::Blocked(waker),
            false => Owner::Idle(waker),
        };
        Poll::Pending
    }

    /// The session has left the hub. Lets go of what is queued; returns the bytes and how many frames
    /// that were.
    pub(crate) fn leave(&self) -> (usize, usize) {
        // Nothing is written any more from here on: a receipt may say so.
        self.writer.lock().take();
        let mut state = self.state.lock();
        let bytes = state.unwritten;
        // A frame begun is given up as well.
        state.lanes.take_notices();
        let (_, frames) = state.clear();
        state.unwritten = 0;
        state.phase = Phase::Left;
        (bytes, frames)
    }
}
