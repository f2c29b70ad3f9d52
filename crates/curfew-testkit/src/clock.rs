//! A clock that tests set.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use curfew_model::{Clock, SystemClock};

/// A [`Clock`] that stands still until a test moves it. Tests share the clock as an `Arc`.
#[derive(Debug, Default)]
pub struct ManualClock {
    millis: AtomicU64,
    /// The time on the boot clock, in milliseconds since the clock was created.
    passed: AtomicU64,
}

impl ManualClock {
    /// A clock that stands at `unix` seconds.
    pub fn at(unix: u64) -> Self {
        Self {
            millis: AtomicU64::new(unix * 1000),
            passed: AtomicU64::default(),
        }
    }

    /// Sets the wall clock to `unix` seconds, forwards or backwards. No time passes.
    pub fn set(&self, unix: u64) {
        self.millis.store(unix * 1000, Ordering::SeqCst);
    }

    /// Lets time pass on the boot clock and on the wall clock.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).expect("the milliseconds do not fit into 64 bits");
        self.millis.fetch_add(by, Ordering::SeqCst);
        self.passed.fetch_add(by, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        Duration::from_millis(self.millis.load(Ordering::SeqCst))
    }

    fn boottime(&self) -> Duration {
        Duration::from_millis(self.passed.load(Ordering::SeqCst))
    }
}

/// The operating system's Unix time in seconds. The gateway under test uses the same clock.
pub fn unix_now() -> u64 {
    SystemClock.unix()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_moves_only_when_told() {
        let clock = ManualClock::at(100);
        assert_eq!(clock.unix(), 100);
        clock.advance(Duration::from_millis(1500));
        assert_eq!(clock.now(), Duration::from_millis(101_500));
        clock.set(7);
        assert_eq!(clock.unix(), 7);
        assert_eq!(clock.boottime(), Duration::from_millis(1500));
    }
}
