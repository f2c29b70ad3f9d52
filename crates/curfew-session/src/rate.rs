//! A session's command rate, and the duration of an excess over this rate.

use std::time::Duration;

use curfew_model::{Quota, TokenBucket};

use tokio::time::Instant;

/// A pause of this length ends an excess.
const PAUSE: Duration = Duration::from_secs(1);

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
    pub(crate) bucket: TokenBucket,
    pub(crate) excess: Excess,
}

impl CommandRate {
    pub(crate) fn new(quota: Quota, now: Instant) -> Self {
        Self {
            bucket: TokenBucket::full(quota, now.into_std()),
            excess: Excess::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
