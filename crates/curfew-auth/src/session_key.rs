//! The secret by which separate requests act for a session.

use std::fmt;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Size of a key: 256 random bits cannot be guessed.
const KEY_BYTES: usize = 32;

/// The secret by which a request acts for a session whose transport carries messages to the client
/// alone. `Debug` does not show it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionKey([u8; KEY_BYTES]);

impl SessionKey {
    /// Makes the key of a new session.
    pub fn generate() -> Self {
        let mut key = [0; KEY_BYTES];
        rand::fill(&mut key).expect("AWS-LC ends the process when it has no randomness");
        Self(key)
    }

    /// Parses a key that a client sent. `None` for a text without the form of a key.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        bytes.try_into().map(Self).ok()
    }

    /// The key's text, for the client alone.
    pub fn expose(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_from_its_own_text_and_from_no_other() {
        let (key, other) = (SessionKey::generate(), SessionKey::generate());
        assert_eq!(SessionKey::parse(&key.expose()), Some(key));
        assert_ne!(key, other);
        for text in [
            "",
            "AAAA",
            &key.expose()[1..],
            &format!("{}=", key.expose()),
        ] {
            assert_eq!(SessionKey::parse(text), None, "{text}");
        }
    }

    #[test]
    fn debug_shows_nothing_of_a_key() {
        assert_eq!(format!("{:?}", SessionKey::generate()), "SessionKey");
    }
}
