//! Drain: the node's sessions are closed evenly over a window, and their clients reconnect to other
//! nodes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use curfew_hub::Ending;
use curfew_model::{Disconnect, Problems};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::{self, Instant};
use tracing::info;

use crate::Node;

/// Interval at which the drain checks if sessions or records are left.
const TICK: Duration = Duration::from_millis(20);

/// Longest time that a client is advised to wait before it reconnects. The wait lets the load
/// balancer notice the drain, and spreads the reconnects.
const MAX_RETRY_AFTER_MS: u64 = 3_000;

/// Longest time that a drain waits, after it has told all sessions to end, until the closes are
/// written and the records are removed.
const FLUSH: Duration = Duration::from_secs(5);

/// The `[drain]` section: leaving service on SIGTERM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DrainConfig {
    /// The window over which disconnects are spread evenly. Keep it well below the time after which
    /// the supervisor kills the process (in Kubernetes `terminationGracePeriodSeconds`).
    #[serde(with = "curfew_model::setting::duration")]
    #[schemars(with = "String")]
    pub window: Duration,
    /// The time after SIGTERM during which new connections are still accepted, because load
    /// balancers notice the drain late. `/readyz` answers 503 from the start.
    #[serde(with = "curfew_model::setting::duration")]
    #[schemars(with = "String")]
    pub accept_grace: Duration,
}

impl Default for DrainConfig {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(20),
            accept_grace: Duration::ZERO,
        }
    }
}

impl DrainConfig {
    /// Reports values that are out of range.
    pub fn check(&self, problems: &mut Problems) {
        const LONGEST: Duration = Duration::from_secs(3600);
        for (key, value) in [("window", self.window), ("accept_grace", self.accept_grace)] {
            if value > LONGEST {
                problems.report(key, "must be at most 1h");
            }
        }
    }
}

impl Node {
    /// Begins to leave service: the node reports not ready, but still admits sessions.
    pub fn begin_drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.metrics.draining.set(1);
    }

    /// Refuses all further sessions.
    pub fn refuse_sessions(&self) {
        self.refusing.store(true, Ordering::Relaxed);
    }

    /// Ends every session, at even intervals within `window`. Each client is advised to wait for a
    /// random time before it reconnects. Then waits for at most five seconds until the sessions are
    /// closed and their records are removed.
    pub async fn drain(self: &Arc<Self>, window: Duration) {
        let mut members = self.hub.members();
        fastrand::shuffle(&mut members);
        info!(
            sessions = members.len(),
            window_ms = window.as_millis() as u64,
            "draining"
        );
        let count = members.len();
        let start = Instant::now();
        for (at, member) in members.into_iter().enumerate() {
            if self.hub.get(member.session()).is_none() {
                continue;
            }
            // Tokio's timer has a resolution of one millisecond. Sessions whose turns fall into the
            // same millisecond end together.
            let turn = start + window.mul_f64(at as f64 / count as f64);
            if turn > Instant::now() {
                time::sleep_until(turn).await;
            }
            let ending = Ending {
                disconnect: Disconnect::DRAINING,
                retry_after_ms: Some(fastrand::u64(..=MAX_RETRY_AFTER_MS)),
            };
            self.hub.end(&member, ending);
        }
        self.flush().await;
    }

    /// Waits until no session and no connection is left. Session records and presence entries must
    /// also be removed, and the revocations that identity providers reported must be written. The
    /// wait ends after five seconds.
    async fn flush(&self) {
        let left = || self.metrics.connections.get();
        let gone = async {
            // A session leaves the hub before its last frames are written, so connections are
            // counted too.
            while self.hub.count() > 0
                || left() > 0
                || !self.cleanup.is_done()
                || !self.presence.is_done()
                || self.unwritten() > 0
            {
                time::sleep(TICK).await;
            }
        };
        if time::timeout(FLUSH, gone).await.is_err() {
            tracing::warn!(
                connections = left(),
                revocations = self.unwritten(),
                "connections, session records or revocations are left after the drain"
            );
        }
        let lost = self.unwritten();
        if lost > 0 {
            tracing::error!(
                lost,
                "the node stops although it has not written all revocations from identity providers to the backend"
            );
            self.metrics.revocations_lost.inc_by(lost as u64);
        }
    }
}
