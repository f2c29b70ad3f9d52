//! The heartbeat: a write that a replaced primary refuses, and then a second round trip. The lease
//! begins at the time just before the write is sent.

use std::time::Duration;

use curfew_model::boottime;
use redis::cmd;
use tokio::time::Instant;
use tracing::warn;

use super::{Control, Generation, HEARTBEAT, NODE_LEASE};
use crate::core::MAX_CLOCK_SKEW;
use crate::fault::Fault;

/// Clock difference above which a warning is logged.
const NOTABLE_SKEW: Duration = Duration::from_secs(1);

impl Control {
    /// Sends a heartbeat. Then renews the lease, unless the node lost track of the revocations
    /// during the heartbeat.
    pub(super) async fn beat(&mut self, generation: &mut Generation) -> Result<(), Fault> {
        let started = Instant::now();
        // The clock is read before the heartbeat is sent. Redis' answer proves nothing about
        // changes that Redis executes after the heartbeat, so the lease counts from the time before
        // the heartbeat.
        let (sent_at, stretch) = (boottime(), self.core.lease.stretch());
        let connection = &mut generation.connection;
        let lease_ms = u64::try_from(NODE_LEASE.as_millis()).unwrap_or(u64::MAX);
        // `GET` returns the earlier value. If there was no earlier value, other nodes may have
        // taken this node for dead.
        let before: Option<String> = cmd("SET")
            .arg(self.core.keys.heartbeat(self.core.node))
            .arg(self.core.node.to_string())
            .arg("PX")
            .arg(lease_ms)
            .arg("GET")
            .query_async(connection)
            .await?;
        self.core
            .metrics
            .backend_heartbeat_duration
            .observe(started.elapsed().as_secs_f64());
        self.step("heartbeat").log();
        // Redis may execute the heartbeat and a revocation in one iteration of its event loop, and
        // then sends the push after the heartbeat's answer. The answer to a command that is sent
        // now arrives after this push.
        let time: (u64, u64) = cmd("TIME").query_async(connection).await?;
        self.step("barrier").log();
        self.compare_clocks(time, sent_at);
        if before.is_none() && self.registered {
            // The node was disconnected for longer than its heartbeat lasts, so other nodes may
            // have removed its records. Another possible cause is that the data was replaced
            // without a push, for example by `SWAPDB`.
            warn!(
                "this node's lease was missing in redis; the node compares its sessions with redis and writes their records again"
            );
            self.core.status.forget_registration();
            self.rewrite = self.core.local.sessions();
            generation.pushes.lose_track();
        }
        self.registered = true;
        self.forget_gone(generation);
        self.forget_counted();
        // The interval is at most a third of the lease, so that two lost heartbeats do not end the
        // lease.
        generation.next_heartbeat = started + HEARTBEAT.min(self.core.config.lease / 3);
        if !self.renew_lease(generation, sent_at + self.core.config.lease, stretch) {
            // This process was paused during the heartbeat, so the answers may be older than the
            // pause.
            generation.beat_next();
        }
        Ok(())
    }

    /// Compares this node's clock with Redis' clock. Redis read `time` between `sent_at` and now.
    pub(super) fn compare_clocks(&mut self, time: (u64, u64), sent_at: Duration) {
        let (seconds, microseconds) = time;
        let theirs = Duration::from_secs(seconds) + Duration::from_micros(microseconds);
        let half = boottime().saturating_sub(sent_at) / 2;
        let ours = self.core.clock.now().saturating_sub(half);
        let skew = ours.abs_diff(theirs);
        self.core.status.set_skew(skew);
        if skew <= NOTABLE_SKEW {
            self.warned_of_skew = false;
        } else if !self.warned_of_skew {
            self.warned_of_skew = true;
            let refused = skew > MAX_CLOCK_SKEW;
            warn!(
                skew_ms = u64::try_from(skew.as_millis()).unwrap_or(u64::MAX),
                refusing_sessions = refused,
                "the clocks of this node and of redis differ, so revocations by time of issue cover the wrong tokens: synchronise the clocks"
            );
        }
    }

    /// The current time of Redis' clock, in milliseconds.
    pub(super) async fn redis_now_ms(&mut self, generation: &mut Generation) -> Result<i64, Fault> {
        let (seconds, microseconds): (i64, i64) =
            cmd("TIME").query_async(&mut generation.connection).await?;
        Ok(seconds.saturating_mul(1000) + microseconds / 1000)
    }
}
