//! The index of revocation keys, and what else is done bit by bit between heartbeats.

use std::time::Duration;

use curfew_model::RevocationKey;
use redis::cmd;
use tokio::time::{self, Instant};
use tracing::debug;

use super::seen::Known;
use super::{Control, Generation};
use crate::fault::Fault;

/// Keys of the index read in one go.
const BATCH: isize = 1000;

/// Known revocations looked for in one go.
const RECALLS: usize = 1000;

/// Records written again in one go.
const REWRITES: usize = 256;

/// Wait after records could not be written.
const REWRITE_DELAY: Duration = Duration::from_millis(200);

/// A revocation's score in the index: its expiry.
pub(super) fn score(known: &Known) -> String {
    known
        .expires_at_ms
        .map_or_else(|| "+inf".to_owned(), |end| end.to_string())
}

impl Control {
    /// Whether there is something to do that is not urgent.
    pub(super) fn has_chores(&self, generation: &Generation) -> bool {
        self.can_rewrite()
            || self.comparison.is_under_way()
            || !generation.recall.is_empty()
            || generation.learn.is_some()
            || !generation.sweep.is_empty()
    }

    fn can_rewrite(&self) -> bool {
        !self.rewrite.is_empty() && Instant::now() >= self.rewrite_at
    }

    /// A bit of what is not urgent.
    pub(super) async fn do_chore(&mut self, generation: &mut Generation) -> Result<(), Fault> {
        if self.can_rewrite() {
            self.rewrite(generation.next_heartbeat).await;
            Ok(())
        } else if self.comparison.is_under_way() {
            self.compare(generation).await
        } else if !generation.recall.is_empty() {
            self.recall(generation).await
        } else if let Some(from) = generation.learn {
            self.learn(generation, from).await
        } else {
            self.sweep(generation).await
        }
    }

    /// Remembers what was found, here and in the index.
    pub(super) async fn note_found(
        &mut self,
        generation: &mut Generation,
        found: &[(RevocationKey, Known)],
    ) -> Result<(), Fault> {
        if found.is_empty() {
            return Ok(());
        }
        // First: if the connection breaks over the index and the data is lost with it, this node
        // knows all the same.
        for (key, known) in found {
            generation.gone.retain(|gone| gone != key);
            self.seen.insert(key.clone(), known.clone());
        }
        self.count_known();
        let mut add = cmd("ZADD");
        add.arg(self.core.keys.revoked_index());
        for (key, known) in found {
            add.arg(score(known)).arg(key.to_string());
        }
        add.query_async::<()>(&mut generation.connection).await?;
        Ok(())
    }

    /// Takes what is gone out of the index. This node forgets it a round trip later: should
    /// everything have been lost, it has been told of that by then.
    pub(super) async fn note_gone(
        &mut self,
        generation: &mut Generation,
        gone: Vec<RevocationKey>,
    ) -> Result<(), Fault> {
        if gone.is_empty() {
            return Ok(());
        }
        let mut remove = cmd("ZREM");
        remove.arg(self.core.keys.revoked_index());
        for key in &gone {
            remove.arg(key.to_string());
        }
        remove.query_async::<()>(&mut generation.connection).await?;
        generation.gone.extend(gone);
        generation.next_heartbeat = Instant::now();
        Ok(())
    }

    /// Called when a round trip that was begun after keys were found gone has ended.
    pub(super) fn forget_gone(&mut self, generation: &mut Generation) {
        let gone = std::mem::take(&mut generation.gone);
        if generation.pushes.has_lost_track() {
            // They may have been lost, not lifted: what this node knows is written back.
            return;
        }
        for key in &gone {
            self.seen.remove(key);
        }
        self.count_known();
    }

    fn count_known(&self) {
        let known = i64::try_from(self.seen.len()).unwrap_or(i64::MAX);
        self.core.metrics.revocations_known.set(known);
    }

    /// Looks for revocations that this node knows: one that was lifted while nobody could tell it
    /// keeps nobody out any more.
    async fn recall(&mut self, generation: &mut Generation) -> Result<(), Fault> {
        let from = generation.recall.len().saturating_sub(RECALLS);
        let keys = generation.recall.split_off(from);
        let read = self.read(&mut generation.connection, &keys).await?;
        let gone = read
            .into_iter()
            .filter_map(|(key, known)| known.is_none().then_some(key));
        self.note_gone(generation, gone.collect()).await
    }

    /// A node that starts, or was away, learns of the revocations that the index names.
    async fn learn(&mut self, generation: &mut Generation, from: isize) -> Result<(), Fault> {
        let written: Vec<String> = cmd("ZRANGE")
            .arg(self.core.keys.revoked_index())
            .arg(from)
            .arg(from + BATCH - 1)
            .query_async(&mut generation.connection)
            .await?;
        let keys: Vec<RevocationKey> = written
            .iter()
            .filter_map(|written| RevocationKey::parse_written(written))
            .collect();
        let read = self.read(&mut generation.connection, &keys).await?;
        let last = (written.len() as isize) < BATCH;
        let mut gone = Vec::new();
        for (key, known) in read {
            match known {
                Some(known) => self.seen.insert(key, known),
                None => gone.push(key),
            }
        }
        // What is removed here moves the rest up.
        let next = from + BATCH - gone.len() as isize;
        generation.learn = (!last).then_some(next);
        self.note_gone(generation, gone).await
    }

    /// Writes records of live sessions again, after Redis or other nodes have removed them.
    async fn rewrite(&mut self, until: Instant) {
        let from = self.rewrite.len().saturating_sub(REWRITES);
        let records = self.core.local.records(&self.rewrite[from..]);
        // Over the connections for commands, which may not be there yet, or slow: the heartbeat must
        // not wait for them.
        let rewriting = time::timeout_at(until, self.links.rewrite(&records));
        match rewriting.await.unwrap_or(Err(Fault::NotConnected)) {
            Ok(()) => self.rewrite.truncate(from),
            Err(fault) => {
                debug!(error = %fault, "records not written again, will retry");
                self.rewrite_at = Instant::now() + REWRITE_DELAY;
            }
        }
    }
}
