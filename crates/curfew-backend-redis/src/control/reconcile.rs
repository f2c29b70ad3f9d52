//! Comparing sessions with Redis: all of them before the gate opens, and all again every half a
//! minute.

use std::time::Duration;

use curfew_model::{RevocationKey, SessionId};
use futures_util::future::try_join_all;
use redis::aio::MultiplexedConnection;
use redis::{Value, cmd, from_redis_value, pipe};
use tokio::time::Instant;
use tracing::warn;

use super::seen::Known;
use super::{Control, Generation, SWEEP};
use crate::fault::Fault;
use crate::keys::Keys;

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
            for (key, known) in try_join_all(chunks).await?.into_iter().flatten() {
                ended += self.apply(&known.revoked(key.clone()), began).count();
                found.push((key, known));
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
        mut connection: MultiplexedConnection,
        keys: Vec<RevocationKey>,
    ) -> Result<Vec<(RevocationKey, Known)>, Fault> {
        find(&mut connection, &self.core.keys, keys).await
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
        let found = find(&mut generation.connection, &self.core.keys, keys).await?;
        if found.is_empty() {
            self.step("sweep").sessions(chunk.len()).revoked(0).log();
            return Ok(());
        }
        // A push of the very loop that answered comes after the answer: what a push tells is not
        // missed.
        cmd("PING")
            .query_async::<()>(&mut generation.connection)
            .await?;
        let (mut ended, mut missed) = (0, 0);
        for (key, known) in &found {
            if generation.pushes.has(key) {
                continue;
            }
            let count = self.apply(&known.revoked(key.clone()), began).count();
            ended += count;
            // While settings change, no push could have found them.
            if self.core.events.finds(key.kind()) {
                missed += count;
            }
        }
        if missed > 0 {
            warn!(
                sessions = missed,
                "revoked sessions that no push had told of"
            );
            self.core
                .metrics
                .revocation_missed_push
                .inc_by(missed as u64);
        }
        self.step("sweep")
            .sessions(chunk.len())
            .revoked(ended)
            .log();
        self.note_found(generation, &found).await
    }

    /// What became of keys: each with its value and expiry, or nothing.
    pub(super) async fn read(
        &self,
        connection: &mut MultiplexedConnection,
        keys: &[RevocationKey],
    ) -> Result<Vec<(RevocationKey, Option<Known>)>, Fault> {
        read(connection, &self.core.keys, keys).await
    }
}

/// Until the next sweep; nodes that started together do not stay together.
pub(super) fn sweep_interval() -> Duration {
    SWEEP.mul_f64(0.8 + 0.4 * fastrand::f64())
}

/// What became of keys: each with its value and expiry, or nothing.
pub(crate) async fn read(
    connection: &mut MultiplexedConnection,
    names: &Keys,
    keys: &[RevocationKey],
) -> Result<Vec<(RevocationKey, Option<Known>)>, Fault> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let mut pipeline = pipe();
    let written: Vec<String> = keys.iter().map(|key| names.revoked(key)).collect();
    pipeline.cmd("MGET").arg(&written);
    for name in &written {
        pipeline.cmd("PEXPIRETIME").arg(name);
    }
    let mut replies: Vec<Value> = pipeline.query_async(connection).await?;
    let expiries = replies.split_off(1);
    let values = replies.pop().unwrap_or_default();
    let values: Vec<Option<Vec<u8>>> =
        from_redis_value(values).map_err(|_| Fault::Unexpected("MGET"))?;
    keys.iter()
        .zip(values)
        .zip(expiries)
        .map(|((key, value), expiry)| {
            let expiry = from_redis_value(expiry).map_err(|_| Fault::Unexpected("PEXPIRETIME"))?;
            Ok((key.clone(), Known::new(value, expiry)))
        })
        .collect()
}

/// Those of the keys that are there.
pub(crate) async fn find(
    connection: &mut MultiplexedConnection,
    names: &Keys,
    keys: Vec<RevocationKey>,
) -> Result<Vec<(RevocationKey, Known)>, Fault> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    // Nearly always none is there, and a key of any type counts.
    let written: Vec<String> = keys.iter().map(|key| names.revoked(key)).collect();
    let there: u64 = cmd("EXISTS").arg(written).query_async(connection).await?;
    if there == 0 {
        return Ok(Vec::new());
    }
    let read = read(connection, names, &keys).await?;
    Ok(read
        .into_iter()
        .filter_map(|(key, known)| Some((key, known?)))
        .collect())
}
