//! Flushers: tasks of the node that write to the sockets of sessions whose own tasks wait.
//!
//! A delivery at a low rate is one system call and whatever stands around it. Waking a task for each
//! and finding out what it is to do costs a quarter of that call; going through a list of those that
//! are due costs next to nothing.

use std::mem::take;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use curfew_model::Clock;
use parking_lot::Mutex;

use crate::outbox::{Access, Tally};
use crate::{Hub, Member};

/// So many members are worth another flusher's while: some 5 ms of work. Fewer are better left to
/// one, which goes through them when publishers pause, and finds more to write to each.
const SHARE: usize = 1024;

/// None until [`Hub::set_flushers`].
#[derive(Debug, Default)]
pub(crate) struct Flushers(OnceLock<All>);

#[derive(Debug)]
struct All {
    /// Members that wait for a flusher, for each flusher.
    due: Box<[Mutex<Due>]>,
    /// Which of them is told.
    nearest: fn() -> usize,
}

#[derive(Debug, Default)]
struct Due {
    members: Vec<Arc<Member>>,
    /// Handed over by a flusher that had more than enough; not handed on.
    shares: Vec<Arc<Member>>,
    /// Of the flusher, while it waits.
    waker: Option<Waker>,
}

impl Flushers {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.get().is_none()
    }

    fn due(&self, flusher: usize) -> Option<&Mutex<Due>> {
        self.0.get()?.due.get(flusher)
    }

    /// Tells a flusher of a member: the nearest, which runs when the publisher pauses. Another
    /// processor would be woken for each few deliveries, and take them one by one.
    pub(crate) fn tell(&self, member: &Arc<Member>) {
        let Some(all) = self.0.get() else { return };
        let due = &all.due[(all.nearest)() % all.due.len()];
        Due::add(due, |due| due.members.push(Arc::clone(member)));
    }

    /// Leaves other flushers their share of `members`, if these are many: of a publication to
    /// thousands the last should not wait for one processor.
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
    fn add(due: &Mutex<Self>, add: impl FnOnce(&mut Self)) {
        let mut due = due.lock();
        add(&mut due);
        let waker = due.waker.take();
        drop(due);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn is_empty(&self) -> bool {
        self.members.is_empty() && self.shares.is_empty()
    }
}

impl Hub {
    /// Leaves publications to `count` flushers, each of which waits by [`Hub::poll_due`] with its
    /// own number below `count`. `nearest` is the number of the one that is told where it is called.
    /// Until then sessions' own tasks write publications. Once for a hub.
    pub fn set_flushers(&self, count: usize, nearest: fn() -> usize) {
        // A second time changes nothing: members may be waiting already.
        self.flushers.0.get_or_init(|| All {
            due: (0..count.max(1)).map(|_| Mutex::default()).collect(),
            nearest,
        });
    }

    /// For a flusher: ready when members are due.
    pub fn poll_due(&self, flusher: usize, cx: &Context<'_>) -> Poll<()> {
        let Some(due) = self.flushers.due(flusher) else {
            return Poll::Pending;
        };
        let mut due = due.lock();
        if due.is_empty() {
            due.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// For a flusher: takes the members that are due, but for the share of others, if these are
    /// many.
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

    /// For a flusher: writes what is queued for members that were due.
    pub fn flush(&self, members: &[Arc<Member>], clock: &dyn Clock) {
        let mut tally = Tally::default();
        let wall = Some(clock.now());
        for member in members {
            let access = self.access(member, clock, wall);
            member.outbox().flush(access, &mut tally);
        }
        self.count_written(&tally);
    }

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

    /// Counts what left for sockets.
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
