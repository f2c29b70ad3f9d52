//! Channel names, valid by construction.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

/// Longest channel name, in bytes of UTF-8.
const MAX_BYTES: usize = 255;

/// A named publish/subscribe destination. The name is 1 to 255 bytes of UTF-8 without control
/// characters or white space, and does not start with `$`. By convention `:` separates segments. A
/// clone shares the text, and only increments a reference count.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel(Arc<str>);

/// The reason why a string is not a channel name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// The name is empty.
    #[error("a channel name must not be empty")]
    Empty,
    /// The name has more than 255 bytes.
    #[error("a channel name has at most 255 bytes")]
    TooLong,
    /// The name has a control character or white space, as Unicode defines them.
    #[error("a channel name has no control characters and no spaces")]
    ForbiddenCharacter,
    /// The name starts with `$`.
    #[error("channel names that start with $ are reserved")]
    Reserved,
}

impl Channel {
    /// Checks `name` and copies it.
    pub fn parse(name: &str) -> Result<Self, ChannelError> {
        if name.is_empty() {
            return Err(ChannelError::Empty);
        }
        if name.len() > MAX_BYTES {
            return Err(ChannelError::TooLong);
        }
        if name.starts_with('$') {
            return Err(ChannelError::Reserved);
        }
        if name.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(ChannelError::ForbiddenCharacter);
        }
        Ok(Self(name.into()))
    }

    /// The first eight bytes of the name's SHA-256. Two names hardly ever have the same digest.
    pub fn digest(&self) -> u64 {
        digest(self.0.as_bytes())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Channel {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &self.0)
    }
}

/// The first eight bytes of a text's SHA-256. Two texts hardly ever have the same digest.
pub fn digest(text: &[u8]) -> u64 {
    let digest = Sha256::digest(text);
    digest[..8]
        .iter()
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        let longest = "x".repeat(255);
        let longer = "x".repeat(256);
        for (name, expect) in [
            ("room:1", Ok(())),
            ("räume:ä", Ok(())),
            ("*", Ok(())),
            (longest.as_str(), Ok(())),
            ("", Err(ChannelError::Empty)),
            (longer.as_str(), Err(ChannelError::TooLong)),
            ("a b", Err(ChannelError::ForbiddenCharacter)),
            ("a\u{a0}b", Err(ChannelError::ForbiddenCharacter)),
            ("a\nb", Err(ChannelError::ForbiddenCharacter)),
            ("a\0", Err(ChannelError::ForbiddenCharacter)),
            ("a\u{85}", Err(ChannelError::ForbiddenCharacter)),
            ("$presence", Err(ChannelError::Reserved)),
        ] {
            assert_eq!(Channel::parse(name).map(|_| ()), expect, "{name:?}");
        }
    }
}
