//! Detects pauses of this process, caused by a signal, a hypervisor or a lack of processors.
//!
//! A pause longer than the lease ends the lease by itself. After a shorter pause the lease still
//! holds, but pushes from Redis wait unread in a socket, and a session revoked meanwhile must not
//! be told `connected`. So the lease stays lost until the control connection has finished another
//! heartbeat.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use curfew_model::env;
use tokio::time;
use tracing::warn;

use crate::core::Core;

/// Signs of life in the time after which their absence counts as a pause. There are several, so
/// that a thread that is late for one sign does not count as paused.
const SIGNS: u32 = 6;

/// Shortest absence of signs that counts as a pause. The limit is a tenth of the lease if that is
/// longer. A busy machine alone delays a thread by some tens of milliseconds.
const SHORTEST_STOP: Duration = Duration::from_millis(100);

/// Gives signs of life for as long as the backend runs. It uses a thread of its own, because all
/// workers of the runtime may be busy while the process itself runs.
pub(crate) fn keep(core: Arc<Core>) -> io::Result<()> {
    let patience = (core.config.lease / 10).max(SHORTEST_STOP);
    // A simulation has virtual time, and no threads.
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

/// Gives one sign of life, and reports a pause if there was one.
fn beat(core: &Core, patience: Duration) {
    if let Some(stopped) = core.lease.note_alive(patience) {
        core.metrics.node_stops.inc();
        // The control connection reads waiting pushes first, then sends a heartbeat.
        core.stopped.notify_one();
        warn!(
            stopped_ms = u64::try_from(stopped.as_millis()).unwrap_or(u64::MAX),
            "this process was paused; it asks redis for missed revocations"
        );
    }
}
