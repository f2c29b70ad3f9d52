//! From the queue straight to the socket, while the session's task waits.

use std::collections::VecDeque;

use bytes::Bytes;
use curfew_ws::{Front, Line};

use super::{Arrival, Outbox, Phase, State};
use crate::Sent;

/// What flushers wrote.
#[derive(Debug, Default)]
pub(crate) struct Flushed {
    pub(crate) bytes: usize,
    pub(crate) sent: Sent,
    /// Of what was timed.
    pub(crate) arrivals: Vec<Arrival>,
}

impl Outbox {
    /// From now on flushers may write to the socket while the session's task waits in
    /// [`Outbox::poll_wake`].
    pub fn attach(&self, line: Line) {
        *self.line.lock() = Some(line);
        self.state.lock().direct = true;
    }

    /// For a flusher that was told: writes what is queued to the socket. What the socket does not
    /// take, and what else the session's task has to see to, is left to the task, which is woken.
    /// `may_pass`: whether the node vouches for the session, and its token is good.
    ///
    /// Whoever publishes meanwhile is not held up: it would follow from session to session, and
    /// each would get its frames one by one.
    pub(crate) fn flush(&self, may_pass: impl FnOnce() -> bool, flushed: &mut Flushed) {
        let line = self.line.lock();
        let (mut frames, arrival) = {
            let mut state = self.state.lock();
            state.due = false;
            // Whatever else is to be done has woken the task.
            let waits = state.phase == Phase::Open && state.waker.is_some() && !state.blocked;
            if !waits || !state.has_frames() {
                return;
            }
            if !may_pass() {
                return state.wake();
            }
            (std::mem::take(&mut state.queue), state.oldest_queued.take())
        };
        let messages = frames.len();
        flushed.sent.add(&frames);
        let (mut written, mut partial) = (0, false);
        while let Some(line) = line.as_ref()
            && !frames.is_empty()
        {
            match Front::of(&frames, |front| line.try_write(front)) {
                Ok(some) if some > 0 => {
                    written += some;
                    Front::advance(&mut frames, some, &mut partial);
                }
                // The socket is full, or broken: the task waits for it, or finds out.
                Ok(_) | Err(_) => break,
            }
        }
        flushed.bytes += written;
        let mut state = self.state.lock();
        state.unwritten -= written;
        if frames.is_empty() {
            if let Some(mut arrival) = arrival {
                arrival.messages = messages;
                flushed.arrivals.push(*arrival);
            }
            return;
        }
        flushed.sent.take_back(frames.iter().skip(partial.into()));
        state.put_back(frames, partial, arrival);
        state.wake();
    }

    /// For the session's task, each time it wakes and before it does anything: from here until
    /// [`Outbox::poll_wake`] the socket is its own. Returns the rest of a frame that a flusher has
    /// begun to write. A write that a flusher is about is waited for, which never waits itself.
    pub fn claim(&self) -> Option<Bytes> {
        let _line = self.line.lock();
        let mut state = self.state.lock();
        state.waker = None;
        if std::mem::take(&mut state.partial) {
            state.queue.pop_front()
        } else {
            None
        }
    }
}

impl State {
    /// Puts what a flusher took and did not write before what was queued since. Of a session that
    /// was told to end meanwhile only what still may leave: the rest of a frame begun, without which
    /// the task would not know that it was, and what is flushed before the close.
    fn put_back(
        &mut self,
        mut frames: VecDeque<Bytes>,
        partial: bool,
        arrival: Option<Box<Arrival>>,
    ) {
        self.partial = partial;
        if let Phase::Ending(ending) = &self.phase
            && !ending.flushes()
        {
            // The bytes are given back when the session leaves, like those its task had taken.
            frames.truncate(partial.into());
        }
        frames.append(&mut self.queue);
        self.queue = frames;
        self.oldest_queued = arrival.or(self.oldest_queued.take());
    }
}
