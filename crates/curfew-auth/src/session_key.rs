//! The secret that lets separate requests act for a session, and the values derived from the
//! secret.

use std::fmt;

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Size of a key in bytes: 256 random bits cannot be guessed.
const KEY_BYTES: usize = 32;

/// Size of a key's id in bytes: two random ids of 128 bits never collide in practice.
const ID_BYTES: usize = 16;

/// Purpose of the derived id (the `info` of RFC 5869 §2.3).
const FOR_ID: &[u8] = b"curfew session key v1: id";

/// The secret that lets a request act for a session. A session needs a key if its transport carries
/// messages only from the gateway to the client. The client then sends its own messages in separate
/// requests. `Debug` does not show the key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionKey([u8; KEY_BYTES]);

/// The id of a session's key. The id is a one-way digest of the key, so it is not a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionKeyId([u8; ID_BYTES]);

impl SessionKeyId {
    /// Size of an id, in bytes.
    pub(crate) const BYTES: usize = ID_BYTES;

    pub(crate) fn from_bytes(bytes: [u8; ID_BYTES]) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; ID_BYTES] {
        &self.0
    }
}

impl SessionKey {
    /// Makes the key of a new session.
    pub fn generate() -> Self {
        let mut key = [0; KEY_BYTES];
        rand::fill(&mut key).expect("AWS-LC ends the process when it has no randomness");
        Self(key)
    }

    /// Parses a key that a client sent; `None` if the text does not have the form of a key.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        bytes.try_into().map(Self).ok()
    }

    /// The key's text, for the client alone.
    pub fn expose(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// The key's id, by which its session is found.
    pub fn id(&self) -> SessionKeyId {
        SessionKeyId(self.derive(&[FOR_ID]))
    }

    /// Derives `N` bytes for `purpose` by HKDF-Expand. The step Extract is left out, because a key
    /// is already uniformly random (RFC 5869 §3.3).
    pub(crate) fn derive<const N: usize>(&self, purpose: &[&[u8]]) -> [u8; N] {
        const { assert!(N <= 32, "SHA-256 gives 32 bytes at once") };
        let mut derived = [0; N];
        Prk::new_less_safe(HKDF_SHA256, &self.0)
            .expand(purpose, Length(N))
            .and_then(|output| output.fill(&mut derived))
            .expect("SHA-256 gives 32 bytes at once");
        derived
    }
}

/// The number of bytes to derive.
#[derive(Debug, Clone, Copy)]
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
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
    fn an_id_is_that_of_one_key_and_does_not_tell_it() {
        let (key, other) = (SessionKey::generate(), SessionKey::generate());
        assert_eq!(key.id(), SessionKey(key.0).id());
        assert_ne!(key.id(), other.id());
        assert!(
            !key.0
                .windows(4)
                .any(|part| key.id().0.windows(4).any(|id| id == part))
        );
    }

    #[test]
    fn debug_shows_nothing_of_a_key() {
        assert_eq!(format!("{:?}", SessionKey::generate()), "SessionKey");
    }
}
