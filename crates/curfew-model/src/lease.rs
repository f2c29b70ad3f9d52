//! The delivery lease: the right of a node to deliver, and to act on commands, at this moment.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Not held.
const NOT_HELD: u64 = 0;

/// Held for good: the sessions depend on nothing that could be out of reach.
const PERPETUAL: u64 = u64::MAX;

/// Time since the system started, time asleep included (`CLOCK_BOOTTIME`): what leases are measured
/// by. A stopped process or a suspended machine finds that it went on.
pub fn boottime() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    // Neither part of a time since the start is negative, nor is a second's part a second long.
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or_default(),
        u32::try_from(now.tv_nsec).unwrap_or_default(),
    )
}

/// The delivery lease of a node: asked before each message of a client is acted on, and before each
/// write to a socket. Two atomic loads and a look at the clock.
///
/// A backend that can be out of reach renews it for a time each time it has proof that the node
/// knows every revocation; it ends by itself when that time is over, also for a process that was
/// stopped meanwhile. A process that was stopped for less than the lease has revocations in its
/// sockets that it has not read: where [signs of life](DeliveryLease::note_alive) are given, it is lost from the
/// moment such a process goes on until it has asked the backend once more.
pub struct DeliveryLease {
    /// Nanoseconds of [`boottime`].
    held_until: AtomicU64,
    /// Until when, in the same unit, this process counts as running; [`PERPETUAL`] where no signs of
    /// life are given, [`NOT_HELD`] from a stop until the lease is renewed.
    running_until: AtomicU64,
    /// Locked while the lease is renewed and while a stop is found.
    liveness: Mutex<Liveness>,
}

#[derive(Debug, Default)]
struct Liveness {
    /// Until when the last one counts; `None` before the first.
    counts_until: Option<Duration>,
    /// The number of times this process was found to have been stopped.
    stops: u64,
}

/// The lease at one moment. Load it first, look at the session second, and ask whether it
/// holds last: the session's state is then at least as new as the proof that the lease rests on, and
/// a process that was stopped in between finds that it does not hold.
#[derive(Debug, Clone, Copy)]
pub struct LeaseSnapshot(u64);

impl LeaseSnapshot {
    /// True if frames may be delivered by it now.
    pub fn holds(self) -> bool {
        match self.0 {
            NOT_HELD => false,
            PERPETUAL => true,
            until => nanoseconds(boottime()) < until,
        }
    }
}

/// Names the time between two stops of this process. See [`DeliveryLease::renew`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch(u64);

impl DeliveryLease {
    fn new(held_until: u64) -> Self {
        Self {
            held_until: AtomicU64::new(held_until),
            running_until: AtomicU64::new(PERPETUAL),
            liveness: Mutex::default(),
        }
    }

    /// Never ends.
    pub fn perpetual() -> Self {
        Self::new(PERPETUAL)
    }

    /// Not held until it is renewed.
    pub fn not_held() -> Self {
        Self::new(NOT_HELD)
    }

    /// The lease as it is now.
    pub fn snapshot(&self) -> LeaseSnapshot {
        let until = self.held_until.load(Ordering::SeqCst);
        LeaseSnapshot(until.min(self.running_until.load(Ordering::SeqCst)))
    }

    /// True if frames may be delivered.
    pub fn is_held(&self) -> bool {
        self.snapshot().holds()
    }

    /// Until when, of [`boottime`], what is accepted at this moment may take effect; `None` while
    /// it is not held.
    pub fn held_until(&self) -> Option<Duration> {
        match self.held_until.load(Ordering::SeqCst) {
            NOT_HELD => None,
            PERPETUAL => Some(Duration::MAX),
            until => LeaseSnapshot(until)
                .holds()
                .then(|| Duration::from_nanos(until)),
        }
    }

    /// True if it is lost only because this process was stopped for a moment: it is held again, or lost
    /// for longer, within a round trip.
    pub fn is_catching_up(&self) -> bool {
        !self.is_held() && LeaseSnapshot(self.held_until.load(Ordering::SeqCst)).holds()
    }

    /// The stretch of time that this process is in: taken before the backend is asked for proof.
    pub fn stretch(&self) -> Stretch {
        Stretch(self.liveness_state().stops)
    }

    /// Renews it until `until` (of [`boottime`]), on proof that was asked for in `stretch`. `None`, and
    /// nothing is done, if the process was stopped since; else true if it was not held.
    pub fn renew(&self, until: Duration, stretch: Stretch) -> Option<bool> {
        let liveness = self.liveness_state();
        if Stretch(liveness.stops) != stretch {
            return None;
        }
        let before = self.snapshot();
        self.held_until.store(nanoseconds(until), Ordering::SeqCst);
        if let Some(until) = liveness.counts_until {
            self.running_until
                .store(nanoseconds(until), Ordering::SeqCst);
        }
        // By a clock read afterwards: all who saw it lost have done so by now.
        Some(!before.holds())
    }

    /// Ends it at once.
    pub fn expire(&self) {
        self.held_until.store(NOT_HELD, Ordering::SeqCst);
    }

    /// Says that this process runs, for `patience` from now; to be called at intervals well below that.
    /// Returns how long ago the last call was when that is longer than `patience`: the process was
    /// stopped, and the lease stays lost until it is renewed on proof asked for from here on.
    pub fn note_alive(&self, patience: Duration) -> Option<Duration> {
        let mut liveness = self.liveness_state();
        let now = boottime();
        let until = now + patience;
        let before = liveness.counts_until.replace(until);
        if let Some(before) = before
            && before <= now
        {
            liveness.stops += 1;
            self.running_until.store(NOT_HELD, Ordering::SeqCst);
            return Some(until - before);
        }
        // Not from a stop until the lease is renewed.
        if self.running_until.load(Ordering::SeqCst) != NOT_HELD {
            self.running_until
                .store(nanoseconds(until), Ordering::SeqCst);
        }
        None
    }

    fn liveness_state(&self) -> MutexGuard<'_, Liveness> {
        // Whole at any moment.
        self.liveness.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    // 584 years.
    u64::try_from(time.as_nanos()).unwrap_or(PERPETUAL - 1)
}

impl fmt::Debug for DeliveryLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeliveryLease")
            .field("held", &self.is_held())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn renew(lease: &DeliveryLease, until: Duration) -> Option<bool> {
        lease.renew(until, lease.stretch())
    }

    #[test]
    fn a_lease_ends_by_itself() {
        let lease = DeliveryLease::not_held();
        assert!(!lease.is_held());
        assert_eq!(
            renew(&lease, boottime() + LONG),
            Some(true),
            "it was not held"
        );
        assert!(lease.is_held());
        assert_eq!(renew(&lease, boottime()), Some(false), "it was held");
        assert!(!lease.is_held() && !lease.is_catching_up());
        assert!(DeliveryLease::perpetual().is_held());
    }

    #[test]
    fn a_lease_has_an_end_only_while_it_is_held() {
        let lease = DeliveryLease::not_held();
        assert_eq!(lease.held_until(), None);
        let until = boottime() + Duration::from_secs(60);
        renew(&lease, until);
        assert_eq!(lease.held_until(), Some(until));
        renew(&lease, boottime());
        assert_eq!(lease.held_until(), None);
        assert_eq!(DeliveryLease::perpetual().held_until(), Some(Duration::MAX));
    }

    #[test]
    fn a_lease_can_be_ended() {
        let lease = DeliveryLease::not_held();
        renew(&lease, boottime() + LONG);
        let snapshot = lease.snapshot();
        lease.expire();
        assert!(!lease.is_held());
        assert!(snapshot.holds(), "what was said before stays said");
    }

    #[test]
    fn a_lease_that_was_renewed_does_not_hold_for_who_asked_before() {
        let lease = DeliveryLease::not_held();
        renew(&lease, boottime());
        let snapshot = lease.snapshot();
        renew(&lease, boottime() + LONG);
        assert!(lease.is_held() && !snapshot.holds());
    }

    #[test]
    fn a_process_that_was_stopped_needs_proof_asked_for_since() {
        let lease = DeliveryLease::not_held();
        assert_eq!(lease.note_alive(Duration::ZERO), None, "the first");
        let asked_before = lease.stretch();
        renew(&lease, boottime() + LONG);
        assert!(!lease.is_held(), "the sign of life is late, found or not");
        assert!(lease.is_catching_up());
        assert!(lease.note_alive(LONG).is_some());
        assert_eq!(lease.note_alive(LONG), None);
        assert!(!lease.is_held(), "a sign of life alone proves nothing");
        assert_eq!(lease.renew(boottime() + LONG, asked_before), None);
        assert!(!lease.is_held());
        assert_eq!(renew(&lease, boottime() + LONG), Some(true));
        assert!(lease.is_held() && !lease.is_catching_up());
    }
}
