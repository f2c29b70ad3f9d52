//! The encoding of a publication that is sent through Redis.
//!
//! The envelope is a JSON object with these members:
//!
//! - `v`: the version of the encoding. It is 2 if the publication has a position in a stream, else
//!   1. Version 3 is not a publication, but a notice of a presence change.
//! - `epoch`, `offset` and `at`: the position, and the time of the append in Unix milliseconds. The
//!   script that appends the publication writes these members.
//! - `from`: the user of the publishing session; absent for a publication of the admin API.
//! - `session` and `info`: the publishing session's id, and the claim `session.info_claim` of its
//!   token; absent if no protocol of the publishing node shows them to clients.
//! - `channel_info`: the info of the publishing session's subscription; absent if the subscription
//!   has none, or if `session` is absent.
//! - `trace` and `tracestate`: the `traceparent` and `tracestate` of the publishing span, if the
//!   span is recorded.
//! - `data`: the published value, byte for byte.
//! - `bytes`: instead of `data`, a value that is not JSON, in base64 (RFC 4648 §4). A node that
//!   does not know this member drops the publication as malformed.
//!
//! Unknown members are ignored, so that later versions can add members. The notice [`CLEARED`] is
//! sent on the same channels and is not a publication. A node of a version that does not know this
//! notice takes it for a malformed publication, and reads the stream again.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut as _, Bytes, BytesMut};
use curfew_model::json::object_text;
use curfew_model::{
    Channel, Epoch, MAX_OFFSET, Position, Present, Publication, SessionId, StreamEntry,
    TraceContext,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The version of a publication without a position in a stream.
const PLAIN: u32 = 1;

/// The version of a publication with a position.
const PLACED: u32 = 2;

/// The notice that the publications of a channel's stream were deleted, sent on the channel itself.
pub(crate) const CLEARED: &[u8] = br#"{"v":2,"cleared":true}"#;

/// Largest envelope that is parsed. The limit is larger than any message of a client.
pub(crate) const MAX_BYTES: usize = 64 * 1024 * 1024;

/// The members before `data`.
#[derive(Serialize)]
struct Head<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    v: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<SessionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel_info: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracestate: Option<&'a str>,
}

/// The members of an envelope, as they are parsed.
#[derive(Deserialize)]
struct Envelope<'a> {
    v: u32,
    epoch: Option<Epoch>,
    offset: Option<u64>,
    at: Option<u64>,
    #[serde(borrow)]
    from: Option<Cow<'a, str>>,
    /// The id may be any JSON value, because a bad id is no reason to lose the publication.
    #[serde(borrow, default)]
    session: Option<&'a RawValue>,
    #[serde(borrow, default)]
    info: Option<&'a RawValue>,
    #[serde(borrow, default)]
    channel_info: Option<&'a RawValue>,
    /// The trace may be any JSON value, because a bad trace is no reason to lose the publication.
    #[serde(borrow, default)]
    trace: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tracestate: Option<&'a RawValue>,
    /// `null` counts as present, because it is a published value.
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    bytes: Option<Cow<'a, str>>,
}

/// Encodes a publication. JSON data is copied byte for byte.
pub(crate) fn encode(publication: &Publication) -> Bytes {
    let mut out = members(publication, Some(PLAIN));
    out.put_u8(b',');
    put_data(publication, &mut out);
    out.put_u8(b'}');
    out.freeze()
}

/// Encodes an envelope without its beginning. The script that appends to the stream writes the
/// beginning, which contains the position.
pub(crate) fn encode_end(publication: &Publication) -> Bytes {
    let mut out = members(publication, None);
    // A comma replaces the opening brace, because the script writes other members before these
    // members.
    out[0] = b',';
    if out.len() > 1 {
        out.put_u8(b',');
    }
    put_data(publication, &mut out);
    out.put_u8(b'}');
    out.freeze()
}

fn put_data(publication: &Publication, out: &mut BytesMut) {
    if publication.is_binary {
        out.put_slice(b"\"bytes\":\"");
        out.put_slice(BASE64.encode(&publication.data).as_bytes());
        out.put_u8(b'"');
    } else {
        out.put_slice(b"\"data\":");
        out.put_slice(&publication.data);
    }
}

/// The `info` of a session as JSON. Text that is not JSON is left out, because it would break the
/// envelope.
fn raw(info: &Option<Arc<str>>) -> Option<&RawValue> {
    serde_json::from_str(info.as_deref()?).ok()
}

/// The opening brace and the members before the data.
fn members(publication: &Publication, v: Option<u32>) -> BytesMut {
    let sender = publication.sender.as_deref();
    let head = Head {
        v,
        from: publication.from.as_deref(),
        session: sender.map(|sender| sender.session),
        info: sender.and_then(|sender| raw(&sender.info)),
        channel_info: sender.and_then(|sender| raw(&sender.channel_info)),
        trace: publication.trace.as_ref().map(ToString::to_string),
        tracestate: publication.trace.as_ref().and_then(|trace| trace.state()),
    };
    let mut out = BytesMut::with_capacity(publication.data.len() + 64).writer();
    serde_json::to_writer(&mut out, &head).expect("numbers and strings are JSON");
    let mut out = out.into_inner();
    // The closing brace is removed here, and added again after the data.
    out.truncate(out.len() - 1);
    out
}

/// Decodes a publication; `None` if the envelope is malformed. JSON data is not copied.
pub(crate) fn decode(channel: Channel, envelope: &Bytes) -> Option<Publication> {
    let Envelope {
        v,
        epoch,
        offset,
        at,
        from,
        session,
        info,
        channel_info,
        trace,
        tracestate,
        data,
        bytes,
    } = serde_json::from_str(object_text(envelope)?).ok()?;
    let entry = match v {
        PLAIN => None,
        PLACED => Some(StreamEntry {
            position: Position {
                epoch: epoch?,
                offset: offset.filter(|offset| (1..=MAX_OFFSET).contains(offset))?,
            },
            at: at?,
        }),
        _ => return None,
    };
    let (data, is_binary) = match (data, bytes) {
        (Some(data), None) => (envelope.slice_ref(data.get().as_bytes()), false),
        (None, Some(bytes)) => (BASE64.decode(bytes.as_bytes()).ok()?.into(), true),
        _ => return None,
    };
    let from: Option<Arc<str>> = from.map(|from| from.as_ref().into());
    let sender = from.as_ref().zip(session.and_then(read_session));
    let sender = sender.map(|(user, session)| {
        Arc::new(Present {
            session,
            user: Arc::clone(user),
            info: info.map(|info| info.get().into()),
            channel_info: channel_info.map(|info| info.get().into()),
        })
    });
    Some(Publication {
        channel,
        data,
        from,
        sender,
        is_binary,
        entry,
        trace: trace.and_then(|trace| read_trace(trace, tracestate)),
    })
}

/// Reads a member with any value, and treats `null` as a value.
fn present<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

fn read_session(written: &RawValue) -> Option<SessionId> {
    serde_json::from_str(written.get()).ok()
}

/// Parses a trace. A trace that is not sampled is dropped here, so that no later step has to check
/// it.
fn read_trace(written: &RawValue, state: Option<&RawValue>) -> Option<Box<TraceContext>> {
    let text = written.get().strip_prefix('"')?.strip_suffix('"')?;
    let trace = TraceContext::parse(text).filter(TraceContext::is_sampled)?;
    let state = state.and_then(|state| serde_json::from_str::<String>(state.get()).ok());
    Some(Box::new(match state {
        Some(state) => trace.with_state(&state),
        None => trace,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel() -> Channel {
        Channel::parse("room:1").unwrap()
    }

    #[test]
    fn a_publication_is_read_back_byte_for_byte() {
        for (data, from) in [
            (
                r#"{ "b" : 1.0e+5,  "a": "\u0041é" }"#,
                Some("alice \"a\" ä\n"),
            ),
            ("null", None),
            ("[]", Some("")),
            ("-0.0", Some("x")),
        ] {
            let publication = Publication {
                channel: channel(),
                data: Bytes::copy_from_slice(data.as_bytes()),
                from: from.map(Into::into),
                sender: None,
                is_binary: false,
                entry: None,
                trace: from.and_then(|_| {
                    let trace = TraceContext::new([1; 16], [2; 8], true)?;
                    Some(Box::new(trace.with_state("a=\"b\",c=d")))
                }),
            };
            let decoded = decode(channel(), &encode(&publication));
            assert_eq!(decoded.as_ref(), Some(&publication));
            // This is the beginning that the script writes.
            let begin = br#"{"v":2,"epoch":"abcdefgh","at":1764000000123,"offset":42"#;
            let placed = [&begin[..], &encode_end(&publication)].concat();
            let entry = StreamEntry {
                position: Position {
                    epoch: "abcdefgh".parse().unwrap(),
                    offset: 42,
                },
                at: 1_764_000_000_123,
            };
            let expect = Publication {
                entry: Some(entry),
                ..publication
            };
            assert_eq!(decode(channel(), &placed.into()), Some(expect));
        }
    }

    #[test]
    fn members_of_later_versions_are_passed_over() {
        let decoded = decode(
            channel(),
            &Bytes::from_static(br#"{"x":[1],"data":7,"v":1}"#),
        )
        .unwrap();
        assert_eq!((&decoded.data[..], decoded.from), (&b"7"[..], None));
    }

    #[test]
    fn a_bad_trace_is_none_and_costs_nothing_else() {
        for bad in [
            "null",
            "7",
            "{}",
            r#""""#,
            r#""x""#,
            r#""00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00""#,
        ] {
            let envelope = format!(r#"{{"v":1,"trace":{bad},"data":7}}"#);
            let decoded = decode(channel(), &envelope.into()).unwrap();
            assert_eq!(
                (&decoded.data[..], decoded.trace),
                (&b"7"[..], None),
                "{bad}"
            );
        }
    }

    #[test]
    fn what_is_no_envelope_is_refused() {
        for bad in [
            "",
            "hello",
            "{}",
            "[1]",
            r#"[1,"alice",null,7]"#,
            r#"{"v":1}"#,
            r#"{"v":3,"data":1}"#,
            str::from_utf8(CLEARED).unwrap(),
            r#"{"v":2,"data":1}"#,
            r#"{"v":2,"data":1,"epoch":"abcdefgh","offset":1}"#,
            r#"{"v":2,"data":1,"epoch":"abcdefgh","offset":0,"at":1}"#,
            r#"{"v":2,"data":1,"epoch":"abcdefgh","offset":9007199254740992,"at":1}"#,
            r#"{"v":2,"data":1,"epoch":"abc","offset":1,"at":1}"#,
            r#"{"v":1,"data":}"#,
            r#"{"v":1,"data":1}x"#,
            r#"{"v":1,"data":1,"from":7}"#,
            "\u{0}",
        ] {
            assert_eq!(decode(channel(), &bad.into()), None, "{bad}");
        }
        assert_eq!(decode(channel(), &vec![0xff; 1 << 20].into()), None);
    }
}
