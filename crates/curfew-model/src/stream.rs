//! Streams: the last publications of a channel, each with its position.
//!
//! A stream has an [`Epoch`] and offsets 1, 2, 3, … without gaps. A client that knows a
//! [`Position`] gets exactly the publications after this position, or learns that they are no
//! longer available.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Largest offset. Clients read JSON numbers as doubles, which are exact up to this number (RFC
/// 8259 §6).
pub const MAX_OFFSET: u64 = (1 << 53) - 1;

/// The limit of a history request that names no limit.
pub const DEFAULT_HISTORY_LIMIT: u64 = 100;

/// Maximum number of publications in the answer to a history request. A larger requested limit is
/// reduced to this number.
pub const MAX_HISTORY_LIMIT: u64 = 300;

/// Longest idempotency key of a publication, in bytes of UTF-8.
pub const MAX_PUBLICATION_KEY_BYTES: usize = 64;

/// Number of letters of an epoch.
const EPOCH_LETTERS: usize = 8;

/// The identifier of a stream from its beginning until its data is lost or removed. It is eight
/// ASCII letters or digits, chosen at random. Offsets of two epochs cannot be compared.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch([u8; EPOCH_LETTERS]);

impl Epoch {
    /// The letters of an epoch. The table has 64 entries, so that each letter holds six random
    /// bits; `A` and `Z` occur twice.
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789AZ";

    /// An epoch that no stream has. A decoder uses it in place of a client's text that is not a
    /// valid epoch.
    pub const NONE: Self = Self(*b"--------");

    /// Stands for the stream's current epoch, in a request that names no epoch.
    pub const ANY: Self = Self(*b"????????");

    /// Makes an epoch from random bits.
    pub fn from_random(bits: u64) -> Self {
        Self(std::array::from_fn(|at| {
            Self::ALPHABET[(bits >> (6 * at)) as usize % Self::ALPHABET.len()]
        }))
    }

    /// The epoch as text.
    pub fn as_str(&self) -> &str {
        // Every constructor accepts only ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// The error for a string that is not an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an epoch is 8 letters or digits")]
pub struct EpochError;

impl FromStr for Epoch {
    type Err = EpochError;

    fn from_str(text: &str) -> Result<Self, EpochError> {
        let letters: [u8; EPOCH_LETTERS] = text.as_bytes().try_into().map_err(|_| EpochError)?;
        letters
            .iter()
            .all(u8::is_ascii_alphanumeric)
            .then_some(Self(letters))
            .ok_or(EpochError)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Epoch {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Epoch {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A position in a stream. Offset 0 is the position before the first publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The epoch to which the offset belongs.
    pub epoch: Epoch,
    /// The number of publications up to and including this position.
    pub offset: u64,
}

/// The error for a string that is not a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a position is an epoch, a colon and an offset, such as kdWqZx3a:42")]
pub struct PositionError;

/// Reads `EPOCH:OFFSET`.
impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let (epoch, offset) = text.split_once(':').ok_or(PositionError)?;
        let epoch = epoch.parse().map_err(|_| PositionError)?;
        let offset = offset.parse().map_err(|_| PositionError)?;
        if offset > MAX_OFFSET {
            return Err(PositionError);
        }
        Ok(Self { epoch, offset })
    }
}

/// Writes `EPOCH:OFFSET`.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.offset)
    }
}

/// The entry of a publication in its channel's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamEntry {
    /// The publication's position.
    pub position: Position,
    /// The time at which the stream accepted the publication, in Unix milliseconds of the backend's
    /// clock.
    pub at: u64,
}

/// An idempotency key, as backends store it: a digest of the publisher and of the key that the
/// publisher chose. If two publishers choose the same key, the digests differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicationKey([u8; 32]);

/// The publisher, for a [`PublicationKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publisher<'a> {
    /// A session's user.
    User(&'a str),
    /// The name of an admin key.
    AdminKey(&'a str),
}

impl PublicationKey {
    /// The stored form of the idempotency key `name` of `publisher`.
    pub fn new(publisher: Publisher<'_>, name: &str) -> Self {
        let (kind, publisher) = match publisher {
            Publisher::User(user) => (b"u", user),
            Publisher::AdminKey(key) => (b"k", key),
        };
        let mut digest = Sha256::new();
        digest.update(kind);
        // The publisher's length distinguishes ("a", "bc") from ("ab", "c").
        digest.update((publisher.len() as u64).to_be_bytes());
        digest.update(publisher);
        digest.update(name);
        Self(digest.finalize().into())
    }

    /// The digest.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_eight_letters() {
        for bits in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
            let epoch = Epoch::from_random(bits);
            assert_eq!(epoch.to_string().parse(), Ok(epoch));
            assert_eq!(epoch.as_str().len(), EPOCH_LETTERS);
        }
        assert_ne!(Epoch::from_random(1), Epoch::from_random(2));
        for bad in [
            "",
            "abcdefg",
            "abcdefghi",
            "abcdefg ",
            "abcdefg\"",
            "äbcdefg",
        ] {
            assert_eq!(bad.parse::<Epoch>(), Err(EpochError), "{bad:?}");
        }
    }

    #[test]
    fn a_position_is_an_epoch_and_an_offset() {
        for text in ["kdWqZx3a:0", "kdWqZx3a:9007199254740991"] {
            let position: Position = text.parse().unwrap();
            assert_eq!(position.to_string(), text);
        }
        for bad in [
            "",
            "kdWqZx3a",
            "kdWqZx3a:",
            "kdWqZx3a:-1",
            "kdWqZx3a:1:2",
            "kdWqZx3a:9007199254740992",
            "kd:1",
            ":1",
        ] {
            assert_eq!(bad.parse::<Position>(), Err(PositionError), "{bad:?}");
        }
    }

    #[test]
    fn a_key_belongs_to_its_publisher() {
        let key = PublicationKey::new(Publisher::User("bob"), "order-77");
        assert_eq!(key, PublicationKey::new(Publisher::User("bob"), "order-77"));
        for other in [
            PublicationKey::new(Publisher::User("bo"), "border-77"),
            PublicationKey::new(Publisher::User("eve"), "order-77"),
            PublicationKey::new(Publisher::AdminKey("bob"), "order-77"),
            PublicationKey::new(Publisher::User("bob"), "order-78"),
        ] {
            assert_ne!(key, other);
        }
    }
}
