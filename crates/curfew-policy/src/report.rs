//! Rate limit for the log lines about a rule's failures.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The minimum interval between two log lines. A failing condition may fail at every command, and
/// one log line a minute is enough for the operator.
const INTERVAL: Duration = Duration::from_secs(60);

/// Permits one log line per [`INTERVAL`].
#[derive(Debug)]
pub(crate) struct Limiter {
    started: Instant,
    /// The earliest time of the next log line, in seconds since `started`.
    due: AtomicU64,
}

impl Limiter {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            started: now,
            due: AtomicU64::new(0),
        }
    }

    /// Returns true if a log line may be written. If several callers ask at once, only one of them
    /// gets true.
    pub(crate) fn permits(&self, now: Instant) -> bool {
        let at = now.saturating_duration_since(self.started).as_secs();
        let due = self.due.load(Ordering::Relaxed);
        at >= due
            && self
                .due
                .compare_exchange(
                    due,
                    at + INTERVAL.as_secs(),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_report_a_minute_is_let_through() {
        let start = Instant::now();
        let limiter = Limiter::new(start);
        for (seconds, expect) in [
            (0, true),
            (1, false),
            (59, false),
            (60, true),
            (61, false),
            (500, true),
            (559, false),
        ] {
            let now = start + Duration::from_secs(seconds);
            assert_eq!(limiter.permits(now), expect, "after {seconds} s");
        }
    }
}
