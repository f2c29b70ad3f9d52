//! Notices that this process was stopped: by a signal, by a hypervisor, or for want of a processor.
//!
//! A stop that is longer than the lease is noticed by the lease. After a shorter one the lease still
//! holds, and what Redis pushed meanwhile waits unread in a socket: a session that was revoked must
//! not be told `connected` from it. So the lease stays lost until the control connection has been
//! through one more heartbeat.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use curfew_model::env;
use tokio::time;
use tracing::warn;

use crate::core::Core;

/// The signs of life in the time after which their absence is a stop. A thread that is late
/// for one is not late for all of them.
const SIGNS: u32 = 6;

/// A stop is an absence of a tenth of the lease, and of no less than this: a busy machine makes a
/// thread wait for some tens of milliseconds.
const SHORTEST_STOP: Duration = Duration::from_millis(100);

/// Gives signs of life for as long as the backend runs. It has a thread of its own, since a runtime's
/// worker may be busy while the process runs.
pub(crate) fn keep(core: Arc<Core>) -> io::Result<()> {
    let patience = (core.config.lease / 10).max(SHORTEST_STOP);
    if env::is_simulated() {
        core.spawn({
            let core = Arc::clone(&core);
            async move {
                loop {
                    beat(&core, patience);
                    time::sleep(patience / SIGNS).await;
                }
            }
        });
        return Ok(());
    }
    thread::Builder::new()
        .name("liveness".to_owned())
        .spawn(move || {
            while !core.stop.is_cancelled() {
                beat(&core, patience);
                thread::sleep(patience / SIGNS);
            }
        })?;
    Ok(())
}

fn beat(core: &Core, patience: Duration) {
    if let Some(stopped) = core.lease.note_alive(patience) {
        core.metrics.node_stops.inc();
        // Pushes first, then a heartbeat that is asked for from here on.
        core.stopped.notify_one();
        warn!(
            stopped_ms = u64::try_from(stopped.as_millis()).unwrap_or(u64::MAX),
            "this process did not run for a while, redis is asked what was missed"
        );
    }
}
