//! Recently verified tokens. They make a second verification of the same signature unnecessary, for
//! example when all clients reconnect at once.
//!
//! Entries belong to one snapshot of issuers and keys, and are dropped with that snapshot. An entry
//! says that the token was good under this snapshot; revocations are checked each time.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{self, SHA256, SHA256_OUTPUT_LEN};
use curfew_model::Principal;

use crate::issuers::LoadedIssuer;

/// A token's SHA-256, by which remembered tokens are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Digest([u8; SHA256_OUTPUT_LEN]);

impl Digest {
    pub(crate) fn of(token: &str) -> Self {
        let mut bytes = [0; SHA256_OUTPUT_LEN];
        bytes.copy_from_slice(digest::digest(&SHA256, token.as_bytes()).as_ref());
        Self(bytes)
    }
}

/// Remembers up to `auth.verified_tokens` tokens in two generations. A new token is stored in the
/// younger generation, and each use of a token moves the token there. When the younger generation
/// is full, it replaces the older generation, whose tokens are forgotten.
pub(crate) struct VerifiedTokens {
    /// The capacity of one generation.
    capacity: usize,
    generations: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    young: HashMap<Digest, Entry>,
    old: HashMap<Digest, Entry>,
}

#[derive(Clone)]
struct Entry {
    principal: Arc<Principal>,
    issuer: Arc<LoadedIssuer>,
}

impl VerifiedTokens {
    pub(crate) fn new(tokens: usize) -> Self {
        Self {
            capacity: tokens / 2,
            generations: Mutex::default(),
        }
    }

    pub(crate) fn is_off(&self) -> bool {
        self.capacity == 0
    }

    /// The principal of a remembered token, unless the token has ended or its issuer's keys are too
    /// old.
    pub(crate) fn find(&self, digest: &Digest, now: Duration) -> Option<Arc<Principal>> {
        // The lock is held for the look-up only, because every verification takes it.
        let entry = {
            let mut generations = self.lock();
            match generations.young.get(digest) {
                Some(entry) => entry.clone(),
                None => {
                    let entry = generations.old.remove(digest)?;
                    generations.keep(self.capacity, *digest, entry.clone());
                    entry
                }
            }
        };
        let good = now < entry.principal.ends_at() && entry.issuer.is_usable();
        good.then_some(entry.principal)
    }

    pub(crate) fn remember(
        &self,
        digest: Digest,
        principal: &Arc<Principal>,
        issuer: &Arc<LoadedIssuer>,
    ) {
        let entry = Entry {
            principal: Arc::clone(principal),
            issuer: Arc::clone(issuer),
        };
        self.lock().keep(self.capacity, digest, entry);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Generations> {
        self.generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn keep(&mut self, capacity: usize, digest: Digest, entry: Entry) {
        if self.young.len() >= capacity {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(digest, entry);
    }
}

impl fmt::Debug for VerifiedTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedTokens")
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}
