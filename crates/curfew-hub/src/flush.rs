//! Flushers: tasks of the node that write to the sockets of sessions whose own tasks wait.
//!
//! Below saturation, a delivery costs about as much as one system call. Waking a session's task for
//! each delivery adds a quarter of that cost; walking a list of the due sessions adds almost
//! nothing.

use std::mem::take;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use curfew_model::Clock;
use parking_lot::Mutex;

use crate::outbox::{Access, Tally};
use crate::{Hub, Member};

/// Minimum list length for splitting work between flushers (about 5 ms of writes). A shorter list
/// is written by one flusher alone: that flusher runs when publishers pause, and by then finds
/// several frames to write to each session.
const SHARE: usize = 1024;

/// The flushers of a node. There are none before [`Hub::set_flushers`].
#[derive(Debug, Default)]
pub(crate) struct Flushers(OnceLock<All>);

/// The flushers and their work.
#[derive(Debug)]
struct All {
    /// Members waiting for a flusher, one list for each flusher.
    due: Box<[Mutex<Due>]>,
    /// Returns the number of the flusher that the calling thread should notify.
    nearest: fn() -> usize,
}

/// The work of one flusher.
#[derive(Debug, Default)]
struct Due {
    /// Members that publishers have reported to this flusher.
    members: Vec<Arc<Member>>,
    /// Members handed over by another flusher, whose list was long. They are not handed over again,
    /// so that each member moves only once.
    shares: Vec<Arc<Member>>,
    /// The waker of the flusher while it waits.
    waker: Option<Waker>,
}

impl Flushers {
    /// True if the node has no flushers yet: [`Hub::set_flushers`] was not called.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.get().is_none()
    }

    fn due(&self, flusher: usize) -> Option<&Mutex<Due>> {
        self.0.get()?.due.get(flusher)
    }

    /// Reports a member to the nearest flusher. That flusher runs when the publisher pauses; a
    /// flusher on another processor would wake up for every few deliveries and write them one by
    /// one.
    pub(crate) fn tell(&self, member: &Arc<Member>) {
        let Some(all) = self.0.get() else { return };
        let due = &all.due[(all.nearest)() % all.due.len()];
        Due::add(due, |due| due.members.push(Arc::clone(member)));
    }

    /// Moves shares of a long list to other flushers, so that the last listener of a large channel
    /// does not wait until one processor has written to all other listeners.
    pub(crate) fn share(&self, flusher: usize, members: &mut Vec<Arc<Member>>) {
        let Some(all) = self.0.get() else { return };
        let shares = (members.len() / SHARE).clamp(1, all.due.len());
        let share = members.len().div_ceil(shares);
        for other in 1..shares {
            let due = &all.due[(flusher + other) % all.due.len()];
            let at = members.len().saturating_sub(share);
            Due::add(due, |due| due.shares.extend(members.drain(at..)));
        }
    }
}

impl Due {
    /// Adds work with `add`, and wakes the flusher if it waits.
    fn add(due: &Mutex<Self>, add: impl FnOnce(&mut Self)) {
        let mut due = due.lock();
        add(&mut due);
        // The waker is called after the lock is released: the woken flusher needs the lock at once.
        let waker = due.waker.take();
        drop(due);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// True if the flusher has nothing to do.
    fn is_empty(&self) -> bool {
        self.members.is_empty() && self.shares.is_empty()
    }
}

impl Hub {
    /// Lets `count` flushers write publications. Flusher `n`, below `count`, waits in
    /// [`Hub::poll_due`]. `nearest` returns the number of the flusher that the calling thread
    /// should notify.
    ///
    /// Before this call, the sessions' own tasks write publications. Only the first call has an
    /// effect.
    pub fn set_flushers(&self, count: usize, nearest: fn() -> usize) {
        // A second call changes nothing: members may be waiting already.
        self.flushers.0.get_or_init(|| All {
            due: (0..count.max(1)).map(|_| Mutex::default()).collect(),
            nearest,
        });
    }

    /// For a flusher: ready when its list of members that are due is not empty.
    pub fn poll_due(&self, flusher: usize, cx: &Context<'_>) -> Poll<()> {
        let Some(due) = self.flushers.due(flusher) else {
            return Poll::Pending;
        };
        // The list is checked and the waker is stored under one lock. Otherwise a member added in
        // between would wake no flusher.
        let mut due = due.lock();
        if due.is_empty() {
            due.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// For a flusher: takes the members that are due, after giving other flushers their shares of a
    /// long list.
    pub fn take_due(&self, flusher: usize) -> Vec<Arc<Member>> {
        let Some(due) = self.flushers.due(flusher) else {
            return Vec::new();
        };
        let (mut members, shares) = {
            let mut due = due.lock();
            (take(&mut due.members), take(&mut due.shares))
        };
        self.flushers.share(flusher, &mut members);
        members.extend(shares);
        members
    }

    /// For a flusher: writes the queues of members that were due.
    pub fn flush(&self, members: &[Arc<Member>], clock: &dyn Clock) {
        let mut tally = Tally::default();
        let wall = Some(clock.now());
        for member in members {
            let access = self.access(member, clock, wall);
            member.outbox().flush(access, &mut tally);
        }
        self.count_written(&tally);
    }

    /// Collects the values by which one write checks the access of `member`.
    pub(crate) fn access<'a>(
        &'a self,
        member: &'a Member,
        clock: &'a dyn Clock,
        wall: Option<Duration>,
    ) -> Access<'a> {
        Access {
            lease: self.lease(),
            clock,
            wall,
            member,
        }
    }

    /// Adds the results of writes to the metrics, and subtracts the freed bytes from the node's
    /// total.
    pub(crate) fn count_written(&self, tally: &Tally) {
        self.give_back(tally.freed);
        let metrics = self.metrics();
        metrics.sent_bytes.inc_by(tally.bytes as u64);
        tally.frame_counts.count(metrics);
        for arrival in &tally.arrivals {
            self.observe_delivery(arrival);
        }
        if let Some((ending, frames)) = tally.dropped {
            self.count_ended(ending, frames);
        }
    }
}
