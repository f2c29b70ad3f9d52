//! A bucket of tokens, filled by the second.

use tokio::time::Instant;

/// A number of events in each second, with a burst of as many. 0 each second: no limit.
#[derive(Debug)]
pub(crate) struct Rate {
    per_second: u32,
    tokens: f64,
    filled_at: Instant,
}

impl Rate {
    /// A full bucket.
    pub(crate) fn new(per_second: u32) -> Self {
        Self {
            per_second,
            tokens: f64::from(per_second),
            filled_at: Instant::now(),
        }
    }

    pub(crate) fn set(&mut self, per_second: u32) {
        if self.per_second != per_second {
            *self = Self::new(per_second);
        }
    }

    /// Takes a token if there is one.
    pub(crate) fn take(&mut self) -> bool {
        let has = self.has();
        if has {
            self.tokens -= 1.0;
        }
        has
    }

    /// True if there is a token.
    pub(crate) fn has(&mut self) -> bool {
        self.fill();
        self.per_second == 0 || self.tokens >= 1.0
    }

    /// True if the bucket is full.
    pub(crate) fn is_full(&mut self) -> bool {
        self.fill();
        self.tokens >= f64::from(self.per_second)
    }

    /// Takes a token that may not be there, to a debt of one second's at most.
    pub(crate) fn charge(&mut self) {
        self.fill();
        self.tokens = (self.tokens - 1.0).max(-f64::from(self.per_second));
    }

    fn fill(&mut self) {
        let now = Instant::now();
        let per_second = f64::from(self.per_second);
        let earned = now.saturating_duration_since(self.filled_at).as_secs_f64() * per_second;
        self.tokens = (self.tokens + earned).min(per_second);
        self.filled_at = now;
    }
}
