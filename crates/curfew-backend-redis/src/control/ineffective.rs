//! Keys written like a revocation's that can match nobody: told of once, listed, counted.
//!
//! Those that parse are known like any other, since a reload may make their kind one; here they are
//! only told of. The others, and those without the braces, are kept by their whole name.

use std::collections::{BTreeMap, HashSet};

use curfew_model::{Ineffective, RevocationKey};
use redis::{cmd, pipe};
use tracing::warn;

use super::read::SpelledKey;
use super::{Control, Generation};
use crate::fault::Fault;
use crate::keys::Keys;

/// Names that are remembered, so that each is told of once.
const MAX_REMEMBERED: usize = 100_000;

/// Names read of the index in one go.
const BATCH: isize = 1000;

/// Why a key of this name can match nobody, whichever claims are revocable; `None` where it may.
pub(crate) fn why(keys: &Keys, name: &[u8]) -> Option<Ineffective> {
    match name.strip_prefix(keys.revoked_prefix().as_bytes()) {
        Some(written) => RevocationKey::parse_written(written).err(),
        None => Some(Ineffective::MissingBraces),
    }
}

impl Control {
    /// Looks what became of keys that were touched and name nobody.
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

    /// A node that starts, or was away, learns of those that others have noticed.
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

    /// When keys end, as scores; `None` for those that are not there.
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

    /// Whether this server has the key. In a cluster those without the braces may lie anywhere.
    fn is_here(&self, name: &[u8]) -> bool {
        !self.connections.is_cluster()
            || name.starts_with(self.core.keys.revoked_prefix().as_bytes())
    }

    /// Says whether that is news.
    fn remember_nameless(&mut self, name: &[u8]) -> bool {
        self.nameless.len() < MAX_REMEMBERED && self.nameless.insert(name.to_vec())
    }

    /// Of keys that have become known just now, tells of those that can match nobody.
    pub(super) fn tell_of_new<'a>(&self, new: impl Iterator<Item = &'a SpelledKey>) {
        let is_kind = |kind: &str| self.core.local.is_kind(kind);
        let reasons = new.filter_map(|written| written.key.ineffective(written.spelling, is_kind));
        let reasons: Vec<Ineffective> = reasons.collect();
        self.tell_of_ineffective(&reasons);
    }

    /// A line for each reason. Neither kind nor value: both may be about a person.
    fn tell_of_ineffective(&self, reasons: &[Ineffective]) {
        let mut counts = BTreeMap::new();
        for reason in reasons {
            *counts.entry(reason.as_str()).or_insert(0_u64) += 1;
        }
        for (reason, keys) in counts {
            warn!(
                reason,
                keys,
                "revocation keys that can match nobody were written; GET /v1/revocations lists them"
            );
        }
    }
}
