//! From the queue straight to the socket, while the session's task waits.

use std::collections::VecDeque;

use bytes::Bytes;
use curfew_ws::{Front, Line};

use super::{Arrival, Outbox, Phase};
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
        self.state.lock().line = Some(line);
    }

    /// For a flusher that was told: writes what is queued to the socket. What the socket does not
    /// take, and what else the session's task has to see to, is left to the task, which is woken.
    /// `may_pass`: whether the node vouches for the session, and its token is good.
    ///
    /// The lock is held meanwhile, for the socket never makes anyone wait: whoever ends or suspends
    /// the session knows afterwards that nothing more leaves.
    pub(crate) fn flush(&self, may_pass: impl FnOnce() -> bool, flushed: &mut Flushed) {
        let mut state = self.state.lock();
        let state = &mut *state;
        state.due = false;
        // Whatever else is to be done has woken the task.
        let waits = state.phase == Phase::Open && state.waker.is_some() && !state.blocked;
        let Some(line) = state.line.as_ref().filter(|_| waits && state.has_frames()) else {
            return;
        };
        if !may_pass() {
            return state.wake();
        }
        let frames = state.queue.len();
        flushed.sent.add(&state.queue);
        let mut written = 0;
        while !state.queue.is_empty() {
            match Front::of(&state.queue, |front| line.try_write(front)) {
                Ok(some) if some > 0 => {
                    written += some;
                    Front::advance(&mut state.queue, some, &mut state.partial);
                }
                // The socket is full, or broken: the task waits for it, or finds out.
                Ok(_) | Err(_) => break,
            }
        }
        state.unwritten -= written;
        flushed.bytes += written;
        if state.queue.is_empty() {
            // An idle session holds no buffer.
            state.queue = VecDeque::new();
            if let Some(mut arrival) = state.oldest_queued.take() {
                arrival.messages = frames;
                flushed.arrivals.push(*arrival);
            }
        } else {
            let begun = usize::from(state.partial);
            flushed.sent.take_back(state.queue.iter().skip(begun));
            state.wake();
        }
    }

    /// For the session's task, each time it wakes and before it does anything: from here until
    /// [`Outbox::poll_wake`] the socket is its own. Returns the rest of a frame that a flusher has
    /// begun to write.
    pub fn claim(&self) -> Option<Bytes> {
        let mut state = self.state.lock();
        state.waker = None;
        if std::mem::take(&mut state.partial) {
            state.queue.pop_front()
        } else {
            None
        }
    }
}
