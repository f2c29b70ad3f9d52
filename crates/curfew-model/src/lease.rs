//! The delivery lease: the right of a node to deliver publications and to execute commands at this
//! moment.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Value of a lease that is not held.
const NOT_HELD: u64 = 0;

/// Value of a lease that never ends, for a node without a remote backend.
const PERPETUAL: u64 = u64::MAX;

/// Time since the system started, including the time in suspend (`CLOCK_BOOTTIME`). Leases are
/// measured by this clock, because it continues while a process is paused or the machine is
/// suspended.
pub fn boottime() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    // The conversions cannot fail: the time since the system started is not negative, and its
    // nanoseconds are less than a second.
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or_default(),
        u32::try_from(now.tv_nsec).unwrap_or_default(),
    )
}

/// The delivery lease of a node. It is checked before each command is executed and before each
/// write to a socket. A check costs two atomic loads and one read of the clock.
///
/// A remote backend renews the lease for a limited time whenever it has proof that the node knows
/// every revocation. The lease ends by itself after that time, even while the process is paused.
///
/// After a pause that is shorter than the lease, a process may have unread revocations in its
/// sockets. Regular [signs of life](DeliveryLease::note_alive) detect such a pause: the lease is
/// then lost from the moment the process resumes until the backend has answered once more.
pub struct DeliveryLease {
    /// The end of the lease, in nanoseconds of [`boottime`].
    held_until: AtomicU64,
    /// The time until which this process counts as running, in nanoseconds of [`boottime`]. It is
    /// [`PERPETUAL`] if no signs of life are given, and [`NOT_HELD`] from the end of a pause until
    /// the next renewal.
    running_until: AtomicU64,
    /// Locked while the lease is renewed and while a pause is detected, because a renewal must not
    /// use proof from before a pause.
    liveness: Mutex<Liveness>,
}

/// The signs of life given so far.
#[derive(Debug, Default)]
struct Liveness {
    /// The time until which the last sign of life counts; `None` before the first.
    counts_until: Option<Duration>,
    /// The number of pauses detected.
    stops: u64,
}

/// The lease at one moment. Load the snapshot first, then read the session's state, then call
/// [`holds`](Self::holds). The state is then at least as new as the proof behind the lease. A
/// process that was paused in between finds that the lease no longer holds.
#[derive(Debug, Clone, Copy)]
pub struct LeaseSnapshot(u64);

impl LeaseSnapshot {
    /// True if frames may be delivered now.
    pub fn holds(self) -> bool {
        match self.0 {
            NOT_HELD => false,
            PERPETUAL => true,
            until => nanoseconds(boottime()) < until,
        }
    }
}

/// A period between two pauses of this process. [`DeliveryLease::renew`] refuses proof from an
/// earlier period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch(u64);

impl DeliveryLease {
    /// Creates a lease that is held until `held_until`. No sign of life is expected before the
    /// first one is given.
    fn new(held_until: u64) -> Self {
        Self {
            held_until: AtomicU64::new(held_until),
            running_until: AtomicU64::new(PERPETUAL),
            liveness: Mutex::default(),
        }
    }

    /// Creates a lease that never ends.
    pub fn perpetual() -> Self {
        Self::new(PERPETUAL)
    }

    /// Creates a lease that is not held until it is renewed.
    pub fn not_held() -> Self {
        Self::new(NOT_HELD)
    }

    /// The lease at this moment.
    pub fn snapshot(&self) -> LeaseSnapshot {
        let until = self.held_until.load(Ordering::SeqCst);
        LeaseSnapshot(until.min(self.running_until.load(Ordering::SeqCst)))
    }

    /// True if frames may be delivered.
    pub fn is_held(&self) -> bool {
        self.snapshot().holds()
    }

    /// The time, as [`boottime`], until which a command accepted now may take effect. `None` if the
    /// lease has ended. Pauses of the process are not considered.
    pub fn held_until(&self) -> Option<Duration> {
        match self.held_until.load(Ordering::SeqCst) {
            NOT_HELD => None,
            PERPETUAL => Some(Duration::MAX),
            until => LeaseSnapshot(until)
                .holds()
                .then(|| Duration::from_nanos(until)),
        }
    }

    /// True if the lease is lost only because this process was paused. The next round trip to the
    /// backend can renew the lease.
    pub fn is_catching_up(&self) -> bool {
        !self.is_held() && LeaseSnapshot(self.held_until.load(Ordering::SeqCst)).holds()
    }

    /// The current stretch. The caller must read the stretch before it asks the backend for proof.
    pub fn stretch(&self) -> Stretch {
        Stretch(self.liveness_state().stops)
    }

    /// Renews the lease until `until` (as [`boottime`]), on proof that the caller requested in
    /// `stretch`. Returns `None`, without renewing, if the process was paused after `stretch` was
    /// read. Otherwise returns true if the lease was not held before.
    pub fn renew(&self, until: Duration, stretch: Stretch) -> Option<bool> {
        let liveness = self.liveness_state();
        if Stretch(liveness.stops) != stretch {
            // The proof may be older than the pause, so there may be unread revocations.
            return None;
        }
        let before = self.snapshot();
        self.held_until.store(nanoseconds(until), Ordering::SeqCst);
        if let Some(until) = liveness.counts_until {
            self.running_until
                .store(nanoseconds(until), Ordering::SeqCst);
        }
        // `holds` reads the clock after the stores above. So if a check before the stores found the
        // lease lost, the result is true.
        Some(!before.holds())
    }

    /// Ends the lease at once.
    pub fn expire(&self) {
        self.held_until.store(NOT_HELD, Ordering::SeqCst);
    }

    /// Gives a sign of life, which counts for `patience`. Call it at intervals well below
    /// `patience`.
    ///
    /// If the last sign of life no longer counts, the process was paused, and the time since the
    /// last call is returned. The lease then stays lost until it is renewed on proof that is
    /// requested after this call.
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
        // After a pause, `running_until` stays `NOT_HELD` until the lease is renewed.
        if self.running_until.load(Ordering::SeqCst) != NOT_HELD {
            self.running_until
                .store(nanoseconds(until), Ordering::SeqCst);
        }
        None
    }

    /// Locks the signs of life.
    fn liveness_state(&self) -> MutexGuard<'_, Liveness> {
        // The state is consistent at any moment, so a poisoned lock is safe to use.
        self.liveness.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `time` in whole nanoseconds, always below [`PERPETUAL`].
fn nanoseconds(time: Duration) -> u64 {
    // 64 bits hold 584 years in nanoseconds.
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
            "the lease was not held before the renewal"
        );
        assert!(lease.is_held());
        assert_eq!(
            renew(&lease, boottime()),
            Some(false),
            "the lease was held before the renewal"
        );
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
        assert!(
            snapshot.holds(),
            "the end of a lease does not change an earlier snapshot"
        );
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
        assert_eq!(
            lease.note_alive(Duration::ZERO),
            None,
            "the first sign of life cannot detect a pause"
        );
        let asked_before = lease.stretch();
        renew(&lease, boottime() + LONG);
        assert!(
            !lease.is_held(),
            "a late sign of life ends the lease even before the pause is detected"
        );
        assert!(lease.is_catching_up());
        assert!(lease.note_alive(LONG).is_some());
        assert_eq!(lease.note_alive(LONG), None);
        assert!(
            !lease.is_held(),
            "a sign of life alone does not renew the lease"
        );
        assert_eq!(lease.renew(boottime() + LONG, asked_before), None);
        assert!(!lease.is_held());
        assert_eq!(renew(&lease, boottime() + LONG), Some(true));
        assert!(lease.is_held() && !lease.is_catching_up());
    }
}
