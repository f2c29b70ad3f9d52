//! The heartbeat that `/livez` checks.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{self, Instant};

use crate::Node;

/// Interval of the heartbeat.
const BEAT: Duration = Duration::from_secs(1);

impl Node {
    /// Renews the heartbeat every second until the future is dropped. The task that reloads and
    /// drains must poll this future, so that the heartbeat stops when that task is stuck.
    pub async fn beat(&self) -> Infallible {
        loop {
            *self.beat_at.lock() = Instant::now();
            time::sleep(BEAT).await;
        }
    }

    /// The time since the heartbeat was last renewed.
    pub fn since_beat(&self) -> Duration {
        self.beat_at.lock().elapsed()
    }
}
