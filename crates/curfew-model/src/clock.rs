//! The wall clock, passed in so that tests can set it.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The wall clock. Only `exp`, `iat` and `nbf` are compared with it; waiting uses the runtime's
/// monotonic clock.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Time since the Unix epoch.
    fn now(&self) -> Duration;

    /// Whole seconds since the Unix epoch.
    fn unix(&self) -> u64 {
        self.now().as_secs()
    }
}

/// The operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that asks the system"
    )]
    fn now(&self) -> Duration {
        // A clock before 1970 reads as 1970: every token is then not yet expired but no token is
        // issued in the future either, and the operator has other problems.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
    }
}
