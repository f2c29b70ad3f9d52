//! Flushers: tasks of the node that write to the sockets of sessions whose own tasks wait.
//!
//! A delivery at a low rate is one system call and whatever stands around it. Waking a task for each
//! and finding out what it is to do costs a quarter of that call; going through a list of those that
//! are due costs next to nothing.

use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use curfew_model::Clock;
use parking_lot::Mutex;

use crate::outbox::Flushed;
use crate::{Hub, Member};

/// Members that wait for a flusher, for each flusher; none until [`Hub::set_flushers`].
#[derive(Debug, Default)]
pub(crate) struct Flushers(OnceLock<Box<[Mutex<Due>]>>);

#[derive(Debug, Default)]
struct Due {
    members: Vec<Arc<Member>>,
    /// Of the flusher, while it waits.
    waker: Option<Waker>,
}

impl Flushers {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.get().is_none()
    }

    /// Tells the member's flusher: always the same, which keeps what is written to it in order.
    pub(crate) fn tell(&self, member: &Arc<Member>) {
        let Some(flushers) = self.0.get() else { return };
        let mut due = flushers[member.slot as usize % flushers.len()].lock();
        due.members.push(Arc::clone(member));
        let waker = due.waker.take();
        drop(due);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Hub {
    /// Leaves publications to `count` flushers, each of which waits by [`Hub::poll_due`] with its
    /// own number below `count`. Until then sessions' own tasks write them. Once for a hub.
    pub fn set_flushers(&self, count: usize) {
        let flushers = (0..count.max(1)).map(|_| Mutex::default()).collect();
        // A second time changes nothing: members may be waiting already.
        self.flushers.0.get_or_init(|| flushers);
    }

    /// For a flusher: ready when members are due.
    pub fn poll_due(&self, flusher: usize, cx: &Context<'_>) -> Poll<()> {
        let Some(due) = self.flushers.0.get().and_then(|all| all.get(flusher)) else {
            return Poll::Pending;
        };
        let mut due = due.lock();
        if due.members.is_empty() {
            due.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// For a flusher: takes the members that are due, into `members`, which must be empty.
    pub fn take_due(&self, flusher: usize, members: &mut Vec<Arc<Member>>) {
        if let Some(due) = self.flushers.0.get().and_then(|all| all.get(flusher)) {
            std::mem::swap(&mut due.lock().members, members);
        }
    }

    /// For a flusher: writes what is queued for members that were due.
    pub fn flush(&self, members: &[Arc<Member>], clock: &dyn Clock) {
        let mut flushed = Flushed::default();
        for member in members {
            // Asked for each: this process may be stopped between two.
            let may_pass = || self.gate().is_open() && clock.now() < member.ends_at();
            member.outbox().flush(may_pass, &mut flushed);
        }
        self.give_back(flushed.bytes);
        self.metrics().sent_bytes.inc_by(flushed.bytes as u64);
        flushed.sent.count(self.metrics());
        for arrival in &flushed.arrivals {
            self.observe_delivery(arrival);
        }
    }
}
