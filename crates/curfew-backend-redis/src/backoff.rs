//! The delay between attempts to connect.

use std::time::Duration;

/// Longest delay after the first failure.
const FIRST: Duration = Duration::from_millis(50);

/// Longest delay after any number of failures. It is short, so that a node reconnects soon after
/// Redis returns.
const LONGEST: Duration = Duration::from_secs(1);

/// Growing delays with full jitter. Because of the jitter, nodes that lost Redis at the same time
/// do not reconnect at the same time.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    /// The number of failures since the last success.
    failures: u32,
}

impl Backoff {
    /// The delay before the next attempt.
    pub(crate) fn next(&mut self) -> Duration {
        let longest = FIRST
            .saturating_mul(1 << self.failures.min(16))
            .min(LONGEST);
        self.failures += 1;
        longest.mul_f64(fastrand::f64())
    }

    /// Makes the next delay short again, after a success.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_a_second() {
        let mut backoff = Backoff::default();
        assert!(backoff.next() <= FIRST);
        for _ in 0..100 {
            assert!(backoff.next() <= LONGEST);
        }
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }
}
