//! Flushers, which write publications to the sockets of sessions whose own task is not awake.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use curfew_hub::{Hub, Member};
use curfew_model::Clock;
use tokio::runtime::{Handle, worker_index};
use tokio::task::yield_now;
use tracing::error;

use crate::Node;

/// Number of sockets that a flusher writes before other tasks may run. The writes take about 300
/// µs.
const AT_ONCE: usize = 64;

/// Starts one flusher per worker thread of the runtime. Code on a worker notifies that worker's
/// flusher. Another worker may run the flusher if the flusher's own worker is busy.
pub(crate) fn start(node: &Node) {
    let count = Handle::current().metrics().num_workers();
    node.hub.set_flushers(count, || worker_index().unwrap_or(0));
    for flusher in 0..count {
        let (hub, clock) = (Arc::clone(&node.hub), Arc::clone(&node.clock));
        node.spawn(run(hub, clock, flusher));
    }
}

/// Runs one flusher for the lifetime of the runtime.
async fn run(hub: Arc<Hub>, clock: Arc<dyn Clock>, flusher: usize) {
    loop {
        poll_fn(|cx| hub.poll_due(flusher, cx)).await;
        let due = hub.take_due(flusher);
        for some in due.chunks(AT_ONCE) {
            // A task that yields runs again after all ready tasks, so publishers that are ready now
            // add their messages to this flush.
            yield_now().await;
            flush(&hub, some, clock.as_ref());
        }
    }
}

/// Writes the waiting messages of `members`. If this panics, each of these sessions writes its own
/// messages instead, and the flusher continues.
fn flush(hub: &Hub, members: &[Arc<Member>], clock: &dyn Clock) {
    if catch_unwind(AssertUnwindSafe(|| hub.flush(members, clock))).is_err() {
        error!("a flusher panicked; each session of its batch writes its own messages instead");
        members.iter().for_each(|member| member.outbox().nudge());
    }
}
