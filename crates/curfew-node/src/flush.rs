//! The flushers: what was published goes to sockets from here, unless a session's own task is awake.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use curfew_hub::{Hub, Member};
use curfew_model::Clock;
use tokio::runtime::{Handle, worker_index};
use tokio::task::yield_now;
use tracing::error;

use crate::Node;

/// Sockets written to before other tasks have their turn: some 300 µs.
const AT_ONCE: usize = 64;

/// Starts one for each worker thread of the runtime. Each is told by what runs on its thread, and
/// woken there; that another thread takes it over when its own is busy does no harm.
pub(crate) fn start(node: &Node) {
    let count = Handle::current().metrics().num_workers();
    node.hub.set_flushers(count, || worker_index().unwrap_or(0));
    for flusher in 0..count {
        let (hub, clock) = (Arc::clone(&node.hub), Arc::clone(&node.clock));
        node.spawn(run(hub, clock, flusher));
    }
}

/// Flushes for as long as the runtime lives.
async fn run(hub: Arc<Hub>, clock: Arc<dyn Clock>, flusher: usize) {
    loop {
        poll_fn(|cx| hub.poll_due(flusher, cx)).await;
        let due = hub.take_due(flusher);
        for some in due.chunks(AT_ONCE) {
            // Whoever else has something to publish now does so first, and all of it leaves
            // together: a task that yields has its next turn after all that are ready.
            yield_now().await;
            flush(&hub, some, clock.as_ref());
        }
    }
}

/// A panic is a fault of ours; it must not silence the node.
fn flush(hub: &Hub, members: &[Arc<Member>], clock: &dyn Clock) {
    if catch_unwind(AssertUnwindSafe(|| hub.flush(members, clock))).is_err() {
        error!("a flusher panicked; its sessions write for themselves");
        members.iter().for_each(|member| member.outbox().nudge());
    }
}
