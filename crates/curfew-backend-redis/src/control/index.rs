//! The index of revocation keys, and the other work done in small steps between heartbeats.

use std::sync::Arc;
use std::time::Duration;

use curfew_model::{RevocationKey, SessionId};
use redis::cmd;
use tokio::time::{self, Instant};
use tracing::debug;

use super::known_revocations::Known;
use super::pushes;
use super::read::{SpelledKey, groups};
use super::{Control, Generation};
use crate::fault::Fault;

/// Maximum number of index entries read in one step.
const BATCH: isize = 1000;

/// Maximum number of known revocations looked up in one step.
const RECALLS: usize = 1000;

/// Maximum number of records written again in one step.
const REWRITES: usize = 256;

/// Delay before the next attempt after records could not be written.
const REWRITE_DELAY: Duration = Duration::from_millis(200);

/// A revocation's score in the index: its expiry, or `+inf` if it has none.
pub(super) fn score(known: &Known) -> String {
    known
        .expires_at_ms
        .map_or_else(|| "+inf".to_owned(), |end| end.to_string())
}

impl Control {
    /// True if work of low urgency waits.
    pub(super) fn has_chores(&self, generation: &Generation) -> bool {
        self.can_rewrite()
            || self.comparison.is_under_way()
            || !generation.recall.is_empty()
            || self.known_revocations.has_any_met()
            || generation.learn.is_some()
            || !generation.sweep.is_empty()
    }

    /// True if records wait to be written, and the delay after a failure has passed.
    fn can_rewrite(&self) -> bool {
        !self.rewrite.is_empty() && Instant::now() >= self.rewrite_at
    }

    /// Does one step of the low-urgency work.
    pub(super) async fn do_chore(&mut self, generation: &mut Generation) -> Result<(), Fault> {
        if self.can_rewrite() {
            self.rewrite(generation.next_heartbeat).await;
            Ok(())
        } else if self.comparison.is_under_way() {
            self.compare(generation).await
        } else if self.known_revocations.has_any_met() {
            self.learn_met(generation).await
        } else if !generation.recall.is_empty() {
            self.recall(generation).await
        } else if let Some(from) = generation.learn {
            self.learn(generation, from).await
        } else {
            self.sweep(generation).await
        }
    }

    /// Adds the revocations that were found to this node's memory and to the index.
    pub(super) async fn note_found(
        &mut self,
        generation: &mut Generation,
        found: &[(SpelledKey, Known)],
    ) -> Result<(), Fault> {
        if found.is_empty() {
            return Ok(());
        }
        let mut new = Vec::new();
        // This node's memory is updated before the index. If the connection then breaks and Redis
        // loses its data, the node still knows the revocations.
        for (written, known) in found {
            generation.gone.retain(|gone| gone != written);
            if self.known_revocations.insert(written, known.clone()) {
                new.push(written);
            }
        }
        self.tell_of_new(new.into_iter());
        self.count_known();
        let size = |(written, _): &(SpelledKey, Known)| written.member().len();
        for group in groups(found, usize::MAX, size) {
            let mut add = cmd("ZADD");
            add.arg(self.core.keys.revoked_index());
            for (written, known) in group {
                add.arg(score(known)).arg(written.member());
            }
            add.query_async::<()>(&mut generation.connection).await?;
        }
        Ok(())
    }

    /// Removes the keys `gone`, which no longer exist, from the index. The node itself forgets
    /// these keys one round trip later, when it knows that Redis did not lose all data.
    pub(super) async fn note_gone(
        &mut self,
        generation: &mut Generation,
        gone: Vec<SpelledKey>,
    ) -> Result<(), Fault> {
        if gone.is_empty() {
            return Ok(());
        }
        let size = |written: &SpelledKey| written.member().len();
        for group in groups(&gone, usize::MAX, size) {
            let mut remove = cmd("ZREM");
            remove.arg(self.core.keys.revoked_index());
            for written in group {
                remove.arg(written.member());
            }
            remove.query_async::<()>(&mut generation.connection).await?;
        }
        generation.gone.extend(gone);
        generation.beat_next();
        Ok(())
    }

    /// Forgets the keys in `generation.gone`, which were found missing. The caller must have made a
    /// round trip that began after the keys were found missing.
    pub(super) fn forget_gone(&mut self, generation: &mut Generation) {
        let gone = std::mem::take(&mut generation.gone);
        if generation.pushes.has_lost_track() {
            // The keys may have been lost instead of lifted, so this node must write them back.
            return;
        }
        for written in &gone {
            self.known_revocations.remove(written);
        }
        self.count_known();
    }

    /// Updates the metrics of known revocations. It is also called when no key has changed, because
    /// a reload may have changed the kinds of revocations.
    pub(super) fn count_known(&self) {
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let metrics = &self.core.metrics;
        metrics
            .revocations_known
            .set(count(self.known_revocations.len()));
        let unmatched = self
            .known_revocations
            .ineffective(|kind| self.core.local.is_kind(kind));
        let ineffective = count(unmatched + self.nameless.len());
        metrics.revocations_ineffective.set(ineffective);
    }

    /// Reads keys that admissions have found in Redis before any push announced them.
    async fn learn_met(&mut self, generation: &mut Generation) -> Result<(), Fault> {
        let learned = Instant::now();
        let keys = self.known_revocations.take_met(pushes::BATCH);
        let written: Vec<SpelledKey> = keys
            .iter()
            .flat_map(|key| {
                SpelledKey::all(&self.known_revocations.complete(key)).collect::<Vec<_>>()
            })
            .collect();
        let read = self.read(&generation.connection, &written).await;
        if read.is_err() {
            self.known_revocations.meet_again(keys);
        }
        let found: Vec<(SpelledKey, Known)> = written
            .into_iter()
            .zip(read?)
            .filter_map(|(written, known)| Some((written, known?)))
            .collect();
        self.apply_unpushed(generation, &found, learned).await?;
        self.note_found(generation, &found).await
    }

    /// Looks up known revocations in Redis. A revocation that was lifted while the node was
    /// disconnected must not keep refusing sessions.
    async fn recall(&mut self, generation: &mut Generation) -> Result<(), Fault> {
        let from = generation.recall.len().saturating_sub(RECALLS);
        let written = generation.recall.split_off(from);
        let read = self.read(&generation.connection, &written).await?;
        let gone = written
            .into_iter()
            .zip(read)
            .filter_map(|(written, known)| known.is_none().then_some(written));
        self.note_gone(generation, gone.collect()).await
    }

    /// Reads one batch of the index, to learn of revocations from before this connection.
    async fn learn(&mut self, generation: &mut Generation, from: isize) -> Result<(), Fault> {
        if from == 0 {
            self.learn_nameless(generation).await?;
        }
        let members: Vec<Vec<u8>> = cmd("ZRANGE")
            .arg(self.core.keys.revoked_index())
            .arg(from)
            .arg(from + BATCH - 1)
            .query_async(&mut generation.connection)
            .await?;
        let written: Vec<SpelledKey> = members
            .iter()
            .filter_map(|member| RevocationKey::parse_written(member).ok())
            .map(|(key, spelling)| SpelledKey { key, spelling })
            .collect();
        let read = self.read(&generation.connection, &written).await?;
        let last = (members.len() as isize) < BATCH;
        let (mut new, mut gone) = (Vec::new(), Vec::new());
        for (written, known) in written.into_iter().zip(read) {
            let Some(known) = known else {
                gone.push(written);
                continue;
            };
            if self.known_revocations.insert(&written, known) {
                new.push(written);
            }
        }
        self.tell_of_new(new.iter());
        // The removal of entries moves the later entries up, so the next batch starts that much
        // earlier.
        let next = from + BATCH - gone.len() as isize;
        generation.learn = (!last).then_some(next);
        self.note_gone(generation, gone).await
    }

    /// Writes the presence entries of these sessions again, in a task of its own: a session may
    /// have many entries, and the heartbeat must not wait for them. The task tries again only if a
    /// write failed because the lease was over. After any other failure, the comparison of presence
    /// entries finds the missing entries.
    fn rewrite_presence(&self, sessions: Vec<SessionId>) {
        let connections = Arc::clone(&self.connections);
        self.core.spawn(async move {
            while let Err(fault) = connections.rewrite_presence(&sessions).await {
                debug!(error = %fault, "presence entries could not be written again");
                if !matches!(fault, Fault::LeaseOver) {
                    return;
                }
                // Redis accepts a presence entry only under a lease. The lease is renewed soon.
                time::sleep(REWRITE_DELAY).await;
            }
        });
    }

    /// Writes records of live sessions again, after Redis or other nodes have removed them.
    async fn rewrite(&mut self, until: Instant) {
        let from = self.rewrite.len().saturating_sub(REWRITES);
        let records = self.core.local.records(&self.rewrite[from..]);
        // The rewriting is bounded in time. The connections for commands may be missing or slow,
        // and the heartbeat must not wait for them.
        let rewriting = time::timeout_at(until, self.connections.rewrite(&records));
        match rewriting.await.unwrap_or(Err(Fault::NotConnected)) {
            Ok(()) => {
                let sessions = self.rewrite.split_off(from);
                self.rewrite_presence(sessions);
            }
            Err(fault) => {
                debug!(error = %fault, "session records could not be written again, will retry");
                self.rewrite_at = Instant::now() + REWRITE_DELAY;
            }
        }
    }
}
