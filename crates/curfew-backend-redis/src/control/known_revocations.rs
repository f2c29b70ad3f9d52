//! The revocations that a node knows. The node writes them back if Redis has lost them.

use std::collections::{HashMap, HashSet};
use std::sync::Weak;

use curfew_model::{Revocation, RevocationKey, Spelling};
use parking_lot::{Mutex, RwLock};
use serde::Deserialize;
use tokio::sync::Notify;

use super::pushes::Pushes;
use super::read::SpelledKey;

/// Value stored for a key whose own value is too long or is not a string. It covers every token.
const EVERYONE: &[u8] = b"1";

/// Longest value that is parsed, in bytes. A longer value covers every token.
pub(super) const MAX_VALUE_BYTES: usize = 4096;

/// Maximum number of keys that admissions have reported and that wait to be read. A key for which
/// there is no room is reported again by the next admission of a session that it covers.
const MAX_MET: usize = 100_000;

/// A revocation as Redis stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    /// The value of the key, or [`EVERYONE`] if the key is not a string or its value is too long.
    pub(super) value: Box<[u8]>,
    /// The expiry of the key, in milliseconds of Redis' clock.
    pub(super) expires_at_ms: Option<i64>,
}

impl Known {
    /// Creates a revocation from the answers to `GETRANGE` and `PEXPIRETIME`. Returns `None` if the
    /// key does not exist. `value` is `None` for a key that is not a string.
    pub(crate) fn new(value: Option<Vec<u8>>, expires_at_ms: i64) -> Option<Self> {
        /// The answer of `PEXPIRETIME` for a key that does not exist.
        const NO_KEY: i64 = -2;
        if expires_at_ms == NO_KEY {
            return None;
        }
        let value = value.filter(|value| value.len() <= MAX_VALUE_BYTES);
        Some(Self {
            value: value.unwrap_or_else(|| EVERYONE.to_vec()).into(),
            expires_at_ms: (expires_at_ms >= 0).then_some(expires_at_ms),
        })
    }

    /// True if the key has expired at `now_ms` of Redis' clock.
    fn has_expired(&self, now_ms: i64) -> bool {
        self.expires_at_ms.is_some_and(|end| end <= now_ms)
    }

    /// The revocation that the value describes.
    pub(crate) fn revocation(&self) -> Revocation {
        Revocation {
            // The end is rounded up, because the revocation must not appear to end too early.
            expires_at: self
                .expires_at_ms
                .map(|end| end.max(0).unsigned_abs().div_ceil(1000)),
            ..Revocation::parse(&self.value)
        }
    }

    /// The id of the write, if the admin API wrote the key.
    pub(super) fn id(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct NamedValue {
            id: String,
        }
        if !self.value.starts_with(b"{") {
            return None;
        }
        let written: NamedValue = serde_json::from_slice(&self.value).ok()?;
        Some(written.id)
    }
}

/// Every revocation that this node knows, and the keys that admissions report to the control task.
/// Only the control task changes the known revocations; admissions read them.
#[derive(Debug, Default)]
pub(crate) struct KnownRevocations {
    /// The known revocations, shared with admissions.
    book: RwLock<Book>,
    /// Keys that admissions have found in Redis, with a value that this node does not know yet.
    met: Mutex<HashSet<RevocationKey>>,
    pub(super) has_met: Notify,
    /// The pushes of the current generation.
    pushes: Mutex<Weak<Pushes>>,
}

/// The known revocations, with counts.
#[derive(Debug, Default)]
struct Book {
    known: HashMap<RevocationKey, Vec<(Spelling, Known)>>,
    /// The number of keys of each kind. From these numbers and `wrong_digests`, the number of
    /// ineffective keys is computed without a walk over all keys.
    kinds: HashMap<Box<str>, usize>,
    wrong_digests: usize,
}

impl Book {
    /// Adjusts the counts for a key that is added (if `add` is true) or removed.
    fn count(&mut self, written: &SpelledKey, add: bool) {
        let step = |count: &mut usize| {
            *count = if add {
                *count + 1
            } else {
                count.saturating_sub(1)
            };
        };
        let kind = written.key.kind();
        match self.kinds.get_mut(kind) {
            Some(count) => {
                step(count);
                if *count == 0 {
                    self.kinds.remove(kind);
                }
            }
            None if add => drop(self.kinds.insert(kind.into(), 1)),
            None => {}
        }
        let any_kind = |_: &str| true;
        if written
            .key
            .ineffective(written.spelling, any_kind)
            .is_some()
        {
            step(&mut self.wrong_digests);
        }
    }

    /// Forgets a key in one spelling.
    fn remove(&mut self, written: &SpelledKey) {
        let Some(spellings) = self.known.get_mut(&written.key) else {
            return;
        };
        let before = spellings.len();
        spellings.retain(|(spelling, _)| *spelling != written.spelling);
        let removed = spellings.len() < before;
        if spellings.is_empty() {
            self.known.remove(&written.key);
        }
        if removed {
            self.count(written, false);
        }
        // The map is replaced by a new map, because an emptied map does not release its memory.
        if self.known.is_empty() {
            self.known = HashMap::new();
        }
    }
}

impl KnownRevocations {
    /// Adds a revocation or changes its value. Returns true if the key was not known in this
    /// spelling.
    pub(super) fn insert(&self, written: &SpelledKey, known: Known) -> bool {
        let SpelledKey { key, spelling } = written;
        let mut book = self.book.write();
        let earlier = book.known.remove_entry(key);
        // The new spelling may be the first spelling that shows the plain value. The map's key is
        // then replaced by this key.
        let (key, mut spellings) = match earlier {
            Some((earlier, spellings)) if key.plain_value().is_none() => (earlier, spellings),
            Some((_, spellings)) => (key.clone(), spellings),
            None => (key.clone(), Vec::with_capacity(1)),
        };
        let there = spellings.iter_mut().find(|(there, _)| there == spelling);
        let new = there.is_none();
        match there {
            Some((_, there)) => *there = known,
            None => spellings.push((*spelling, known)),
        }
        book.known.insert(key, spellings);
        if new {
            book.count(written, true);
        }
        new
    }

    /// Forgets a key in one spelling.
    pub(super) fn remove(&self, written: &SpelledKey) {
        self.book.write().remove(written);
    }

    /// The same key, with the plain value if this node knows the plain value.
    pub(super) fn complete(&self, key: &RevocationKey) -> RevocationKey {
        let book = self.book.read();
        match book.known.get_key_value(key) {
            Some((known, _)) if key.plain_value().is_none() => known.clone(),
            _ => key.clone(),
        }
    }

    /// True if the key is known in this spelling.
    pub(super) fn has(&self, written: &SpelledKey) -> bool {
        self.known(written, |_| true)
    }

    /// True if the key is known in this spelling with a value for which `matches` returns true.
    fn known(&self, written: &SpelledKey, matches: impl Fn(&Known) -> bool) -> bool {
        let book = self.book.read();
        let spellings = book.known.get(&written.key);
        let mut spellings = spellings.into_iter().flatten();
        spellings.any(|(spelling, known)| *spelling == written.spelling && matches(known))
    }

    /// Every known key, in each known spelling.
    pub(super) fn written(&self) -> Vec<SpelledKey> {
        let book = self.book.read();
        let known = book.known.iter();
        known
            .flat_map(|(key, spellings)| {
                spellings.iter().map(|(spelling, _)| SpelledKey {
                    key: key.clone(),
                    spelling: *spelling,
                })
            })
            .collect()
    }

    /// The number of known keys, counting each spelling.
    pub(super) fn len(&self) -> usize {
        self.book.read().kinds.values().sum()
    }

    /// The number of known keys that can match no session. `is_kind` returns true for a claim that
    /// is a kind of revocation.
    pub(super) fn ineffective(&self, is_kind: impl Fn(&str) -> bool) -> usize {
        let book = self.book.read();
        let kinds = book.kinds.iter();
        let unknown: usize = kinds
            .filter(|(kind, _)| !RevocationKey::is_kind(kind, &[]) && !is_kind(kind))
            .map(|(_, count)| count)
            .sum();
        unknown + book.wrong_digests
    }

    /// The revocations that have not expired at `now_ms` of Redis' clock. Expired revocations are
    /// forgotten.
    pub(super) fn in_force(&self, now_ms: i64) -> Vec<(SpelledKey, Known)> {
        let mut book = self.book.write();
        let mut in_force = Vec::with_capacity(book.known.len());
        let mut expired = Vec::new();
        for (key, spellings) in &book.known {
            for (spelling, known) in spellings {
                let written = SpelledKey {
                    key: key.clone(),
                    spelling: *spelling,
                };
                if known.has_expired(now_ms) {
                    expired.push(written);
                } else {
                    in_force.push((written, known.clone()));
                }
            }
        }
        for written in &expired {
            book.remove(written);
        }
        in_force
    }

    /// True if a known revocation with one of these keys covers a token issued at `issued_at`, and
    /// has not expired at `now_ms` of Redis' clock.
    pub(crate) fn covers(
        &self,
        keys: &[RevocationKey],
        issued_at: Option<u64>,
        now_ms: i64,
    ) -> bool {
        let book = self.book.read();
        !book.known.is_empty()
            && keys
                .iter()
                .filter_map(|key| book.known.get(key))
                .flatten()
                .filter(|(_, known)| !known.has_expired(now_ms))
                .any(|(_, known)| known.revocation().covers(issued_at))
    }

    /// Reports a key that an admission has found in Redis. If the node does not know the key with
    /// this value, the control task reads the key itself. The node does not store the value that
    /// the admission found, because Redis may have lost it since then (M19 of the model).
    pub(crate) fn meet(&self, written: &SpelledKey, found: &Known) {
        if self.known(written, |known| known == found) {
            return;
        }
        let mut met = self.met.lock();
        if met.len() < MAX_MET {
            met.insert(written.key.clone());
        }
        drop(met);
        self.has_met.notify_one();
    }

    /// True if a key reported by admissions waits to be read.
    pub(super) fn has_any_met(&self) -> bool {
        !self.met.lock().is_empty()
    }

    /// Takes reported keys, at most `count`.
    pub(super) fn take_met(&self, count: usize) -> Vec<RevocationKey> {
        let mut met = self.met.lock();
        if met.len() <= count {
            return std::mem::take(&mut *met).into_iter().collect();
        }
        let keys: Vec<_> = met.iter().take(count).cloned().collect();
        for key in &keys {
            met.remove(key);
        }
        keys
    }

    /// Puts back keys that were taken but could not be read.
    pub(super) fn meet_again(&self, keys: Vec<RevocationKey>) {
        // The set may then exceed `MAX_MET`, because other keys may have taken the room of these
        // keys.
        self.met.lock().extend(keys);
    }

    /// Sets the pushes of a new generation, for [`KnownRevocations::hold`].
    pub(super) fn set_pushes(&self, pushes: Weak<Pushes>) {
        *self.pushes.lock() = pushes;
    }

    /// Holds back the session with these keys for as long as at least one of the keys waits to be
    /// read.
    pub(crate) fn hold(&self, keys: &[RevocationKey]) {
        // The lock is released before the call, because `hold` takes the locks of the pushes and of
        // the hub.
        let pushes = self.pushes.lock().upgrade();
        if let Some(pushes) = pushes {
            pushes.hold(keys);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(user: &str, spelling: Spelling) -> SpelledKey {
        SpelledKey {
            key: RevocationKey::user(user),
            spelling,
        }
    }

    #[test]
    fn what_cannot_be_kept_covers_everyone() {
        assert_eq!(Known::new(None, -2), None);
        // The answer of `GETRANGE` for a key that does not exist.
        assert_eq!(Known::new(Some(Vec::new()), -2), None);
        let cutoff = |length: usize| {
            let mut value = br#"{"before":1764000000,"reason":""}"#.to_vec();
            value.resize(length, b' ');
            Known::new(Some(value), -1).unwrap()
        };
        assert_eq!(
            cutoff(MAX_VALUE_BYTES).revocation().before,
            Some(1_764_000_000)
        );
        for everyone in [
            Known::new(None, -1).unwrap(),
            cutoff(MAX_VALUE_BYTES + 1),
            Known::new(Some(Vec::new()), -1).unwrap(),
        ] {
            assert_eq!(everyone.revocation(), Revocation::default());
            assert!(everyone.value.len() <= EVERYONE.len());
        }
        let text = Known::new(Some(b"1764000000".to_vec()), 1500).unwrap();
        assert_eq!(text.revocation().before, Some(1_764_000_000));
        assert_eq!(text.revocation().expires_at, Some(2));
    }

    #[test]
    fn what_has_expired_is_forgotten() {
        let revocations = KnownRevocations::default();
        for (name, end) in [("a", -1), ("b", 100), ("c", 200)] {
            let known = Known::new(Some(Vec::new()), end).unwrap();
            assert!(revocations.insert(&written(name, Spelling::Plain), known.clone()));
            assert!(!revocations.insert(&written(name, Spelling::Plain), known));
        }
        assert_eq!(revocations.in_force(100).len(), 2);
        assert_eq!(revocations.len(), 2);
        let covers = |name, now| revocations.covers(&[RevocationKey::user(name)], None, now);
        assert!(covers("a", 1000) && covers("c", 199));
        assert!(!covers("b", 0) && !covers("c", 200));
    }

    #[test]
    fn both_spellings_are_one_key_and_are_kept_and_forgotten_apart() {
        let revocations = KnownRevocations::default();
        let zoe = RevocationKey::user("zo\u{eb}");
        let (digest, _) = RevocationKey::parse_written(zoe.to_string().as_bytes()).unwrap();
        assert_eq!(digest.plain_value(), None);
        let of = |key: &RevocationKey, spelling| SpelledKey {
            key: key.clone(),
            spelling,
        };
        let known = |value: &[u8]| Known::new(Some(value.to_vec()), -1).unwrap();
        revocations.insert(&of(&digest, Spelling::Digest), known(b"1764000000"));
        assert_eq!(revocations.complete(&digest).plain_value(), None);
        revocations.insert(&of(&zoe, Spelling::Plain), known(b"1"));
        assert_eq!(
            revocations.complete(&digest).plain_value(),
            Some("zo\u{eb}")
        );
        assert_eq!(revocations.len(), 2);
        let covers = || revocations.covers(std::slice::from_ref(&zoe), Some(1_764_000_001), 0);
        assert!(covers());
        revocations.remove(&of(&zoe, Spelling::Plain));
        assert!(!covers(), "the remaining cutoff does not cover the token");
        assert!(
            revocations.has(&of(&zoe, Spelling::Digest))
                && !revocations.has(&of(&zoe, Spelling::Plain))
        );
        revocations.remove(&of(&digest, Spelling::Digest));
        assert_eq!(revocations.len(), 0);
    }

    #[test]
    fn what_can_match_nobody_is_counted() {
        let revocations = KnownRevocations::default();
        let known = Known::new(Some(b"1".to_vec()), -1).unwrap();
        let ineffective = || revocations.ineffective(|kind| kind == "tenant");
        let mut all = Vec::new();
        for (name, expect) in [
            ("user:alice", 0),
            ("tenant:acme", 0),
            ("users:alice", 1),
            ("user:~short", 2),
            ("user:~not a digest", 2),
        ] {
            let (key, spelling) = RevocationKey::parse_written(name.as_bytes()).unwrap();
            let written = SpelledKey { key, spelling };
            revocations.insert(&written, known.clone());
            assert_eq!(ineffective(), expect, "{name}");
            all.push(written);
        }
        assert_eq!(revocations.ineffective(|_| false), 3);
        for written in &all {
            revocations.remove(written);
        }
        assert_eq!((ineffective(), revocations.len()), (0, 0));
    }

    #[test]
    fn what_is_known_as_it_was_found_is_not_read_again() {
        let revocations = KnownRevocations::default();
        let alice = written("alice", Spelling::Plain);
        let known = |value: &[u8]| Known::new(Some(value.to_vec()), -1).unwrap();
        revocations.insert(&alice, known(b"1"));
        revocations.meet(&alice, &known(b"1"));
        assert!(!revocations.has_any_met());
        revocations.meet(&alice, &known(b"1764000000"));
        revocations.meet(&written("bob", Spelling::Digest), &known(b"1"));
        assert_eq!(revocations.take_met(1).len(), 1);
        assert_eq!(revocations.take_met(10).len(), 1);
        assert!(!revocations.has_any_met());
    }

    #[test]
    fn the_writing_is_named_where_the_api_wrote_it() {
        let id = |value: &str| Known::new(Some(value.into()), -1).unwrap().id();
        assert_eq!(id(r#"{"id":"x","reason":"left"}"#).as_deref(), Some("x"));
        assert_eq!(id("1"), None);
        assert_eq!(id("{"), None);
        assert_eq!(id(r#"{"reason":"left"}"#), None);
    }
}
