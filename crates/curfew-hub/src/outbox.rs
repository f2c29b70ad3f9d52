//! A session's outbound queue, bounded in bytes. Any task may push frames for the session. The
//! session's task writes them to the socket; while that task sleeps, a flusher writes them.
//!
//! Other tasks also end a session through its queue. A revocation changes the phase under the lock
//! that guards the queue: no frame is queued afterwards, and no queued frame is sent.
//!
//! A frame waits in the [`Lanes`] until a write takes it. Every write goes through [`write`]. The
//! socket has one owner at a time. In the table, a row is an owner and a column is an event; a cell
//! says what follows the event, and names the next owner if the owner changes:
//!
//! | owner | a frame is pushed | an ending, a policy change, a nudge | the task is polled | the task waits | a flusher looks |
//! | --- | --- | --- | --- | --- | --- |
//! | task | the task finds it | the task finds it | task | idle, or blocked | leaves it alone |
//! | idle | due, and a flusher is notified; without a flusher, task | task, woken | task | | writes; wakes the task for the rest |
//! | due | stays due | task, woken | task | | idle, and writes as above |
//! | blocked | waits | task, woken | task | | leaves it alone |
//!
//! A *blocked* task waits for room in the socket, for the lease, or until a revocation has been
//! read. The task is nudged when the lease is held again, and when the revocation has been read.

mod arrival;
mod ending;
mod lanes;
mod owner;
mod probe;
mod withdraw;
mod write;

use std::task::{Context, Poll};

use bytes::Bytes;
use curfew_model::{Channel, Disconnect};
use curfew_ws::DirectWriter;
use parking_lot::Mutex;

use arrival::Arrivals;
use ending::QueuedEnding;
use lanes::WriteOutcome;
use owner::Owner;
use probe::Probe;
use write::{Turn, Withheld};

pub(crate) use arrival::Arrival;
pub use ending::{Ending, Undelivered};
pub use lanes::Lanes;
pub use probe::Sign;
pub(crate) use withdraw::Mark;
pub(crate) use write::{Access, Tally};
pub use write::{HeldBack, Progress};

/// Bound of each queue while all queues together are over the node's bound. The queue of a client
/// that keeps up is shorter.
const TIGHT_BYTES: usize = 64 * 1024;

/// The bound of a queue, in bytes. `limit` is the configured bound.
fn bound(limit: usize, tight: bool) -> usize {
    if tight { limit.min(TIGHT_BYTES) } else { limit }
}

/// The stage of a session's life, as far as its queue is concerned.
#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// Registered and not yet open: nothing may be queued.
    Pending,
    /// Frames are queued and delivered.
    Open,
    /// Told to end. The ending is boxed, so that other sessions do not hold memory for it.
    Ending(Box<QueuedEnding>),
    /// Removed from the hub: nothing is queued or counted.
    Left,
}

/// A session's access, as far as its queue knows it: an ending, or a revocation that may name the
/// session and is being read. The lease and the token's end are checked separately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Frames may be sent.
    Good,
    /// Frames wait: a revocation that may name the session is being read.
    Suspended,
    /// The session was told to end.
    Ending(Ending),
}

/// The outcome of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// The frame is queued.
    Queued,
    /// The frame overflowed the queue, and the session ends as a slow consumer. The queue dropped
    /// `frames` frames of `bytes` bytes in total; the new frame is not counted.
    Overflowed { bytes: usize, frames: usize },
    /// The session is not open.
    Closed,
    /// The frame is queued, and the caller must notify a flusher: see [`Outbox::flush`].
    Due,
}

/// The part of the outbox that its lock guards.
#[derive(Debug)]
struct QueueState {
    lanes: Lanes,
    /// Timed publications that are not written yet.
    arrivals: Arrivals,
    /// Bytes of the normal lane, including the bytes that are taken out for a write in progress.
    unwritten: usize,
    owner: Owner,
    phase: Phase,
    /// True if the session must authorize its subscriptions again.
    reconsider: bool,
    probe: Probe,
    /// The number of revocation keys that may name the session and are being read. No normal frame
    /// is sent while this number is above 0.
    suspensions: u32,
    /// True if flushers can write to the socket.
    direct: bool,
}

impl QueueState {
    /// Drops the normal lane, except for the rest of a partly written frame. Returns the dropped
    /// bytes and frames.
    fn clear(&mut self) -> (usize, usize) {
        let (bytes, frames) = self.lanes.clear();
        self.arrivals.clear();
        self.unwritten -= bytes;
        (bytes, frames)
    }

    /// True if a frame waits and may be sent, as far as the queue knows.
    fn has_frames(&self) -> bool {
        self.lanes.notices() > 0 || (self.suspensions == 0 && self.lanes.normal() > 0)
    }

    /// The reason for which the session was told to end; `None` if it was not told to end.
    fn ending(&self) -> Option<Ending> {
        match &self.phase {
            Phase::Ending(told) => Some(told.ending),
            Phase::Pending | Phase::Open | Phase::Left => None,
        }
    }

    /// True if the session's task has work more urgent than frames.
    fn is_interrupted(&self) -> bool {
        self.reconsider || self.probe == Probe::Asked || matches!(self.phase, Phase::Ending(_))
    }

    /// Returns the work that comes before any write, or `None` if the write may go on. `flushing`
    /// is the number of frames that a flusher still has to write, once it has begun.
    fn before_writing(&mut self, turn: Turn, flushing: &mut Option<usize>) -> Option<Progress> {
        match turn {
            Turn::Live => match self.ending() {
                Some(ending) => Some(Progress::End(ending)),
                // The subscriptions are authorized before frames are written: a busy channel must
                // not delay the authorization.
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
                    // Frames pushed while a flusher writes are left to the flusher's next pass, so
                    // that one busy session does not occupy the flusher.
                    Some(_) => self.owner.is_flushers(),
                    None => self.owner.begin_flush(),
                };
                flushing.get_or_insert(self.lanes.normal());
                (!goes_on).then_some(Progress::Done)
            }
        }
    }

    /// The reason for which normal frames may not be sent. The lease and the token's end are
    /// checked separately.
    fn withheld(&self) -> Option<Withheld> {
        match self.ending() {
            Some(ending) if ending.withholds() => Some(Withheld::Ended(ending)),
            _ => (self.suspensions > 0).then_some(Withheld::For(HeldBack::Suspended)),
        }
    }

    /// Moves the notices out of the normal lane, so that they are sent while normal frames are
    /// withheld. Returns the bytes of these notices, which no longer count as queued.
    fn release_notices(&mut self) -> usize {
        let bytes = self.lanes.release_notices();
        self.unwritten -= bytes;
        bytes
    }

    /// Takes the lanes out for a write without the lock; [`QueueState::put_back`] puts them back.
    fn take_lanes(&mut self) -> Lanes {
        self.arrivals.taken(self.lanes.normal());
        std::mem::take(&mut self.lanes)
    }

    /// Puts unwritten frames back, ahead of frames queued since, and adds the result of the write
    /// to `tally`.
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
        // If the session was told to end during the write, `end` could not clear the lanes, because
        // the write had taken them out.
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

/// The queue between the tasks that push frames for a session and the session's task.
#[derive(Debug)]
pub struct Outbox {
    state: Mutex<QueueState>,
    /// The flushers' access to the socket. The lock is held during a flusher's write, and is taken
    /// before `state`.
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

    /// Accepts frames from now on, behind the frames in `before`. Returns false if the session was
    /// told to end meanwhile.
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

    /// The reason for which the session was told to end; `None` if it was not told to end.
    pub fn ending(&self) -> Option<Ending> {
        self.state.lock().ending()
    }

    /// The part of the session's access that the queue knows.
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

    /// True if the session has left the hub.
    pub(crate) fn has_left(&self) -> bool {
        self.state.lock().phase == Phase::Left
    }

    /// Holds back normal frames until a matching [`Outbox::resume`].
    pub(crate) fn suspend(&self) {
        self.state.lock().suspensions += 1;
    }

    /// Undoes one [`Outbox::suspend`]. The call that undoes the last suspension wakes the task.
    pub(crate) fn resume(&self) {
        let mut state = self.state.lock();
        state.suspensions -= 1;
        if state.suspensions == 0 {
            state.owner.wake();
        }
    }

    /// Wakes the task, even if it waits for room in the socket.
    pub fn nudge(&self) {
        self.state.lock().owner.wake();
    }

    /// For the session's task: adds a notice. The notice is sent ahead of normal frames, and also
    /// while normal frames are withheld.
    pub fn push_notice(&self, frame: Bytes) {
        self.state.lock().lanes.push_notice(frame);
    }

    /// For the session's task, before its first write: queues a frame ahead of all others. The
    /// frame is the answer that opens the session. The answer is complete only after other frames
    /// are queued, but must be sent before them. `of` lists the channels whose publications the
    /// answer contains. Returns the size of the frame, or 0 if the frame is not queued.
    pub(crate) fn push_first(&self, frame: Bytes, of: Vec<Channel>) -> usize {
        let mut state = self.state.lock();
        if state.phase != Phase::Open {
            return 0;
        }
        let size = frame.len();
        state.unwritten += size;
        let marks = of.into_iter().map(Mark::Answer).collect();
        state.lanes.push_first(frame, marks);
        size
    }

    /// The number of notices that wait.
    pub fn notices(&self) -> usize {
        self.state.lock().lanes.notices()
    }

    /// For the session's task, before each write after the session was told to end: registers the
    /// task's waker. Such a write may have to wait for room in the socket, and a revocation wakes
    /// the task during that wait.
    pub fn wake_on_end(&self, cx: &Context<'_>) {
        self.state.lock().owner = Owner::Blocked(cx.waker().clone());
    }

    /// For the session's task, at the end of the session: takes the notices out.
    pub fn take_notices(&self) -> Lanes {
        self.state.lock().lanes.take_notices()
    }

    /// For the session's task, at the end of the session: the frames that were queued and will not
    /// be delivered.
    pub fn undelivered(&self) -> Undelivered {
        let state = self.state.lock();
        let mut undelivered = match &state.phase {
            Phase::Ending(told) => told.let_go,
            Phase::Pending | Phase::Open | Phase::Left => Undelivered::default(),
        };
        undelivered.add(state.lanes.normal(), state.unwritten);
        undelivered
    }

    /// True if a frame is written in part and the rest of it needs access.
    pub fn is_amid_frame(&self) -> bool {
        self.state.lock().lanes.is_amid_frame()
    }

    /// Queues a frame. Wakes the task, or makes the caller notify a flusher ([`Pushed::Due`]). If
    /// the queue would exceed `limit` bytes, the session ends instead.
    ///
    /// - `tight`: true if the queues of the node together exceed the node's bound.
    /// - `arrival`: given if the delivery of the publication is timed.
    /// - `flushed`: true if a flusher may write the frame instead of the session's task.
    /// - `mark`: a fact about the frame that its bytes do not show.
    pub(crate) fn push(
        &self,
        frame: Bytes,
        limit: usize,
        tight: bool,
        arrival: Option<&Arrival>,
        flushed: bool,
        mark: Option<&Mark>,
    ) -> Pushed {
        let mut state = self.state.lock();
        if state.phase != Phase::Open {
            // The caller counts the frame as dropped.
            return Pushed::Closed;
        }
        let limit = bound(limit, tight);
        // A frame always fits an empty queue: `limit` bounds only the frames behind that frame.
        if state.unwritten > 0 && state.unwritten + frame.len() > limit {
            let (bytes, frames) = state.clear();
            let mut let_go = Undelivered::default();
            // The frame that did not fit is dropped as well.
            let_go.add(frames + 1, bytes + frame.len());
            state.phase = Phase::Ending(Box::new(QueuedEnding {
                ending: Ending::new(Disconnect::SLOW_CONSUMER),
                let_go,
            }));
            state.owner.wake();
            return Pushed::Overflowed { bytes, frames };
        }
        state.unwritten += frame.len();
        state.lanes.push(frame, mark);
        if let Some(arrival) = arrival {
            state.arrivals.add(arrival);
        }
        // A running task looks at the queue itself, and a blocked task is woken when its wait ends.
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

    /// The number of bytes that the queue still takes before it overflows.
    pub(crate) fn room(&self, limit: usize, tight: bool) -> usize {
        bound(limit, tight).saturating_sub(self.state.lock().unwritten)
    }

    /// Tells the session to end. The first reason stays, unless the new reason [replaces
    /// it](Ending::replaces). Returns the bytes and frames dropped from the queue, or `None` if the
    /// first reason stays.
    pub(crate) fn end(&self, ending: Ending) -> Option<(usize, usize)> {
        let mut state = self.state.lock();
        let mut let_go = match &state.phase {
            Phase::Pending | Phase::Open => Undelivered::default(),
            Phase::Ending(earlier) if ending.replaces(earlier.ending) => earlier.let_go,
            Phase::Ending(_) | Phase::Left => return None,
        };
        let freed = if ending.flushes() {
            (0, 0)
        } else {
            state.clear()
        };
        let_go.add(freed.1, freed.0);
        state.phase = Phase::Ending(Box::new(QueuedEnding { ending, let_go }));
        state.owner.wake();
        Some(freed)
    }

    /// Makes the session authorize its subscriptions again.
    pub(crate) fn reconsider(&self) {
        let mut state = self.state.lock();
        state.reconsider = true;
        // A blocked session is woken too: its permission to publish may have changed as well.
        state.owner.wake();
    }

    /// For the session's task, before it waits. If there is work already, the result is ready.
    /// Otherwise the task's waker is registered.
    ///
    /// The task is woken when there is something to write. If `blocked`, it is woken only when the
    /// session is told to end, when its subscriptions are to be authorized again, or when the task
    /// is nudged.
    pub fn poll_wake(&self, cx: &Context<'_>, blocked: bool) -> Poll<()> {
        let mut state = self.state.lock();
        if state.is_interrupted() || (!blocked && state.has_frames()) {
            // The check is made under the lock that a push takes, so that no wake-up is lost.
            return Poll::Ready(());
        }
        let waker = cx.waker().clone();
        state.owner = match blocked {
            true => Owner::Blocked(waker),
            false => Owner::Idle(waker),
        };
        Poll::Pending
    }

    /// Drops all queued frames, and refuses new frames. Returns the dropped bytes and frames.
    pub(crate) fn leave(&self) -> (usize, usize) {
        // The lock of `writer` is taken first. This waits for a write in progress. Once the phase
        // has changed, the receipt of a revocation may say that nothing more is written.
        self.writer.lock().take();
        let mut state = self.state.lock();
        let bytes = state.unwritten;
        // A partly written notice is dropped as well.
        state.lanes.take_notices();
        let (_, frames) = state.clear();
        state.unwritten = 0;
        state.phase = Phase::Left;
        (bytes, frames)
    }
}
