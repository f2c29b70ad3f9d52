//! Whether a node may vouch for its sessions at this moment.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
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
/// message is handed to a socket. One atomic load and a look at the clock.
///
/// A backend that can be out of reach opens it for a time each time it has proof that the node
/// knows every revocation; it shuts by itself when that time is over, also for a process that was
/// stopped meanwhile.
pub struct Gate {
    /// Nanoseconds of [`boottime`].
    open_until: AtomicU64,
}

impl Gate {
    /// Never shuts.
    pub fn always_open() -> Self {
        Self {
            open_until: AtomicU64::new(ALWAYS),
        }
    }

    /// Shut until it is opened.
    pub fn shut_at_first() -> Self {
        Self {
            open_until: AtomicU64::new(SHUT),
        }
    }

    /// Whether frames may pass.
    pub fn is_open(&self) -> bool {
        match self.open_until.load(Ordering::SeqCst) {
            SHUT => false,
            ALWAYS => true,
            until => nanoseconds(boottime()) < until,
        }
    }

    /// Until when, of [`boottime`], what is accepted at this moment may take effect; `None` while
    /// it is shut.
    pub fn lease_until(&self) -> Option<Duration> {
        match self.open_until.load(Ordering::SeqCst) {
            SHUT => None,
            ALWAYS => Some(Duration::MAX),
            until => (nanoseconds(boottime()) < until).then(|| Duration::from_nanos(until)),
        }
    }

    /// Opens it until `until` (of [`boottime`]); returns whether it was shut.
    pub fn open_until(&self, until: Duration) -> bool {
        let before = self.open_until.swap(nanoseconds(until), Ordering::SeqCst);
        // By a clock read afterwards: whoever saw it shut has done so by now.
        before != ALWAYS && before <= nanoseconds(boottime())
    }

    /// Shuts it at once.
    pub fn shut(&self) {
        self.open_until.store(SHUT, Ordering::SeqCst);
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

    #[test]
    fn a_gate_shuts_by_itself() {
        let gate = Gate::shut_at_first();
        assert!(!gate.is_open());
        assert!(
            gate.open_until(boottime() + Duration::from_secs(60)),
            "it was shut"
        );
        assert!(gate.is_open());
        assert!(!gate.open_until(boottime()), "it was open");
        assert!(!gate.is_open());
        assert!(Gate::always_open().is_open());
    }

    #[test]
    fn a_lease_ends_when_its_gate_shuts() {
        let gate = Gate::shut_at_first();
        assert_eq!(gate.lease_until(), None);
        let until = boottime() + Duration::from_secs(60);
        gate.open_until(until);
        assert_eq!(gate.lease_until(), Some(until));
        gate.open_until(boottime());
        assert_eq!(gate.lease_until(), None);
        assert_eq!(Gate::always_open().lease_until(), Some(Duration::MAX));
    }

    #[test]
    fn a_gate_can_be_shut() {
        let gate = Gate::shut_at_first();
        gate.open_until(boottime() + Duration::from_secs(60));
        gate.shut();
        assert!(!gate.is_open());
    }
}
