//! A token bucket. Every rate limit uses it.

use std::time::{Duration, Instant};

/// The rate at which a bucket earns tokens, and its capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Tokens earned each second.
    pub per_second: u32,
    /// Maximum number of tokens that the bucket holds.
    pub burst: u32,
}

impl Quota {
    /// A quota whose burst equals the tokens that one second earns.
    pub fn of_a_second(per_second: u32) -> Self {
        Self {
            per_second,
            burst: per_second,
        }
    }

    fn earned_in(self, time: Duration) -> f64 {
        time.as_secs_f64() * f64::from(self.per_second)
    }
}

/// Tokens that refill steadily. The bucket reads no clock and stores no quota: each call passes the
/// quota and the time, so that changed settings apply at once and tests control the time.
///
/// ```
/// use std::time::{Duration, Instant};
/// use curfew_model::{Quota, TokenBucket};
///
/// let quota = Quota { per_second: 10, burst: 2 };
/// let start = Instant::now();
/// let mut bucket = TokenBucket::full(quota, start);
/// assert!(bucket.take(quota, start) && bucket.take(quota, start));
/// assert!(!bucket.take(quota, start));
/// assert!(bucket.take(quota, start + Duration::from_millis(100)));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct TokenBucket {
    tokens: f64,
    filled_at: Instant,
}

impl TokenBucket {
    /// A full bucket, which holds `burst` tokens.
    pub fn full(quota: Quota, now: Instant) -> Self {
        Self {
            tokens: f64::from(quota.burst),
            filled_at: now,
        }
    }

    /// Takes a token. Returns false if there is none.
    pub fn take(&mut self, quota: Quota, now: Instant) -> bool {
        let has_token = self.has_token(quota, now);
        if has_token {
            self.tokens -= 1.0;
        }
        has_token
    }

    /// True if a token can be taken.
    pub fn has_token(&mut self, quota: Quota, now: Instant) -> bool {
        self.fill(quota, now);
        self.tokens >= 1.0
    }

    /// True if the bucket holds `burst` tokens.
    pub fn is_full(&mut self, quota: Quota, now: Instant) -> bool {
        self.fill(quota, now);
        self.tokens >= f64::from(quota.burst)
    }

    /// Takes a token even if the bucket has none. The debt is at most `burst` tokens.
    pub fn charge(&mut self, quota: Quota, now: Instant) {
        self.fill(quota, now);
        self.tokens = (self.tokens - 1.0).max(-f64::from(quota.burst));
    }

    fn fill(&mut self, quota: Quota, now: Instant) {
        let earned = quota.earned_in(now.saturating_duration_since(self.filled_at));
        self.tokens = (self.tokens + earned).min(f64::from(quota.burst));
        self.filled_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let quota = Quota::of_a_second(5);
        let start = Instant::now();
        let mut bucket = TokenBucket::full(quota, start);
        let given = |bucket: &mut TokenBucket, ms| {
            let now = start + Duration::from_millis(ms);
            (0..100).filter(|_| bucket.take(quota, now)).count()
        };
        assert_eq!(
            [0, 0, 200, 1_200, 60_000].map(|ms| given(&mut bucket, ms)),
            [5, 0, 1, 5, 5]
        );
    }

    #[test]
    fn a_debt_is_one_burst_and_is_paid_first() {
        let quota = Quota::of_a_second(4);
        let start = Instant::now();
        let mut bucket = TokenBucket::full(quota, start);
        for _ in 0..100 {
            bucket.charge(quota, start);
        }
        let at = |ms| start + Duration::from_millis(ms);
        assert!(!bucket.has_token(quota, at(1_000)));
        assert!(bucket.has_token(quota, at(1_250)));
        assert!(!bucket.is_full(quota, at(1_750)));
        assert!(bucket.is_full(quota, at(2_000)));
    }

    #[test]
    fn a_lower_quota_holds_at_once() {
        let start = Instant::now();
        let mut bucket = TokenBucket::full(Quota::of_a_second(100), start);
        let lower = Quota::of_a_second(1);
        assert!(bucket.take(lower, start));
        assert!(!bucket.take(lower, start));
    }
}
