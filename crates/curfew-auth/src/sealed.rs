//! Encrypted messages for a session, which one node sends to another.
//!
//! The messages may hold tokens, and they pass through a store that other programs can read. Only a
//! holder of the session's key can make and open a message; the session's client and the session's
//! node hold the key. Each message has the id of its sender and a number. By these two values the
//! session's node recognises a repeated message, and refuses it.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use curfew_model::NodeId;

use crate::session_key::{SessionKey, SessionKeyId};

/// Purpose of the derived key: the `info` of RFC 5869 §2.3 is this text, followed by the id of the
/// sender.
const FOR_KEY: &[u8] = b"curfew session key v1: messages of ";

/// The first byte of a message, which states the version of the message's form.
const VERSION: u8 = 1;

/// Size of the parts before the encrypted content: version, id of the key, sender, number.
const HEAD_BYTES: usize = 1 + SessionKeyId::BYTES + 16 + 8;

/// A message for a session, not decrypted yet.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed<'a> {
    head: &'a [u8],
    content: &'a [u8],
    key: SessionKeyId,
    sender: NodeId,
    number: u64,
}

impl SessionKey {
    /// Encrypts `content` as the message `number` of `sender`. A sender must use each number once:
    /// the number is the nonce, and one key must never use a nonce twice (NIST SP 800-38D §8). Two
    /// senders may use the same number, because each sender has a derived key of its own.
    pub fn seal(&self, sender: NodeId, number: u64, content: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(HEAD_BYTES + content.len() + AES_256_GCM.tag_len());
        sealed.push(VERSION);
        sealed.extend_from_slice(self.id().as_bytes());
        sealed.extend_from_slice(&sender.to_bytes());
        sealed.extend_from_slice(&number.to_be_bytes());
        sealed.extend_from_slice(content);
        let (head, content) = sealed.split_at_mut(HEAD_BYTES);
        let tag = self
            .key_of(sender)
            .seal_in_place_separate_tag(nonce(number), Aad::from(&*head), content)
            .expect("a message is shorter than 64 GiB");
        sealed.extend_from_slice(tag.as_ref());
        sealed
    }

    fn key_of(&self, sender: NodeId) -> LessSafeKey {
        let derived: [u8; 32] = self.derive(&[FOR_KEY, &sender.to_bytes()]);
        let key = UnboundKey::new(&AES_256_GCM, &derived);
        LessSafeKey::new(key.expect("AES-256 has keys of 32 bytes"))
    }
}

impl<'a> Sealed<'a> {
    /// Splits a message into its parts without decrypting it; `None` if it has another form.
    pub fn parse(message: &'a [u8]) -> Option<Self> {
        let (version, rest) = message.split_first()?;
        let (key, rest) = rest.split_first_chunk()?;
        let (sender, rest) = rest.split_first_chunk()?;
        let (number, content) = rest.split_first_chunk()?;
        if *version != VERSION {
            return None;
        }
        Some(Self {
            head: &message[..HEAD_BYTES],
            content,
            key: SessionKeyId::from_bytes(*key),
            sender: NodeId::from_bytes(*sender),
            number: u64::from_be_bytes(*number),
        })
    }

    /// The id of the key that decrypts the message, as the message states it. The id is unverified.
    pub fn key(&self) -> SessionKeyId {
        self.key
    }

    /// The sender, as the message states it. It is unverified until [`Sealed::open`] succeeds.
    pub fn sender(&self) -> NodeId {
        self.sender
    }

    /// The number of the message, as the message states it. It is unverified until [`Sealed::open`]
    /// succeeds.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Decrypts the message; `None` if it was sealed by another key, or was changed in transit.
    pub fn open(&self, key: &SessionKey) -> Option<Vec<u8>> {
        let mut content = self.content.to_vec();
        let length = key
            .key_of(self.sender)
            .open_in_place(nonce(self.number), Aad::from(self.head), &mut content)
            .ok()?
            .len();
        content.truncate(length);
        Some(content)
    }
}

fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - 8..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

impl fmt::Debug for Sealed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed")
            .field("sender", &self.sender)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &[u8] = b"header.payload.signature";

    fn open(message: &[u8], key: &SessionKey) -> Option<Vec<u8>> {
        Sealed::parse(message)?.open(key)
    }

    #[test]
    fn a_message_is_opened_by_the_key_of_its_session() {
        let (key, sender) = (SessionKey::generate(), NodeId::new());
        for content in [&b""[..], TOKEN, &[0; 70_000]] {
            let message = key.seal(sender, 7, content);
            let sealed = Sealed::parse(&message).unwrap();
            assert_eq!(sealed.key(), key.id());
            assert_eq!((sealed.sender(), sealed.number()), (sender, 7));
            assert_eq!(sealed.open(&key).as_deref(), Some(content));
        }
    }

    #[test]
    fn the_key_of_another_session_opens_nothing() {
        let (key, other) = (SessionKey::generate(), SessionKey::generate());
        let message = key.seal(NodeId::new(), 1, TOKEN);
        assert_eq!(open(&message, &other), None);
        // The other key does not open the message even if the message states that key's id.
        let mut forged = message;
        forged[1..=SessionKeyId::BYTES].copy_from_slice(other.id().as_bytes());
        assert_eq!(open(&forged, &other), None);
        assert_eq!(open(&forged, &key), None);
    }

    #[test]
    fn a_message_that_was_changed_is_not_opened() {
        let key = SessionKey::generate();
        let message = key.seal(NodeId::new(), 1, TOKEN);
        for at in 0..message.len() {
            let mut other = message.clone();
            other[at] ^= 1;
            assert_eq!(open(&other, &key), None, "byte {at}");
        }
        for length in 0..message.len() {
            assert_eq!(open(&message[..length], &key), None, "{length} bytes");
        }
    }

    #[test]
    fn each_message_has_other_bytes_and_tells_nothing() {
        let (key, sender) = (SessionKey::generate(), NodeId::new());
        let one = key.seal(sender, 1, TOKEN);
        let content = |message: &[u8]| message[HEAD_BYTES..].to_vec();
        assert_ne!(content(&one), content(&key.seal(sender, 2, TOKEN)));
        assert_ne!(content(&one), content(&key.seal(NodeId::new(), 1, TOKEN)));
        assert!(!one.windows(9).any(|part| part == b"signature"));
        let shown = format!("{:?}", Sealed::parse(&one).unwrap());
        assert!(
            !shown.contains("content") && !shown.contains("key"),
            "{shown}"
        );
    }
}
