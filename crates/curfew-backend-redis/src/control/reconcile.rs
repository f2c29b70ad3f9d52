//! Comparisons of sessions with Redis. Every session is compared before the first lease, and a
//! sweep compares every session again each half minute.

use std::time::Duration;

use curfew_model::{RevocationKey, SessionId};
use futures_util::future::try_join_all;
use redis::cmd;
use tokio::time::Instant;
use tracing::warn;

use super::known_revocations::Known;
use super::read::{self, SpelledKey};
use super::{Control, Generation, SWEEP};
use crate::connect::Connection;
use crate::fault::Fault;

/// Maximum number of sessions compared in one step.
pub(super) const CHUNK: usize = 512;

/// Maximum number of chunks under way at once.
const CHUNKS_AT_ONCE: usize = 4;

impl Control {
    /// Compares every session with Redis, including opening sessions.
    pub(super) async fn reconcile(&mut self, generation: &mut Generation) -> Result<(), Fault> {
        let began = Instant::now();
        let sessions = self.core.local.sessions();
        let mut found = Vec::new();
        let mut ended = 0;
        for several in sessions.chunks(CHUNK * CHUNKS_AT_ONCE) {
            let chunks: Vec<_> = several
                .chunks(CHUNK)
                .map(|chunk| self.core.local.keys(chunk))
                .map(|keys| self.find_over(generation.connection.clone(), keys))
                .collect();
            for (written, known) in try_join_all(chunks).await?.into_iter().flatten() {
                ended += self.apply(&written.revoked(&known), began).count();
                found.push((written, known));
            }
        }
        self.step("reconcile")
            .sessions(sessions.len())
            .revoked(ended)
            .log();
        self.note_found(generation, &found).await
    }

    /// Finds the keys of these sessions that exist in Redis, over a clone of the connection.
    async fn find_over(
        &self,
        mut connection: Connection,
        keys: Vec<RevocationKey>,
    ) -> Result<Vec<(SpelledKey, Known)>, Fault> {
        read::find(&mut connection, &self.core.keys, &keys).await
    }

    /// Starts a sweep over every session.
    pub(super) fn start_sweep(&mut self, generation: &mut Generation) {
        // No sweep is needed during a comparison, which covers every session.
        if !self.comparison.is_under_way() {
            generation.sweep = self.core.local.sessions();
        }
        generation.next_sweep = Instant::now() + sweep_interval();
    }

    /// Compares one chunk of the sweep.
    pub(super) async fn sweep(&mut self, generation: &mut Generation) -> Result<(), Fault> {
        let from = generation.sweep.len().saturating_sub(CHUNK);
        let chunk: Vec<SessionId> = generation.sweep.split_off(from);
        let keys = self.core.local.keys(&chunk);
        let began = Instant::now();
        let found = read::find(&mut generation.connection, &self.core.keys, &keys).await?;
        let ended = self.apply_unpushed(generation, &found, began).await?;
        self.step("sweep")
            .sessions(chunk.len())
            .revoked(ended)
            .log();
        self.note_found(generation, &found).await
    }

    /// Ends the sessions covered by revocations that were found without a push. If a push of the
    /// key has arrived meanwhile, the handling of the push ends the sessions instead. Returns the
    /// number of sessions ended.
    pub(super) async fn apply_unpushed(
        &mut self,
        generation: &mut Generation,
        found: &[(SpelledKey, Known)],
        began: Instant,
    ) -> Result<usize, Fault> {
        if found.is_empty() {
            return Ok(0);
        }
        // Redis sends a push after the answers of the same iteration of its event loop. The answer
        // to PING arrives after this push, so a revocation that is being pushed does not count as
        // missed.
        cmd("PING")
            .query_async::<()>(&mut generation.connection)
            .await?;
        let (mut ended, mut missed) = (0, 0);
        for (written, known) in found {
            if generation.pushes.has(&written.key) {
                continue;
            }
            let sessions = self.apply(&written.revoked(known), began);
            ended += sessions.count();
            // A push finds a session only by the kinds by which the session is indexed already. A
            // session that is not yet indexed by the kind of the revocation does not count as
            // missed. An opening session does not count as missed either: the push may have arrived
            // before the session was registered, and the session's own check refuses it.
            if self.core.events.finds(written.key.kind()) {
                missed += sessions.open();
            }
        }
        if missed > 0 {
            warn!(
                sessions = missed,
                "ended revoked sessions although no push had announced their revocations"
            );
            let counter = &self.core.metrics.revocation_missed_push;
            counter.inc_by(missed as u64);
        }
        Ok(ended)
    }

    /// Reads these keys. Returns the value and expiry of each key, or `None` for a key that does
    /// not exist.
    pub(super) async fn read(
        &self,
        connection: &Connection,
        written: &[SpelledKey],
    ) -> Result<Vec<Option<Known>>, Fault> {
        read::read(connection, &self.core.keys, written).await
    }
}

/// The delay until the next sweep. It is random, so that nodes that started together do not sweep
/// together.
pub(super) fn sweep_interval() -> Duration {
    SWEEP.mul_f64(0.8 + 0.4 * fastrand::f64())
}
