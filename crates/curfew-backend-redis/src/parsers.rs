//! Pure functions that parse data from Redis, which other clients may have written. The functions
//! are public so that they can be fuzzed.

use std::borrow::Cow;

use bytes::Bytes;
use curfew_backend::SessionRecord;
use curfew_model::{Channel, Publication, Revocation, SessionId};
use redis::Value;

use crate::control::Known;
pub use crate::control::TouchedKey;
use crate::inbox::Message;
use crate::keys::Keys;
use crate::{envelope, records};

/// Determines, by its name, the kind of a key that Redis reports as touched. `prefix` is
/// `backend.redis.prefix`.
pub fn told(prefix: &str, name: &[u8]) -> TouchedKey {
    let keys = Keys::new(prefix);
    TouchedKey::of(name, &keys.revoked_prefix(), &keys.unbraced_prefix())
}

/// The channel whose publications arrive under the name of a pub/sub channel.
pub fn channel(prefix: &str, name: &str) -> Option<Channel> {
    Keys::new(prefix).parse_channel(name)
}

/// The name of the pub/sub channel that carries a channel's publications.
pub fn channel_name(prefix: &str, channel: &Channel) -> String {
    Keys::new(prefix).channel(channel)
}

/// Encodes a publication into its envelope.
pub fn encode(publication: &Publication) -> Bytes {
    envelope::encode(publication)
}

/// Decodes a publication from its envelope.
pub fn decode(channel: Channel, envelope: Vec<u8>) -> Option<Publication> {
    envelope::decode(channel, &envelope.into())
}

/// Reads a message between nodes, and writes it again as this node would write it.
pub fn node_message(payload: &[u8]) -> Option<String> {
    let message = Message::read(payload)?;
    Some(serde_json::to_string(&message).expect("a message is JSON"))
}

/// The revocation of a key, from its value and the answer to `PEXPIRETIME`. The value is `None` if
/// the key is not a string.
pub fn revocation(value: Option<Vec<u8>>, expires_at_ms: i64) -> Option<Revocation> {
    Some(Known::new(value, expires_at_ms)?.revocation())
}

/// The record of a session, from the fields of its hash.
pub fn record(session: SessionId, fields: &[(&[u8], &[u8])]) -> Option<SessionRecord> {
    let bulk = |bytes: &[u8]| Value::BulkString(bytes.to_vec());
    let fields = fields.iter().map(|(name, value)| (bulk(name), bulk(value)));
    records::read(session, Value::Map(fields.collect()))
}

/// The fields of a session's record.
pub fn fields(record: &SessionRecord) -> Vec<(&'static str, Cow<'_, str>)> {
    records::fields(record)
}
