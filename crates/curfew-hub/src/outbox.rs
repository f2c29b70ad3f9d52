//! A session's outbound queue: bounded in bytes, filled by anyone, drained by the session's task, or,
//! while that waits, by a flusher straight to the socket.
//!
//! It is also where a session is told to end: whoever revokes it changes the phase under the same
//! lock that guards the queue, so that nothing is queued, and nothing queued is sent, afterwards.

mod direct;

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use curfew_model::{Disconnect, TraceContext};
use curfew_ws::Line;
use parking_lot::Mutex;

pub(crate) use direct::Flushed;

/// While the node is over its own bound, a queue that holds this many bytes counts as overflowing:
/// a reader that keeps up holds less.
const TIGHT_BYTES: usize = 64 * 1024;

/// Why and how the server ends a session.
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

    /// Whether it is a revocation that ends the session.
    pub fn is_revocation(self) -> bool {
        [Disconnect::REVOKED, Disconnect::REAUTH_REQUIRED].contains(&self.disconnect)
    }

    /// Whether frames that are queued still go out before the close. Where access is over, or the
    /// reader does not read, they do not.
    pub fn flushes(self) -> bool {
        !self.disconnect.withdraws_access() && self.disconnect != Disconnect::SLOW_CONSUMER
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// Registered, not yet open: nothing may be queued.
    Pending,
    Open,
    /// Boxed: a session that is not ending need not have the room for it.
    Ending(Box<Ending>),
    /// Out of the hub: nothing is queued or counted any more.
    Left,
}

/// What a session's task finds in its outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outgoing {
    /// Frames were moved to the task's own queue.
    Frames,
    /// The policy changed: every subscription is to be decided anew.
    Reconsider,
    /// The session is to end, after what was moved to the task's own queue.
    End(Ending),
}

/// Whether frames may pass to and from a session, as far as it alone is concerned.
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

/// A publication that is timed on its way to a session.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    /// When it reached this node.
    pub(crate) at: Instant,
    /// Where that is recorded.
    pub(crate) trace: Option<Arc<TraceContext>>,
    /// How many messages the session's task took together with it.
    pub(crate) messages: usize,
}

impl Arrival {
    /// It is here.
    pub(crate) fn now(trace: Option<&TraceContext>) -> Self {
        Self {
            at: Instant::now(),
            trace: trace.map(|trace| Arc::new(*trace)),
            messages: 0,
        }
    }
}

#[derive(Debug)]
struct State {
    queue: VecDeque<Bytes>,
    /// Of the oldest publication in the queue that is timed.
    oldest_queued: Option<Box<Arrival>>,
    /// Likewise of what the task took last and is writing.
    oldest_taken: Option<Box<Arrival>>,
    /// Bytes queued and bytes taken by the task but not yet written.
    unwritten: usize,
    /// Of the task, while it waits; whoever pushes takes it, so one wake-up serves many pushes.
    waker: Option<Waker>,
    phase: Phase,
    reconsider: bool,
    /// The socket takes no more: the task need not be woken for further frames.
    blocked: bool,
    /// Revocation keys that name the session and are being read: nothing leaves meanwhile.
    suspensions: u32,
    /// Flushers can write to the socket, which they may while the task waits: while `waker` is
    /// there, for anything but the socket itself.
    direct: bool,
    /// A flusher was told that something is queued and has not looked yet.
    due: bool,
    /// A flusher wrote part of the front frame. The task, which was woken, has to go on with it
    /// before it writes anything else.
    partial: bool,
}

impl State {
    /// Lets go of what is queued, but for the rest of a frame begun; returns how much.
    fn clear(&mut self) -> (usize, usize) {
        let mut queue = std::mem::take(&mut self.queue);
        if self.partial {
            self.queue.extend(queue.pop_front());
        }
        let frames = queue.len();
        let bytes = queue.iter().map(Bytes::len).sum();
        self.oldest_queued = None;
        self.unwritten -= bytes;
        (bytes, frames)
    }

    /// Times what was just queued, unless something older is.
    #[cold]
    fn time(&mut self, arrival: &Arrival) {
        self.oldest_queued
            .get_or_insert_with(|| Box::new(arrival.clone()));
    }

    /// What is timed was taken, with so many messages in all.
    #[cold]
    fn time_taken(&mut self, messages: usize) {
        self.oldest_taken = self.oldest_queued.take();
        if let Some(arrival) = &mut self.oldest_taken {
            arrival.messages = messages;
        }
    }

    /// Whether frames wait that may leave.
    fn has_frames(&self) -> bool {
        self.suspensions == 0 && !self.queue.is_empty()
    }

    fn interruption(&mut self) -> Option<Outgoing> {
        match &self.phase {
            Phase::Ending(ending) => Some(Outgoing::End(**ending)),
            _ => std::mem::take(&mut self.reconsider).then_some(Outgoing::Reconsider),
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// The queue between everyone who has something for a session and the session's task.
#[derive(Debug)]
pub struct Outbox {
    state: Mutex<State>,
    /// To the socket, past the session's task: held while it is written to, and taken before
    /// `state`.
    line: Mutex<Option<Line>>,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                queue: VecDeque::new(),
                oldest_queued: None,
                oldest_taken: None,
                unwritten: 0,
                waker: None,
                phase: Phase::Pending,
                reconsider: false,
                blocked: false,
                suspensions: 0,
                direct: false,
                due: false,
                partial: false,
            }),
            line: Mutex::new(None),
        }
    }

    /// From now on frames are accepted. False when the session was ended meanwhile.
    pub fn open(&self) -> bool {
        let mut state = self.state.lock();
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
        match &self.state.lock().phase {
            Phase::Ending(ending) => Some(**ending),
            Phase::Pending | Phase::Open | Phase::Left => None,
        }
    }

    /// Whether frames may pass.
    pub fn standing(&self) -> Standing {
        let state = self.state.lock();
        match &state.phase {
            Phase::Ending(ending) => Standing::Ending(**ending),
            _ if state.suspensions > 0 => Standing::Suspended,
            Phase::Pending | Phase::Open | Phase::Left => Standing::Good,
        }
    }

    /// Whether a revocation that may name the session is being read.
    pub fn is_suspended(&self) -> bool {
        self.state.lock().suspensions > 0
    }

    /// Whether the session is open: neither opening nor ending.
    pub(crate) fn is_open(&self) -> bool {
        self.state.lock().phase == Phase::Open
    }

    /// Whether its task has let go of it.
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
            state.wake();
        }
    }

    /// Wakes the task, whatever it waits for.
    pub fn nudge(&self) {
        self.state.lock().wake();
    }

    /// What must be done before anything more is written, however much waits to be: the session is
    /// to end, or its subscriptions are to be decided anew.
    pub fn interruption(&self) -> Option<Outgoing> {
        self.state.lock().interruption()
    }

    /// Queues a frame and wakes the task, unless that takes the queue over `limit` bytes.
    /// `tight`: the node is over its own bound. `arrival`: it is timed. `flushed`: a flusher can be
    /// told instead of the task.
    pub(crate) fn push(
        &self,
        frame: Bytes,
        limit: usize,
        tight: bool,
        arrival: Option<&Arrival>,
        flushed: bool,
    ) -> Pushed {
        let mut state = self.state.lock();
        if state.phase != Phase::Open {
            return Pushed::Closed;
        }
        let limit = if tight { limit.min(TIGHT_BYTES) } else { limit };
        // A queue is never too small for a single frame: only what waits behind it is bounded.
        if state.unwritten > 0 && state.unwritten + frame.len() > limit {
            let (bytes, frames) = state.clear();
            state.phase = Phase::Ending(Box::new(Ending::new(Disconnect::SLOW_CONSUMER)));
            state.wake();
            return Pushed::Overflowed { bytes, frames };
        }
        state.unwritten += frame.len();
        state.queue.push_back(frame);
        if let Some(arrival) = arrival {
            state.time(arrival);
        }
        if state.blocked || state.suspensions > 0 {
            return Pushed::Queued;
        }
        // A task that is awake looks for itself.
        if flushed && state.direct && state.waker.is_some() {
            if std::mem::replace(&mut state.due, true) {
                return Pushed::Queued;
            }
            return Pushed::Due;
        }
        state.wake();
        Pushed::Queued
    }

    /// Tells the session to end; the first reason stays, except that a revocation replaces any
    /// other.
    /// Returns whether it did, with how much was let go of the queue.
    pub(crate) fn end(&self, ending: Ending) -> Option<(usize, usize)> {
        let mut state = self.state.lock();
        match &state.phase {
            Phase::Pending | Phase::Open => {}
            Phase::Ending(earlier)
                if earlier.disconnect != Disconnect::REVOKED && ending.is_revocation() => {}
            Phase::Ending(_) | Phase::Left => return None,
        }
        state.phase = Phase::Ending(Box::new(ending));
        let freed = if ending.flushes() {
            (0, 0)
        } else {
            state.clear()
        };
        state.wake();
        Some(freed)
    }

    pub(crate) fn reconsider(&self) {
        let mut state = self.state.lock();
        state.reconsider = true;
        // A blocked session too: what it may publish has changed as well.
        state.wake();
    }

    /// For the session's task: takes what is queued into `taken`, which must be empty, and says
    /// what else is to be done; `None` when there is nothing. `written` says how many of the bytes
    /// taken before have been written since.
    ///
    /// Until [`Outbox::poll_wake`] the task is not woken. `delivered` becomes the oldest timed
    /// publication taken before, all of which has been written, unless the session is ending.
    pub(crate) fn take(
        &self,
        written: usize,
        taken: &mut VecDeque<Bytes>,
        delivered: &mut Option<Box<Arrival>>,
    ) -> Option<Outgoing> {
        let mut state = self.state.lock();
        state.unwritten -= written;
        state.waker = None;
        // A task that is told to end may not have written what it took.
        if state.oldest_taken.is_some() && !matches!(state.phase, Phase::Ending(_)) {
            *delivered = state.oldest_taken.take();
        }
        match state.interruption() {
            Some(Outgoing::End(ending)) => {
                std::mem::swap(&mut state.queue, taken);
                Some(Outgoing::End(ending))
            }
            // Before the frames: a channel that is never quiet must not put it off.
            Some(interruption) => Some(interruption),
            None if state.has_frames() => {
                std::mem::swap(&mut state.queue, taken);
                if state.oldest_queued.is_some() {
                    state.time_taken(taken.len());
                }
                Some(Outgoing::Frames)
            }
            None => {
                // An idle session holds no buffer, nor does one whose frames are held back.
                *taken = VecDeque::new();
                None
            }
        }
    }

    /// For the session's task, before it waits: has it woken when there is something to take, or,
    /// if `blocked`, only for an [`Outbox::interruption`]. Ready when that is so already.
    pub fn poll_wake(&self, cx: &Context<'_>, blocked: bool) -> Poll<()> {
        let mut state = self.state.lock();
        let interrupted = matches!(state.phase, Phase::Ending(_)) || state.reconsider;
        if interrupted || (!blocked && state.has_frames()) {
            return Poll::Ready(());
        }
        state.waker = Some(cx.waker().clone());
        state.blocked = blocked;
        Poll::Pending
    }

    /// The session has left the hub. Lets go of what is queued; returns how many frames that were,
    /// and the bytes that were not written, those in the task's own queue included.
    pub(crate) fn leave(&self) -> (usize, usize) {
        // Nothing is written any more from here on: somebody may be told so.
        self.line.lock().take();
        let mut state = self.state.lock();
        let bytes = state.unwritten;
        let (_, frames) = state.clear();
        state.unwritten = 0;
        state.phase = Phase::Left;
        (bytes, frames)
    }
}
