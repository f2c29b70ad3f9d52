//! How long to wait before trying again.

use std::time::Duration;

/// The longest first wait.
const FIRST: Duration = Duration::from_millis(50);

/// The longest wait: a node is back soon after Redis is.
const LONGEST: Duration = Duration::from_secs(1);

/// Waits that grow, with full jitter, so that nodes that lost Redis together do not return
/// together.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The next wait.
    pub(crate) fn next(&mut self) -> Duration {
        let longest = FIRST
            .saturating_mul(1 << self.failures.min(16))
            .min(LONGEST);
        self.failures += 1;
        longest.mul_f64(fastrand::f64())
    }

    /// It worked.
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
