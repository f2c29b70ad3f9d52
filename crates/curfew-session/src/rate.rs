//! A token bucket, and the duration of an excess over its rate.

use std::time::Duration;

use tokio::time::Instant;

/// A pause of this length ends an excess.
const PAUSE: Duration = Duration::from_secs(1);

/// A bucket that refills at a steady rate up to its burst.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    tokens: f32,
    filled_at: Instant,
}

impl Bucket {
    pub(crate) fn full(burst: u32, now: Instant) -> Self {
        Self {
            tokens: burst as f32,
            filled_at: now,
        }
    }

    /// Takes one token; returns false if there is none.
    pub(crate) fn take(&mut self, per_second: u32, burst: u32, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.filled_at).as_secs_f32();
        self.tokens = (self.tokens + elapsed * per_second as f32).min(burst as f32);
        self.filled_at = now;
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }
}

/// The time for which a client has exceeded its rate without a pause.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Excess {
    span: Option<(Instant, Instant)>,
}

impl Excess {
    /// Records one command over the rate. Returns the duration of the excess.
    pub(crate) fn note(&mut self, now: Instant) -> Duration {
        let since = match self.span {
            Some((since, last)) if now.saturating_duration_since(last) < PAUSE => since,
            _ => now,
        };
        self.span = Some((since, now));
        now.saturating_duration_since(since)
    }
}

/// State of the rate limit `limits.messages_per_second`.
#[derive(Debug)]
pub(crate) struct CommandRate {
    pub(crate) bucket: Bucket,
    pub(crate) excess: Excess,
}

impl CommandRate {
    pub(crate) fn new(per_second: u32, now: Instant) -> Self {
        Self {
            bucket: Bucket::full(per_second, now),
            excess: Excess::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::full(5, start);
        let given = |bucket: &mut Bucket, ms| {
            let now = start + Duration::from_millis(ms);
            (0..100).filter(|_| bucket.take(5, 5, now)).count()
        };
        assert_eq!(
            [0, 0, 200, 1_200, 60_000].map(|ms| given(&mut bucket, ms)),
            [5, 0, 1, 5, 5]
        );
    }

    #[test]
    fn excess_is_counted_without_pauses_only() {
        let start = Instant::now();
        let mut excess = Excess::default();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(excess.note(at(0)), Duration::ZERO);
        assert_eq!(excess.note(at(900)), Duration::from_millis(900));
        assert_eq!(excess.note(at(1_800)), Duration::from_millis(1_800));
        assert_eq!(excess.note(at(2_800)), Duration::ZERO);
    }
}
