//! Ineffective keys: keys that look like the key of a revocation but match no session. Each is
//! logged once, listed, and counted.
//!
//! A key that parses is stored like any other known revocation, because a reload may make its kind
//! effective. This module only logs a key that parses. A key that does not parse or lacks the
//! braces is remembered by its whole name.

use std::collections::{BTreeMap, HashSet};

use curfew_model::{Ineffective, RevocationKey};
use redis::{cmd, pipe};
use tracing::warn;

use super::read::SpelledKey;
use super::{Control, Generation};
use crate::fault::Fault;
use crate::keys::Keys;

/// Maximum number of names that are remembered, so that each is logged once.
const MAX_REMEMBERED: usize = 100_000;

/// Maximum number of index entries read in one command.
const BATCH: isize = 1000;

/// The reason why a key of this name matches no session under any settings; `None` if it may match
/// a session.
pub(crate) fn why(keys: &Keys, name: &[u8]) -> Option<Ineffective> {
    match name.strip_prefix(keys.revoked_prefix().as_bytes()) {
        Some(written) => RevocationKey::parse_written(written).err(),
        None => Some(Ineffective::MissingBraces),
    }
}

impl Control {
    /// Checks ineffective keys that a push has named. A key is added to the index of ineffective
    /// keys if it exists, and removed from the index otherwise.
    pub(super) async fn look_at_nameless(
        &mut self,
        generation: &mut Generation,
        names: Vec<Vec<u8>>,
    ) -> Result<(), Fault> {
        let names = names.into_iter().filter(|name| self.is_here(name));
        let names: Vec<Vec<u8>> = names.collect();
        if names.is_empty() {
            return Ok(());
        }
        let index = self.core.keys.ineffective();
        let mut gone = cmd("ZREM");
        gone.arg(&index);
        let mut there = cmd("ZADD");
        there.arg(&index);
        let (mut any_gone, mut any_there) = (false, false);
        let mut news = Vec::new();
        let ends = self.ends(generation, &names).await?;
        for (name, end) in names.iter().zip(ends) {
            if let Some(score) = end {
                any_there = true;
                there.arg(score).arg(name);
                if self.remember_nameless(name) {
                    news.extend(why(&self.core.keys, name));
                }
            } else {
                any_gone = true;
                gone.arg(name);
                self.nameless.remove(name);
            }
        }
        self.tell_of_ineffective(&news);
        self.count_known();
        let connection = &mut generation.connection;
        if any_there {
            there.query_async::<()>(connection).await?;
        }
        if any_gone {
            gone.query_async::<()>(connection).await?;
        }
        Ok(())
    }

    /// Reads the index of ineffective keys at the start and after an interruption, because other
    /// nodes may have changed the index.
    pub(super) async fn learn_nameless(
        &mut self,
        generation: &mut Generation,
    ) -> Result<(), Fault> {
        let index = self.core.keys.ineffective();
        let mut there = HashSet::new();
        let mut from = 0;
        loop {
            let names: Vec<Vec<u8>> = cmd("ZRANGE")
                .arg(&index)
                .arg(from)
                .arg(from + BATCH - 1)
                .query_async(&mut generation.connection)
                .await?;
            let last = (names.len() as isize) < BATCH;
            let ends = self.ends(generation, &names).await?;
            let (kept, gone): (Vec<_>, Vec<_>) = names
                .into_iter()
                .zip(ends)
                .partition(|(_, end)| end.is_some());
            if !gone.is_empty() {
                let mut remove = cmd("ZREM");
                remove.arg(&index);
                for (name, _) in &gone {
                    remove.arg(name);
                }
                remove.query_async::<()>(&mut generation.connection).await?;
            }
            // The removal of entries has moved the later entries up, so only the remaining entries
            // count.
            from += kept.len() as isize;
            there.extend(kept.into_iter().map(|(name, _)| name));
            if last || there.len() >= MAX_REMEMBERED {
                break;
            }
        }
        let before = std::mem::replace(&mut self.nameless, there);
        let new = self.nameless.difference(&before);
        let news: Vec<Ineffective> = new.filter_map(|name| why(&self.core.keys, name)).collect();
        self.tell_of_ineffective(&news);
        self.count_known();
        Ok(())
    }

    /// The expiry of each key as a score; `None` for a key that does not exist.
    async fn ends(
        &self,
        generation: &mut Generation,
        names: &[Vec<u8>],
    ) -> Result<Vec<Option<String>>, Fault> {
        let mut pipeline = pipe();
        for name in names {
            pipeline.cmd("PEXPIRETIME").arg(name);
        }
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let ends: Vec<i64> = pipeline.query_async(&mut generation.connection).await?;
        let score = |end: i64| match end {
            -2 => None,
            ..0 => Some("+inf".to_owned()),
            end => Some(end.to_string()),
        };
        Ok(ends.into_iter().map(score).collect())
    }

    /// True if the key is on the server of the control connection. In a cluster, a key without the
    /// braces may be on any server.
    fn is_here(&self, name: &[u8]) -> bool {
        !self.connections.is_cluster()
            || name.starts_with(self.core.keys.revoked_prefix().as_bytes())
    }

    /// Remembers the name. Returns true if it is new.
    fn remember_nameless(&mut self, name: &[u8]) -> bool {
        self.nameless.len() < MAX_REMEMBERED && self.nameless.insert(name.to_vec())
    }

    /// Logs the newly known keys that can match no session.
    pub(super) fn tell_of_new<'a>(&self, new: impl Iterator<Item = &'a SpelledKey>) {
        let is_kind = |kind: &str| self.core.local.is_kind(kind);
        let reasons = new.filter_map(|written| written.key.ineffective(written.spelling, is_kind));
        let reasons: Vec<Ineffective> = reasons.collect();
        self.tell_of_ineffective(&reasons);
    }

    /// Logs one line for each different reason, with the number of keys. The line contains neither
    /// kinds nor values, which may be personal data.
    fn tell_of_ineffective(&self, reasons: &[Ineffective]) {
        let mut counts = BTreeMap::new();
        for reason in reasons {
            *counts.entry(reason.as_str()).or_insert(0_u64) += 1;
        }
        for (reason, keys) in counts {
            warn!(
                reason,
                keys,
                "redis has revocation keys that can match no session; GET /v1/revocations lists them with the reason"
            );
        }
    }
}
