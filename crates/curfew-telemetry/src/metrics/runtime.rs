//! The load of the tokio runtime, measured by a task that runs in it.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{self, Instant};

use super::Gauge;
use super::histogram::Histogram;

/// The interval of the measurement. It is short enough to detect a stall that a client would
/// notice.
const LOOK: Duration = Duration::from_millis(100);

/// The upper bounds of the buckets of `runtime_stall`, in seconds. They begin at the resolution of
/// the runtime's timers, 1 ms. During a stall of 5 s, the node is practically unusable.
const STALL_SECONDS: &[f64] = &[
    0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];

crate::metrics! {
    /// The metrics of the runtime.
    pub struct RuntimeMetrics {
        runtime_workers: Gauge, "Threads that run tasks";
        runtime_queue_depth: Gauge, "Tasks in the queue that all workers share, measured ten times a second";
        runtime_stall: Histogram = Histogram::new(STALL_SECONDS), Seconds, "How late the runtime runs a task that is due ten times a second. Up to a millisecond of the delay comes from the timer";
    }
}

impl RuntimeMetrics {
    /// Measures the runtime until the future is dropped. Spawn the future as a task of its own,
    /// because it measures how late the runtime polls its task.
    pub async fn watch(self: Arc<Self>) {
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
