//! Detects pauses of this process, caused by a signal, a hypervisor or a lack of processors.
//!
//! During a pause longer than the lease, the lease ends by itself. After a shorter pause the lease
//! has time left, but pushes from Redis may wait unread in a socket, and a session that was revoked
//! meanwhile must not get `connected`. The lease is therefore lost until the control connection has
//! finished another heartbeat.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use curfew_model::env;
use tokio::time;
use tracing::warn;

use crate::core::Core;

/// Number of signs of life in the shortest time that counts as a pause. There are several signs, so
/// that a thread that is late for one sign does not count as paused.
const SIGNS: u32 = 6;

/// Shortest time without signs that counts as a pause, unless a tenth of the lease is longer. The
/// load of a busy machine alone delays a thread by some tens of milliseconds.
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
        // The control connection then reads the waiting pushes and sends a heartbeat.
        core.stopped.notify_one();
        warn!(
            stopped_ms = u64::try_from(stopped.as_millis()).unwrap_or(u64::MAX),
            "this process was paused; it asks redis for missed revocations"
        );
    }
}
