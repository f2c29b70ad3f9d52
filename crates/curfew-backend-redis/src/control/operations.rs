//! Executes the requests of the admin API and of other nodes: revoke, restore, confirm.

use std::time::Duration;

use curfew_backend::{BackendError, Ended};
use curfew_model::{Revocation, RevocationKey};
use curfew_telemetry::Span;
use redis::{Value, cmd, pipe};
use serde::Serialize;
use tokio::time::Instant;
use tracing::debug;

use super::known_revocations::Known;
use super::read::{SpelledKey, read_watched};
use super::{Control, Counted, Generation};
use crate::core::random_id;
use crate::fault::Fault;
use crate::request::{ControlRequest, WriteReceipt};
use crate::span;

/// Maximum number of attempts to write a revocation while other clients write the same key.
const ATTEMPTS: usize = 10;

/// The number of commands that write a revocation: one for the key, one for the index.
const WRITES: usize = 2;

/// Maximum number of revocations for which the ended sessions are stored until the receipt is
/// complete.
const MAX_COUNTED: usize = 4096;

/// Time for which a disconnected replica still counts as expected.
const REPLICA_MEMORY: Duration = Duration::from_secs(600);

/// Longest wait for a replica to receive a revocation.
const REPLICATION: Duration = Duration::from_millis(500);

/// The value of a revocation key that Curfew writes.
pub(super) fn value_of(revocation: &Revocation, id: Option<&str>) -> String {
    #[derive(Serialize)]
    struct Value<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        before: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
        /// The id of this write, for receipts.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
        /// The span that wrote the revocation.
        #[serde(skip_serializing_if = "Option::is_none")]
        trace: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        tracestate: Option<&'a str>,
    }
    let value = Value {
        before: revocation.before,
        reason: revocation.reason.as_deref(),
        id,
        trace: revocation.trace.as_ref().map(ToString::to_string),
        tracestate: revocation.trace.as_ref().and_then(|trace| trace.state()),
    };
    serde_json::to_string(&value).expect("numbers and strings are JSON")
}

impl Control {
    /// Executes a request. The requester gets an answer even if the connection breaks.
    pub(super) async fn operate(
        &mut self,
        generation: &mut Generation,
        request: ControlRequest,
    ) -> Result<(), Fault> {
        // A requester that gave up has reported a failure, so the request must not be executed
        // later.
        if request.is_given_up() {
            return Ok(());
        }
        let failed = match request {
            ControlRequest::Revoke {
                key,
                revocation,
                reply,
            } => answer(reply, self.revoke(generation, &key, revocation).await),
            ControlRequest::Restore { key, reply } => {
                answer(reply, self.restore(generation, key).await)
            }
            ControlRequest::Confirm { id, key, reply } => {
                answer(reply, self.confirm(generation, &id, key).await)
            }
            ControlRequest::Compare { reply } => {
                self.start_comparison(generation, reply);
                None
            }
        };
        self.step("op").log();
        match failed {
            Some(fault) if fault.is_fatal() || fault.is_timeout() => Err(fault),
            _ => Ok(()),
        }
    }

    /// Writes a revocation. If Redis already has a revocation with this key, both are merged, so
    /// that the result never covers fewer tokens.
    async fn revoke(
        &mut self,
        generation: &mut Generation,
        key: &RevocationKey,
        revocation: Revocation,
    ) -> Result<WriteReceipt, Fault> {
        let id = random_id();
        let mut span = match &revocation.trace {
            Some(call) => {
                let tracer = self.core.metrics.tracer();
                span::begin_below(call, tracer, span::TRANSACTION, WRITES, &generation.address)
            }
            None => Span::NONE,
        };
        let own = SpelledKey {
            key: key.clone(),
            spelling: key.own_spelling(),
        };
        let written = self.write(generation, &own, revocation, Some(&id)).await;
        written.inspect_err(|fault| span::failed(&mut span, fault))?;
        drop(span);
        let replicas = self.replicate(generation).await?;
        Ok(WriteReceipt { id, replicas })
    }

    /// Merges the revocation that this node knows into the revocation in Redis, if the revocation
    /// in Redis covers less. Returns true if the result was written.
    pub(super) async fn widen(
        &mut self,
        generation: &mut Generation,
        written: &SpelledKey,
        revocation: Revocation,
    ) -> Result<bool, Fault> {
        self.write(generation, written, revocation, None).await
    }

    /// Merges a revocation with the revocation in Redis, and writes the result. Without an `id`,
    /// the result is written only if the revocation in Redis covers less. Returns true if the
    /// result was written.
    async fn write(
        &mut self,
        generation: &mut Generation,
        spelled: &SpelledKey,
        revocation: Revocation,
        id: Option<&str>,
    ) -> Result<bool, Fault> {
        let name = spelled.name(&self.core.keys);
        for _ in 0..ATTEMPTS {
            // The key is watched before it is read. The transaction below fails if another client
            // writes the key in between.
            cmd("WATCH")
                .arg(&name)
                .query_async::<()>(&mut generation.connection)
                .await?;
            let there = read_watched(&generation.connection, &name).await?;
            let there = there.map(|known| known.revocation());
            let revocation = match &there {
                Some(there) => there.merge(revocation.clone()),
                None => revocation.clone(),
            };
            let suffices = |there: &Revocation| there.covers_as_much_as(&revocation);
            if id.is_none() && there.as_ref().is_some_and(suffices) {
                cmd("UNWATCH")
                    .query_async::<()>(&mut generation.connection)
                    .await?;
                // The revocation in Redis already covers as much as the merged revocation.
                return Ok(false);
            }
            let value = value_of(&revocation, id);
            let expires_at_ms = revocation
                .expires_at
                .map(|end| i64::try_from(end.saturating_mul(1000)).unwrap_or(i64::MAX));
            let known = Known {
                value: value.into_bytes().into(),
                expires_at_ms,
            };
            let mut transaction = pipe();
            transaction
                .atomic()
                .cmd("SET")
                .arg(&name)
                .arg(&*known.value);
            if let Some(end) = expires_at_ms {
                transaction.arg("PXAT").arg(end);
            }
            transaction
                .cmd("ZADD")
                .arg(self.core.keys.revoked_index())
                .arg(super::index::score(&known))
                .arg(spelled.member());
            let written: Option<Vec<Value>> =
                transaction.query_async(&mut generation.connection).await?;
            if written.is_some() {
                // The revocation is remembered at once and not at the push, because Redis may lose
                // the data before the push arrives.
                generation.gone.retain(|gone| gone != spelled);
                self.known_revocations.insert(spelled, known);
                return Ok(true);
            }
            debug!("another client wrote the revocation meanwhile, retrying");
        }
        Err(Fault::Contended)
    }

    /// Waits for a replica to receive the write. Returns the number of replicas that have the write
    /// and the number of replicas that should have it, or `None` without replicas.
    async fn replicate(
        &mut self,
        generation: &mut Generation,
    ) -> Result<Option<(u64, u64)>, Fault> {
        // Replicas disconnect and return, so a replica that was connected recently still counts as
        // expected.
        let role: Vec<Value> = cmd("ROLE").query_async(&mut generation.connection).await?;
        self.check_role(&role)?;
        let missed = self
            .replicas_seen_at
            .is_some_and(|seen| seen.elapsed() < REPLICA_MEMORY);
        if !missed {
            return Ok(None);
        }
        let wanted = 1;
        // The wait is shorter than the connection's own timeout, because that timeout would break
        // the connection.
        let patience = REPLICATION.min(self.core.connector.timeout() / 2);
        let have: u64 = cmd("WAIT")
            .arg(wanted)
            .arg(u64::try_from(patience.as_millis()).unwrap_or(u64::MAX))
            .query_async(&mut generation.connection)
            .await?;
        Ok(Some((have, wanted)))
    }

    /// Lifts a revocation in every spelling. Returns true if a key was removed.
    async fn restore(
        &mut self,
        generation: &mut Generation,
        key: RevocationKey,
    ) -> Result<bool, Fault> {
        let written: Vec<SpelledKey> =
            SpelledKey::all(&self.known_revocations.complete(&key)).collect();
        let (mut delete, mut forget) = (cmd("DEL"), cmd("ZREM"));
        forget.arg(self.core.keys.revoked_index());
        for written in &written {
            delete.arg(written.name(&self.core.keys));
            forget.arg(written.member());
        }
        let (removed, _): (u64, u64) = pipe()
            .atomic()
            .add_command(delete)
            .add_command(forget)
            .query_async(&mut generation.connection)
            .await?;
        for written in &written {
            self.known_revocations.remove(written);
        }
        Ok(removed > 0)
    }

    /// Reads a revocation that was just written, and ends the sessions that it covers, unless its
    /// push has already ended them. Fails if the revocation may not find every session that it
    /// covers.
    async fn confirm(
        &mut self,
        generation: &mut Generation,
        id: &str,
        key: RevocationKey,
    ) -> Result<Ended, Fault> {
        let learned = Instant::now();
        let written: Vec<SpelledKey> =
            SpelledKey::all(&self.known_revocations.complete(&key)).collect();
        let read = self.read(&generation.connection, &written).await?;
        let found: Vec<(SpelledKey, Known)> = written
            .into_iter()
            .zip(read)
            .filter_map(|(written, known)| Some((written, known?)))
            .collect();
        if found.is_empty() {
            // The revocation was lifted again or lost, so there is nothing to confirm.
            return Err(Fault::NotThere);
        }
        let mut ended = Ended::default();
        for (written, known) in &found {
            ended.join(self.apply(&written.revoked(known), learned));
        }
        // `finds` is called after the revocation was applied, because a reload during the
        // application may have hidden sessions from the revocation.
        let finds = self.core.events.finds(key.kind());
        self.note_found(generation, &found).await?;
        if !finds {
            return Err(Fault::Unfound);
        }
        if let Some(at) = self.counted.iter().position(|counted| counted.id == id)
            && let Some(earlier) = self.counted.remove(at)
        {
            ended.join(earlier.ended);
        }
        Ok(ended)
    }

    /// Remembers the sessions that a revocation of the admin API has ended, for the revocation's
    /// receipt.
    pub(super) fn count_for(&mut self, id: String, ended: Ended) {
        if self.counted.len() >= MAX_COUNTED {
            self.counted.pop_front();
        }
        let at = Instant::now();
        match self.counted.iter_mut().find(|counted| counted.id == id) {
            Some(earlier) => earlier.ended.join(ended),
            None => self.counted.push_back(Counted { id, ended, at }),
        }
    }

    /// Forgets sessions counted for receipts, one lease after they ended. A receipt is complete by
    /// then.
    pub(super) fn forget_counted(&mut self) {
        let lease = self.core.config.lease;
        while let Some(oldest) = self.counted.front()
            && oldest.at.elapsed() > lease
        {
            self.counted.pop_front();
        }
    }
}

/// Answers the requester, who may have given up. Returns the fault if there was a fault.
fn answer<T>(
    reply: tokio::sync::oneshot::Sender<Result<T, BackendError>>,
    result: Result<T, Fault>,
) -> Option<Fault> {
    match result {
        Ok(value) => {
            drop(reply.send(Ok(value)));
            None
        }
        Err(fault) => {
            let told = BackendError::unavailable(fault.to_string());
            drop(reply.send(Err(told)));
            Some(fault)
        }
    }
}
