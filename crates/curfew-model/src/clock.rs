//! The wall clock and the boot clock. Code that needs the time receives a [`Clock`], so that tests
//! can set the time.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::boottime;

/// A wall clock and a boot clock. The wall clock is compared with `exp`, `iat` and `nbf`; an
/// administrator may set it at any time. The boot clock measures durations, and cannot be set.
/// Timers and timeouts use the runtime's monotonic clock instead of this trait.
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
        // A system time before 1970 is returned as 1970. Then no token counts as expired, and every
        // token counts as issued in the future.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
    }
}
