//! The clocks that measure access. Callers pass them in, so that tests can set them.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::boottime;

/// A wall clock and a boot clock. The wall clock is compared with `exp`, `iat` and `nbf`; an
/// administrator may set it at any time. The boot clock measures durations, and nothing can set it.
/// Waits use the runtime's monotonic clock instead of these two.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Time since the Unix epoch.
    fn now(&self) -> Duration;

    /// Time since a fixed moment in the past; it only grows. See [`boottime`].
    fn boottime(&self) -> Duration {
        boottime()
    }

    /// Whole seconds since the Unix epoch.
    fn unix(&self) -> u64 {
        self.now().as_secs()
    }
}

/// The clock of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that asks the system"
    )]
    fn now(&self) -> Duration {
        // A clock before 1970 reads as 1970. Then no token counts as expired, and every token
        // counts as issued in the future.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
    }
}
