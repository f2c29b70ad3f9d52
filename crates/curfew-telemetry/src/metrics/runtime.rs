//! How busy the runtime is, as one of its own tasks finds out.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{self, Instant};

use super::Metrics;

/// Between two looks: often enough to meet a stall that a client would feel.
const LOOK: Duration = Duration::from_millis(100);

impl Metrics {
    /// Looks at the runtime again and again, for as long as it is polled. Spawned, and not polled
    /// from elsewhere: that such a task is run late is what it measures.
    pub async fn watch_runtime(self: Arc<Self>) {
        let runtime = Handle::current().metrics();
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.runtime_workers.set(count(runtime.num_workers()));
        loop {
            let due = Instant::now() + LOOK;
            time::sleep_until(due).await;
            self.runtime_stall.observe(due.elapsed().as_secs_f64());
            self.runtime_queue_depth
                .set(count(runtime.global_queue_depth()));
        }
    }
}
