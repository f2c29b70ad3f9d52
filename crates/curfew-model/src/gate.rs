//! Whether a node may vouch for its sessions at this moment.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Shut.
const SHUT: u64 = 0;

/// Open for good: the sessions depend on nothing that could be out of reach.
const ALWAYS: u64 = u64::MAX;

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
/// A backend that can be out of reach opens it for a time each time it has proof that the node
/// knows every revocation; it shuts by itself when that time is over, also for a process that was
/// stopped meanwhile. A process that was stopped for less than the lease has revocations in its
/// sockets that it has not read: where a [pulse](Gate::pulse) is kept, the gate is shut from the
/// moment such a process goes on until it has asked the backend once more.
pub struct Gate {
    /// Nanoseconds of [`boottime`].
    open_until: AtomicU64,
    /// Until when, likewise, this process counts as running; [`ALWAYS`] where no pulse is kept,
    /// [`SHUT`] from a stop until the gate is opened anew.
    running_until: AtomicU64,
    /// Held while the gate is opened and while a stop is found.
    pulse: Mutex<Pulse>,
}

#[derive(Debug, Default)]
struct Pulse {
    /// Until when the last one counts; `None` before the first.
    counts_until: Option<Duration>,
    /// The number of times this process was found to have been stopped.
    stops: u64,
}

/// The gate at one moment. Load it first, look at the session second, and ask whether it
/// holds last: the session's state is then at least as new as the proof that the lease rests on, and
/// a process that was stopped in between finds that it does not hold.
#[derive(Debug, Clone, Copy)]
pub struct Lease(u64);

impl Lease {
    /// True if frames may pass by it now.
    pub fn holds(self) -> bool {
        match self.0 {
            SHUT => false,
            ALWAYS => true,
            until => nanoseconds(boottime()) < until,
        }
    }
}

/// Names the time between two stops of this process. See [`Gate::open_until`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch(u64);

impl Gate {
    fn new(open_until: u64) -> Self {
        Self {
            open_until: AtomicU64::new(open_until),
            running_until: AtomicU64::new(ALWAYS),
            pulse: Mutex::default(),
        }
    }

    /// Never shuts.
    pub fn always_open() -> Self {
        Self::new(ALWAYS)
    }

    /// Shut until it is opened.
    pub fn shut_at_first() -> Self {
        Self::new(SHUT)
    }

    /// The lease as it is now.
    pub fn lease(&self) -> Lease {
        let until = self.open_until.load(Ordering::SeqCst);
        Lease(until.min(self.running_until.load(Ordering::SeqCst)))
    }

    /// True if frames may pass.
    pub fn is_open(&self) -> bool {
        self.lease().holds()
    }

    /// Until when, of [`boottime`], what is accepted at this moment may take effect; `None` while
    /// it is shut.
    pub fn lease_until(&self) -> Option<Duration> {
        match self.open_until.load(Ordering::SeqCst) {
            SHUT => None,
            ALWAYS => Some(Duration::MAX),
            until => Lease(until).holds().then(|| Duration::from_nanos(until)),
        }
    }

    /// True if it is shut only because this process was stopped for a moment: it opens again, or shuts
    /// for longer, within a round trip.
    pub fn is_catching_up(&self) -> bool {
        !self.is_open() && Lease(self.open_until.load(Ordering::SeqCst)).holds()
    }

    /// The stretch of time that this process is in: taken before the backend is asked for proof.
    pub fn stretch(&self) -> Stretch {
        Stretch(self.pulse_state().stops)
    }

    /// Opens it until `until` (of [`boottime`]), on proof that was asked for in `stretch`. `None`, and
    /// nothing is done, if the process was stopped since; else whether it was shut.
    pub fn open_until(&self, until: Duration, stretch: Stretch) -> Option<bool> {
        let pulse = self.pulse_state();
        if Stretch(pulse.stops) != stretch {
            return None;
        }
        let before = self.lease();
        self.open_until.store(nanoseconds(until), Ordering::SeqCst);
        if let Some(until) = pulse.counts_until {
            self.running_until
                .store(nanoseconds(until), Ordering::SeqCst);
        }
        // By a clock read afterwards: all who saw it shut have done so by now.
        Some(!before.holds())
    }

    /// Shuts it at once.
    pub fn shut(&self) {
        self.open_until.store(SHUT, Ordering::SeqCst);
    }

    /// Says that this process runs, for `patience` from now; to be called at intervals well below that.
    /// Returns how long ago the last call was when that is longer than `patience`: the process was
    /// stopped, and the gate stays shut until it is opened on proof asked for from here on.
    pub fn pulse(&self, patience: Duration) -> Option<Duration> {
        let mut pulse = self.pulse_state();
        let now = boottime();
        let until = now + patience;
        let before = pulse.counts_until.replace(until);
        if let Some(before) = before
            && before <= now
        {
            pulse.stops += 1;
            self.running_until.store(SHUT, Ordering::SeqCst);
            return Some(until - before);
        }
        // Not from a stop until the gate is opened anew.
        if self.running_until.load(Ordering::SeqCst) != SHUT {
            self.running_until
                .store(nanoseconds(until), Ordering::SeqCst);
        }
        None
    }

    fn pulse_state(&self) -> MutexGuard<'_, Pulse> {
        // Whole at any moment.
        self.pulse.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    // 584 years.
    u64::try_from(time.as_nanos()).unwrap_or(ALWAYS - 1)
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("open", &self.is_open())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn open(gate: &Gate, until: Duration) -> Option<bool> {
        gate.open_until(until, gate.stretch())
    }

    #[test]
    fn a_gate_shuts_by_itself() {
        let gate = Gate::shut_at_first();
        assert!(!gate.is_open());
        assert_eq!(open(&gate, boottime() + LONG), Some(true), "it was shut");
        assert!(gate.is_open());
        assert_eq!(open(&gate, boottime()), Some(false), "it was open");
        assert!(!gate.is_open() && !gate.is_catching_up());
        assert!(Gate::always_open().is_open());
    }

    #[test]
    fn a_lease_ends_when_its_gate_shuts() {
        let gate = Gate::shut_at_first();
        assert_eq!(gate.lease_until(), None);
        let until = boottime() + Duration::from_secs(60);
        open(&gate, until);
        assert_eq!(gate.lease_until(), Some(until));
        open(&gate, boottime());
        assert_eq!(gate.lease_until(), None);
        assert_eq!(Gate::always_open().lease_until(), Some(Duration::MAX));
    }

    #[test]
    fn a_gate_can_be_shut() {
        let gate = Gate::shut_at_first();
        open(&gate, boottime() + LONG);
        let lease = gate.lease();
        gate.shut();
        assert!(!gate.is_open());
        assert!(lease.holds(), "what was said before stays said");
    }

    #[test]
    fn a_lease_that_was_renewed_does_not_hold_for_who_asked_before() {
        let gate = Gate::shut_at_first();
        open(&gate, boottime());
        let lease = gate.lease();
        open(&gate, boottime() + LONG);
        assert!(gate.is_open() && !lease.holds());
    }

    #[test]
    fn a_process_that_was_stopped_needs_proof_asked_for_since() {
        let gate = Gate::shut_at_first();
        assert_eq!(gate.pulse(Duration::ZERO), None, "the first");
        let asked_before = gate.stretch();
        open(&gate, boottime() + LONG);
        assert!(!gate.is_open(), "the pulse is late, found or not");
        assert!(gate.is_catching_up());
        assert!(gate.pulse(LONG).is_some());
        assert_eq!(gate.pulse(LONG), None);
        assert!(!gate.is_open(), "a pulse alone proves nothing");
        assert_eq!(gate.open_until(boottime() + LONG, asked_before), None);
        assert!(!gate.is_open());
        assert_eq!(open(&gate, boottime() + LONG), Some(true));
        assert!(gate.is_open() && !gate.is_catching_up());
    }
}
