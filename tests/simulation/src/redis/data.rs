//! The keys, their values and their expiry.
//!
//! Owns: the keyspace, and the order in which keys expire.
//! Knows nothing of: connections, replies, notifications.

use std::collections::{BTreeMap, BTreeSet};

use super::call::Failure;
use super::sorted_set::SortedSet;

/// Every key, with its value and its expiry.
#[derive(Debug, Clone, Default)]
pub(super) struct Data {
    entries: BTreeMap<Vec<u8>, Entry>,
    expiries: BTreeSet<(i64, Vec<u8>)>,
}

/// The value of a key, with its expiry.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) value: Value,
    /// Expiry in milliseconds since 1970. The key exists until this millisecond is over.
    expires_at: Option<i64>,
}

/// A value of one of the types that the gateway uses.
#[derive(Debug, Clone)]
pub(super) enum Value {
    String(Vec<u8>),
    /// Fields in the order in which they were first set, as Redis stores small hashes.
    Hash(Fields),
    Set(Set),
    Sorted(SortedSet),
    /// Entries by the first number of their id. Each entry has one field.
    Stream(Entries),
}

/// The entries of a stream.
pub(super) type Entries = BTreeMap<u64, Vec<u8>>;

/// Names and values of fields.
pub(super) type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// Members in the order of their digests. With this order, a scan can continue at its position even
/// if earlier members were removed. Otherwise the order has no meaning.
#[derive(Debug, Clone, Default)]
pub(super) struct Set(pub(super) BTreeSet<(u64, Vec<u8>)>);

const WRONG_TYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";

impl Entry {
    pub(super) fn new(value: Value) -> Self {
        Self {
            value,
            expires_at: None,
        }
    }

    pub(super) fn expires_at(&self) -> Option<i64> {
        self.expires_at
    }

    fn is_due(&self, now: i64) -> bool {
        self.expires_at.is_some_and(|end| now > end)
    }
}

impl Value {
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::String(_) => "string",
            Self::Hash(_) => "hash",
            Self::Set(_) => "set",
            Self::Sorted(_) => "zset",
            Self::Stream(_) => "stream",
        }
    }
}

impl Set {
    pub(super) fn insert(&mut self, member: &[u8]) -> bool {
        self.0.insert((digest(member), member.to_vec()))
    }

    pub(super) fn remove(&mut self, member: &[u8]) -> bool {
        self.0.remove(&(digest(member), member.to_vec()))
    }

    pub(super) fn contains(&self, member: &[u8]) -> bool {
        self.0.contains(&(digest(member), member.to_vec()))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|(_, member)| &member[..])
    }
}

/// The number by which a scan orders keys and members (FNV-1a, 48 bits, never zero). A scan's
/// cursor is such a number.
pub(super) fn digest(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash >> 16) | 1
}

impl Data {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The number of keys with an expiry.
    pub(super) fn expiring(&self) -> usize {
        self.expiries.len()
    }

    /// Every key, including due ones.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &Entry)> {
        self.entries.iter().map(|(key, entry)| (&key[..], entry))
    }

    /// The key's entry, unless it is due.
    pub(super) fn live(&self, key: &[u8], now: i64) -> Option<&Entry> {
        self.entries.get(key).filter(|entry| !entry.is_due(now))
    }

    pub(super) fn is_due(&self, key: &[u8], now: i64) -> bool {
        // The first check is cheaper and usually suffices, because usually no key is due.
        self.first_expiry().is_some_and(|end| now > end)
            && self.entries.get(key).is_some_and(|entry| entry.is_due(now))
    }

    /// The value of an existing key. The caller must not change its type.
    pub(super) fn value_mut(&mut self, key: &[u8]) -> Option<&mut Value> {
        self.entries.get_mut(key).map(|entry| &mut entry.value)
    }

    /// Writes a value. The key keeps its expiry if `keep_expiry` is true, and otherwise has none.
    pub(super) fn set(&mut self, key: &[u8], value: Value, keep_expiry: bool) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.value = value;
            if !keep_expiry {
                self.set_expiry(key, None);
            }
        } else {
            self.entries.insert(key.to_vec(), Entry::new(value));
        }
    }

    pub(super) fn set_expiry(&mut self, key: &[u8], expires_at: Option<i64>) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let before = std::mem::replace(&mut entry.expires_at, expires_at);
        if before == expires_at {
            return;
        }
        if let Some(before) = before {
            self.expiries.remove(&(before, key.to_vec()));
        }
        if let Some(end) = expires_at {
            self.expiries.insert((end, key.to_vec()));
        }
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        let (key, entry) = self.entries.remove_entry(key)?;
        if let Some(end) = entry.expires_at {
            self.expiries.remove(&(end, key));
        }
        Some(entry)
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.expiries.clear();
    }

    /// The expiry of the key that expires first: the last millisecond in which it exists.
    pub(super) fn first_expiry(&self) -> Option<i64> {
        self.expiries.first().map(|(end, _)| *end)
    }

    /// The key that was due first, if one is due.
    pub(super) fn first_due(&self, now: i64) -> Option<Vec<u8>> {
        let (end, key) = self.expiries.first()?;
        (now > *end).then(|| key.clone())
    }
}

/// The value as a string. A value of another type is an error.
pub(super) fn string(entry: Option<&Entry>) -> Result<Option<&[u8]>, Failure> {
    match entry.map(|entry| &entry.value) {
        None => Ok(None),
        Some(Value::String(value)) => Ok(Some(value)),
        Some(_) => Err(WRONG_TYPE.into()),
    }
}

/// The value as a hash. A value of another type is an error.
pub(super) fn hash(entry: Option<&Entry>) -> Result<&Fields, Failure> {
    match entry.map(|entry| &entry.value) {
        None => Ok(const { &Vec::new() }),
        Some(Value::Hash(fields)) => Ok(fields),
        Some(_) => Err(WRONG_TYPE.into()),
    }
}

/// The value as a stream. A value of another type is an error.
pub(super) fn stream(entry: Option<&Entry>) -> Result<&Entries, Failure> {
    match entry.map(|entry| &entry.value) {
        None => Ok(const { &Entries::new() }),
        Some(Value::Stream(entries)) => Ok(entries),
        Some(_) => Err(WRONG_TYPE.into()),
    }
}

/// The value as a set. A value of another type is an error.
pub(super) fn set(entry: Option<&Entry>) -> Result<Option<&Set>, Failure> {
    match entry.map(|entry| &entry.value) {
        None => Ok(None),
        Some(Value::Set(set)) => Ok(Some(set)),
        Some(_) => Err(WRONG_TYPE.into()),
    }
}

/// The value as a sorted set. A value of another type is an error.
pub(super) fn sorted(entry: Option<&Entry>) -> Result<Option<&SortedSet>, Failure> {
    match entry.map(|entry| &entry.value) {
        None => Ok(None),
        Some(Value::Sorted(set)) => Ok(Some(set)),
        Some(_) => Err(WRONG_TYPE.into()),
    }
}
