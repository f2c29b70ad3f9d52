//! The sign of life that `/livez` looks at.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{self, Instant};

use crate::Node;

/// Between two beats.
const BEAT: Duration = Duration::from_secs(1);

impl Node {
    /// Beats for as long as it is polled. To be polled by the task that reloads and drains: while
    /// that is stuck, there is no beat.
    pub async fn beat(&self) -> Infallible {
        loop {
            *self.beat_at.lock() = Instant::now();
            time::sleep(BEAT).await;
        }
    }

    /// How long ago the last beat was.
    pub fn since_beat(&self) -> Duration {
        self.beat_at.lock().elapsed()
    }
}
