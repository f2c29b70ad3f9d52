//! Pure functions that read what others have written to Redis, public so that they can be fuzzed.

use std::borrow::Cow;

use bytes::Bytes;
use curfew_backend::SessionRecord;
use curfew_model::{Channel, Publication, Revocation, SessionId};
use redis::Value;

use crate::control::Known;
pub use crate::control::Told;
use crate::inbox::Message;
use crate::keys::Keys;
use crate::{envelope, records};

/// The name of a key that Redis says was touched, where `prefix` is `backend.redis.prefix`.
pub fn told(prefix: &str, name: &[u8]) -> Told {
    let keys = Keys::new(prefix);
    Told::of(name, &keys.revoked_prefix(), &keys.unbraced_prefix())
}

/// The channel whose publications come by the name of a pub/sub channel.
pub fn channel(prefix: &str, name: &str) -> Option<Channel> {
    Keys::new(prefix).parse_channel(name)
}

/// The name by which publications of a channel come.
pub fn channel_name(prefix: &str, channel: &Channel) -> String {
    Keys::new(prefix).channel(channel)
}

/// A publication in its envelope.
pub fn encode(publication: &Publication) -> Bytes {
    envelope::encode(publication)
}

/// The publication in an envelope.
pub fn decode(channel: Channel, envelope: Vec<u8>) -> Option<Publication> {
    envelope::decode(channel, envelope)
}

/// A message between nodes, as this node would write it.
pub fn node_message(payload: &[u8]) -> Option<String> {
    let message = Message::read(payload)?;
    Some(serde_json::to_string(&message).expect("a message is JSON"))
}

/// The revocation of a key, by its value (`None`: one of another type than string) and the answer to
/// `PEXPIRETIME`.
pub fn revocation(value: Option<Vec<u8>>, expires_at_ms: i64) -> Option<Revocation> {
    Some(Known::new(value, expires_at_ms)?.revocation())
}

/// The record of a session, by the fields of its hash.
pub fn record(session: SessionId, fields: &[(&[u8], &[u8])]) -> Option<SessionRecord> {
    let bulk = |bytes: &[u8]| Value::BulkString(bytes.to_vec());
    let fields = fields.iter().map(|(name, value)| (bulk(name), bulk(value)));
    records::read(session, Value::Map(fields.collect()))
}

/// The fields that record a session.
pub fn fields(record: &SessionRecord) -> Vec<(&'static str, Cow<'_, str>)> {
    records::fields(record)
}
