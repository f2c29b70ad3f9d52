//! Finds the sessions that a revocation key names.
//!
//! Keeps hashes of keys, not the keys: a session costs a few words here. Whoever looks up compares
//! the session's own claims afterwards, so that a collision does no harm.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher as _;
use std::sync::Arc;

use curfew_model::RevocationKey;
use parking_lot::Mutex;

use crate::Member;

/// Shards of each map of the hub: more than cores, so that two tasks seldom wait for each other.
pub(crate) const SHARDS: usize = 64;

/// Most keys name one session; only users with several have a list.
#[derive(Debug)]
enum Members {
    One(Arc<Member>),
    Many(Vec<Arc<Member>>),
}

#[derive(Debug)]
pub(crate) struct Index {
    hasher: RandomState,
    shards: [Mutex<HashMap<u64, Members>>; SHARDS],
}

impl Index {
    pub(crate) fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
        }
    }

    /// `all` and `session` keys are found without the index.
    fn hash(&self, key: &RevocationKey) -> Option<u64> {
        match key.kind() {
            "all" | "session" => None,
            _ => Some(self.hasher.hash_one(key)),
        }
    }

    fn shard(&self, hash: u64) -> &Mutex<HashMap<u64, Members>> {
        &self.shards[hash as usize % SHARDS]
    }

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
                    if let [last] = members.as_slice() {
                        let last = Arc::clone(last);
                        entry.insert(Members::One(last));
                    }
                }
            }
        }
    }

    /// Sessions the key may name.
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

    /// How many entries it has: one for each key by which it finds a session.
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
