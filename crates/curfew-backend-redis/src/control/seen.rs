//! The revocations a node knows of: what it writes back when Redis has lost them.

use std::collections::HashMap;

use curfew_backend::Revoked;
use curfew_model::{Revocation, RevocationKey};
use parking_lot::RwLock;
use serde::Deserialize;

/// What is written back for a key whose value cannot be kept: it names everyone.
const EVERYONE: &[u8] = b"1";

/// A revocation as it is in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    /// The key's value; that of a key of another type than string stands for everyone.
    pub(super) value: Box<[u8]>,
    /// When the key expires, in milliseconds of Redis' clock.
    pub(super) expires_at_ms: Option<i64>,
}

impl Known {
    /// `value` and the answer to `PEXPIRETIME`; `None` when there is no such key.
    pub(super) fn new(value: Option<Vec<u8>>, expires_at_ms: i64) -> Option<Self> {
        /// The answer for a key that is not there.
        const NO_KEY: i64 = -2;
        if value.is_none() && expires_at_ms == NO_KEY {
            return None;
        }
        Some(Self {
            value: value.unwrap_or_else(|| EVERYONE.to_vec()).into(),
            expires_at_ms: (expires_at_ms >= 0).then_some(expires_at_ms),
        })
    }

    fn has_expired(&self, now_ms: i64) -> bool {
        self.expires_at_ms.is_some_and(|end| end <= now_ms)
    }

    /// What it says.
    pub(super) fn revocation(&self) -> Revocation {
        Revocation {
            // Up, so that it does not seem to end before it does.
            expires_at: self
                .expires_at_ms
                .map(|end| end.max(0).unsigned_abs().div_ceil(1000)),
            ..Revocation::parse(&self.value)
        }
    }

    pub(crate) fn revoked(&self, key: RevocationKey) -> Revoked {
        Revoked {
            key,
            revocation: self.revocation(),
        }
    }

    /// The name of the writing, when the API wrote it.
    pub(super) fn id(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Written {
            id: String,
        }
        if !self.value.starts_with(b"{") {
            return None;
        }
        let written: Written = serde_json::from_slice(&self.value).ok()?;
        Some(written.id)
    }
}

/// Every revocation known. Written by the control task alone; admissions look into it.
#[derive(Debug, Default)]
pub(crate) struct Seen(RwLock<HashMap<RevocationKey, Known>>);

impl Seen {
    pub(super) fn insert(&self, key: RevocationKey, known: Known) {
        self.0.write().insert(key, known);
    }

    pub(super) fn remove(&self, key: &RevocationKey) {
        let mut seen = self.0.write();
        seen.remove(key);
        if seen.is_empty() {
            *seen = HashMap::new();
        }
    }

    pub(super) fn keys(&self) -> Vec<RevocationKey> {
        self.0.read().keys().cloned().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.0.read().len()
    }

    /// Those that have not expired by Redis' clock at `now_ms`; the others are forgotten.
    pub(super) fn in_force(&self, now_ms: i64) -> Vec<(RevocationKey, Known)> {
        let mut seen = self.0.write();
        seen.retain(|_, known| !known.has_expired(now_ms));
        seen.iter()
            .map(|(key, known)| (key.clone(), known.clone()))
            .collect()
    }

    /// Whether one of these keys is known, at `now_ms`, to cover a token issued at `issued_at`.
    pub(crate) fn covers(
        &self,
        keys: &[RevocationKey],
        issued_at: Option<u64>,
        now_ms: i64,
    ) -> bool {
        let seen = self.0.read();
        !seen.is_empty()
            && keys
                .iter()
                .filter_map(|key| seen.get(key))
                .filter(|known| !known.has_expired(now_ms))
                .any(|known| known.revocation().covers(issued_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_another_type_names_everyone() {
        assert_eq!(Known::new(None, -2), None);
        let list = Known::new(None, -1).unwrap();
        assert_eq!(list.revocation(), Revocation::default());
        let text = Known::new(Some(b"1764000000".to_vec()), 1500).unwrap();
        assert_eq!(text.revocation().before, Some(1_764_000_000));
        assert_eq!(text.revocation().expires_at, Some(2));
    }

    #[test]
    fn what_has_expired_is_forgotten() {
        let seen = Seen::default();
        for (name, end) in [("a", -1), ("b", 100), ("c", 200)] {
            let known = Known::new(Some(Vec::new()), end).unwrap();
            seen.insert(RevocationKey::user(name), known);
        }
        assert_eq!(seen.in_force(100).len(), 2);
        assert_eq!(seen.len(), 2);
        let covers = |name, now| seen.covers(&[RevocationKey::user(name)], None, now);
        assert!(covers("a", 1000) && covers("c", 199));
        assert!(!covers("b", 0) && !covers("c", 200));
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
