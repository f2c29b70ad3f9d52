//! Comparing sessions with Redis: all of them before the first lease, and all again every half a
//! minute.

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

/// Sessions compared in one go.
pub(super) const CHUNK: usize = 512;

/// Chunks under way at once.
const CHUNKS_AT_ONCE: usize = 4;

impl Control {
    /// Compares every session with Redis, those that are opening included.
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

    async fn find_over(
        &self,
        mut connection: Connection,
        keys: Vec<RevocationKey>,
    ) -> Result<Vec<(SpelledKey, Known)>, Fault> {
        read::find(&mut connection, &self.core.keys, &keys).await
    }

    pub(super) fn start_sweep(&mut self, generation: &mut Generation) {
        // A comparison looks at all of them anyway.
        if !self.comparison.is_under_way() {
            generation.sweep = self.core.local.sessions();
        }
        generation.next_sweep = Instant::now() + sweep_interval();
    }

    /// One chunk of the sweep.
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

    /// Ends the sessions that these cover, which were read without a word from Redis and which no
    /// push has told of by then. Says how many there were.
    pub(super) async fn apply_unpushed(
        &mut self,
        generation: &mut Generation,
        found: &[(SpelledKey, Known)],
        began: Instant,
    ) -> Result<usize, Fault> {
        if found.is_empty() {
            return Ok(0);
        }
        // A push of the very loop that answered comes after the answer: what a push tells is not
        // missed.
        cmd("PING")
            .query_async::<()>(&mut generation.connection)
            .await?;
        let (mut ended, mut missed) = (0, 0);
        for (written, known) in found {
            if generation.pushes.has(&written.key) {
                continue;
            }
            let count = self.apply(&written.revoked(known), began).count();
            ended += count;
            // While settings change, no push could have found them.
            if self.core.events.finds(written.key.kind()) {
                missed += count;
            }
        }
        if missed > 0 {
            warn!(
                sessions = missed,
                "revoked sessions that no push had told of"
            );
            let counter = &self.core.metrics.revocation_missed_push;
            counter.inc_by(missed as u64);
        }
        Ok(ended)
    }

    /// What became of keys as they are written: each with its value and expiry, or nothing.
    pub(super) async fn read(
        &self,
        connection: &Connection,
        written: &[SpelledKey],
    ) -> Result<Vec<Option<Known>>, Fault> {
        read::read(connection, &self.core.keys, written).await
    }
}

/// Until the next sweep; nodes that started together do not stay together.
pub(super) fn sweep_interval() -> Duration {
    SWEEP.mul_f64(0.8 + 0.4 * fastrand::f64())
}
