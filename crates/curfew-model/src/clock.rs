//! The clocks that access is measured by, passed in so that tests can set them.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::boottime;

/// The wall clock, which `exp`, `iat` and `nbf` are compared with and which may be set at any time;
/// and the one that nobody sets, which says how long ago that was. Waiting uses the runtime's
/// monotonic clock.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Time since the Unix epoch.
    fn now(&self) -> Duration;

    /// Time since some moment before, which only grows: [`boottime`].
    fn boottime(&self) -> Duration {
        boottime()
    }

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
