//! Finds the sessions that a revocation key names.
//!
//! The index stores hashes of keys, not the keys, so that a session costs only a few words. A
//! lookup may return sessions of another key with the same hash: the caller compares the session's
//! own claims.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher as _;
use std::sync::Arc;

use curfew_model::RevocationKey;
use parking_lot::Mutex;

use crate::Member;

/// Number of shards of each map of the hub. There are more shards than cores, so that two tasks
/// seldom wait for the same lock.
pub(crate) const SHARDS: usize = 64;

/// The sessions that have a key with one particular hash. Most keys name a single session, so most
/// entries need no list.
#[derive(Debug)]
enum Members {
    One(Arc<Member>),
    Many(Vec<Arc<Member>>),
}

/// Sessions by the hash of each key that names them.
#[derive(Debug)]
pub(crate) struct Index {
    hasher: RandomState,
    /// The sessions of each hash. A hash without sessions has no entry.
    shards: [Mutex<HashMap<u64, Members>>; SHARDS],
}

impl Index {
    pub(crate) fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
        }
    }

    /// The hash of a key; `None` for kinds whose sessions are found without the index: `session`,
    /// `anonymous` and `all`.
    fn hash(&self, key: &RevocationKey) -> Option<u64> {
        match key.kind() {
            "all" | "anonymous" | "session" => None,
            _ => Some(self.hasher.hash_one(key)),
        }
    }

    fn shard(&self, hash: u64) -> &Mutex<HashMap<u64, Members>> {
        &self.shards[hash as usize % SHARDS]
    }

    /// Adds the session under the key. A session that is added twice under the same key must be
    /// removed twice.
    pub(crate) fn add(&self, key: &RevocationKey, member: &Arc<Member>) {
        let Some(hash) = self.hash(key) else { return };
        match self.shard(hash).lock().entry(hash) {
            Entry::Vacant(entry) => {
                entry.insert(Members::One(Arc::clone(member)));
            }
            Entry::Occupied(mut entry) => match entry.get_mut() {
                Members::One(first) => {
                    let first = Arc::clone(first);
                    entry.insert(Members::Many(vec![first, Arc::clone(member)]));
                }
                Members::Many(members) => members.push(Arc::clone(member)),
            },
        }
    }

    /// Undoes one `add` of the same key and member.
    pub(crate) fn remove(&self, key: &RevocationKey, member: &Member) {
        let Some(hash) = self.hash(key) else { return };
        if let Entry::Occupied(mut entry) = self.shard(hash).lock().entry(hash) {
            match entry.get_mut() {
                Members::One(only) if only.slot == member.slot => {
                    entry.remove();
                }
                Members::One(_) => {}
                Members::Many(members) => {
                    if let Some(at) = members.iter().position(|other| other.slot == member.slot) {
                        members.swap_remove(at);
                    }
                    // A list of one becomes a bare entry again, which frees the list's memory.
                    if let [last] = members.as_slice() {
                        let last = Arc::clone(last);
                        entry.insert(Members::One(last));
                    }
                }
            }
        }
    }

    /// The sessions that the key may name.
    pub(crate) fn find(&self, key: &RevocationKey) -> Vec<Arc<Member>> {
        let Some(hash) = self.hash(key) else {
            return Vec::new();
        };
        match self.shard(hash).lock().get(&hash) {
            None => Vec::new(),
            Some(Members::One(member)) => vec![Arc::clone(member)],
            Some(Members::Many(members)) => members.clone(),
        }
    }

    /// The number of entries: one for each pair of session and key.
    #[cfg(test)]
    pub(crate) fn entries(&self) -> usize {
        let of = |members: &Members| match members {
            Members::One(_) => 1,
            Members::Many(members) => members.len(),
        };
        let shards = self.shards.iter();
        shards
            .map(|shard| shard.lock().values().map(of).sum::<usize>())
            .sum()
    }
}
