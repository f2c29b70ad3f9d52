//! Bytes from Redis, where other programs may write too: envelopes, records, pushed names, and
//! messages between nodes.

use std::borrow::Cow;
use std::net::IpAddr;

use curfew_backend_redis::parsers::{self, TouchedKey};
use curfew_model::{Channel, RevocationKey, SessionId, TraceContext};
use serde_json::Value;

use crate::members::Members;
use crate::revocations::sampled;

/// `backend.redis.prefix`.
const PREFIX: &str = "c:";

/// Longest message between nodes, in bytes.
const MOST_MESSAGE_BYTES: usize = 16 * 1024;

/// Checks that a decoded publication has the content of the envelope's members, with the data byte
/// for byte. Encoding and decoding it again must give the same publication.
///
/// # Panics
///
/// Curfew and the independent parser in this file disagree.
pub fn check_envelope(bytes: &[u8]) -> bool {
    let channel = Channel::parse("room:1").expect("the channel's name is valid");
    let read = parsers::decode(channel.clone(), bytes.to_vec());
    let opinion = publication(bytes);
    let told = read.as_ref().map(|publication| {
        let trace = publication.trace.as_deref().cloned();
        let data = str::from_utf8(&publication.data).expect("the data is UTF-8");
        (
            publication.from.as_deref().map(str::to_owned),
            data.to_owned(),
            trace,
        )
    });
    assert_eq!(told, opinion);
    let Some(publication) = read else {
        return false;
    };
    let written = parsers::encode(&publication).to_vec();
    assert!(
        Members::of(&written).is_some(),
        "the encoded envelope {written:?} is not an object"
    );
    assert_eq!(parsers::decode(channel, written), Some(publication));
    true
}

type Published = (Option<String>, String, Option<TraceContext>);

fn publication(bytes: &[u8]) -> Option<Published> {
    let members = Members::of(bytes)?;
    if members.raw("v")? != Some("1") {
        return None;
    }
    let from = match members.value("from")? {
        Value::Null => None,
        Value::String(from) => Some(from),
        _ => return None,
    };
    let trace = members.raw("trace")?;
    // The trace is read from the member's original text. A text with escapes is not a trace.
    let trace = trace.and_then(|raw| raw.strip_prefix('"')?.strip_suffix('"'));
    Some((
        from,
        members.raw("data")??.to_owned(),
        trace.and_then(sampled),
    ))
}

/// Checks a session's record. Each line of the input is a field `name=value`. A record that was
/// parsed must be written with the same known fields.
///
/// # Panics
///
/// Curfew and the independent parser in this file disagree.
pub fn check_record(bytes: &[u8]) -> bool {
    let mut fields: Vec<(&[u8], &[u8])> = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let at = line.iter().position(|byte| *byte == b'=');
        let (name, value) = line.split_at(at.unwrap_or(line.len()));
        // A hash has each field only once, so repeated fields are left out.
        if fields.iter().all(|(known, _)| *known != name) {
            fields.push((name, value.get(1..).unwrap_or_default()));
        }
    }
    let session = "0192f0c1-2b3c-7d4e-8f50-616263646566";
    let session: SessionId = session.parse().expect("the id is valid");
    let read = parsers::record(session, &fields);
    let opinion = record(&fields);
    let written = read.as_ref().map(|record| {
        let mut fields = parsers::fields(record);
        fields.sort();
        fields
    });
    assert_eq!(written, opinion);
    let (Some(read), Some(written)) = (&read, written) else {
        return false;
    };
    assert_eq!(read.session, session);
    let bytes: Vec<_> = written
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
        .collect();
    let again = parsers::record(session, &bytes).expect("a written record is parsed");
    let mut again = parsers::fields(&again);
    again.sort();
    assert_eq!(again, written);
    true
}

/// The known fields in order; `None` if a required field is missing or has the wrong type.
fn record<'a>(fields: &[(&'a [u8], &'a [u8])]) -> Option<Vec<(&'static str, Cow<'a, str>)>> {
    let texts = fields.iter().map(|(name, value)| {
        let value = str::from_utf8(value).ok()?;
        Some((str::from_utf8(name).ok()?, value))
    });
    let texts: Vec<(&str, &str)> = texts.collect::<Option<_>>()?;
    let field = |wanted: &str| {
        texts
            .iter()
            .find(|(name, _)| *name == wanted)
            .map(|(_, value)| *value)
    };
    let number = |text: &str| {
        let digits = text.strip_prefix('+').unwrap_or(text);
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let sum = digits.bytes().try_fold(0_u64, |sum, digit| {
            sum.checked_mul(10)?
                .checked_add(u64::from(digit.wrapping_sub(b'0')))
        });
        sum.filter(|_| is_number)
            .map(|number| Cow::Owned(number.to_string()))
    };
    let text = |name: &str| field(name).map(Cow::Borrowed);
    let mut known = vec![
        ("claims", text("claims")?),
        ("connected_at", number(field("connected_at")?)?),
        ("expires_at", number(field("expires_at")?)?),
        ("issuer", text("issuer").unwrap_or_default()),
        ("node", Cow::Owned(uuid(field("node")?)?)),
        ("protocol", text("protocol")?),
        ("user", text("user")?),
    ];
    let address = field("address").and_then(|address| address.parse::<IpAddr>().ok());
    let optional = [
        (
            "address",
            address.map(|address| Cow::Owned(address.to_string())),
        ),
        ("issued_at", field("issued_at").and_then(number)),
        ("token_id", text("token_id")),
    ];
    known.extend(
        optional
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    known.sort();
    Some(known)
}

/// The UUID (RFC 9562 §4) in `text`, in lower case; `None` if the text is not a UUID.
fn uuid(text: &str) -> Option<String> {
    let groups: Vec<&str> = text.split('-').collect();
    let sizes: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let is_hex = |group: &&str| group.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_id = sizes == [8, 4, 4, 4, 12] && groups.iter().all(is_hex);
    is_id.then(|| text.to_ascii_lowercase())
}

/// Checks the names of pushed keys and of pub/sub channels. The name of a pushed key must be
/// recognised as the key of a revocation in one of its spellings, or as another key. The name of a
/// pub/sub channel must contain the channel's name.
///
/// # Panics
///
/// Curfew and the independent parser in this file disagree.
pub fn check_name(bytes: &[u8]) -> bool {
    let told = parsers::told(PREFIX, bytes);
    let text = str::from_utf8(bytes).ok();
    let behind = bytes.strip_prefix(b"c:{revoked}:");
    match &told {
        TouchedKey::Epoch => assert_eq!(behind, Some(&b"epoch"[..])),
        TouchedKey::Foreign => {
            assert!(behind.is_none() && !bytes.starts_with(b"c:revoked:"));
        }
        TouchedKey::Nameless => match behind {
            None => assert!(bytes.starts_with(b"c:revoked:")),
            // `names` is true if the text after the prefix has a kind and a value that name
            // sessions.
            Some(written) => {
                let mut parts = written.splitn(2, |byte| *byte == b':');
                let kind = parts.next().unwrap_or_default();
                let value = parts.next().unwrap_or_default();
                let is_text = str::from_utf8(written).is_ok();
                let names =
                    is_text && !value.is_empty() && !matches!(kind, b"" | b"all" | b"anonymous");
                let id = str::from_utf8(value).ok().and_then(uuid);
                let names = names
                    && (kind != b"session"
                        || id.is_some_and(|id| {
                            [id.to_ascii_uppercase().as_bytes(), id.as_bytes()].contains(&value)
                        }));
                assert!(!names, "{:?}", String::from_utf8_lossy(written));
            }
        },
        TouchedKey::Key(RevocationKey::All) => assert_eq!(behind, Some(&b"all"[..])),
        TouchedKey::Key(RevocationKey::Anonymous) => {
            assert_eq!(behind, Some(&b"anonymous"[..]));
        }
        TouchedKey::Key(key) => {
            let written = text
                .expect("the name of a key is UTF-8")
                .strip_prefix("c:{revoked}:");
            let (kind, value) = written
                .and_then(|written| written.split_once(':'))
                .expect("the name of a key has a kind");
            assert_eq!(key.kind(), kind);
            if let Some(plain) = key.plain_value().filter(|_| kind != "session") {
                assert_eq!(plain, value);
            }
            for spelling in key.spellings() {
                let name = format!("c:{{revoked}}:{}", key.written(spelling));
                assert_eq!(parsers::told(PREFIX, name.as_bytes()), told, "{name}");
            }
        }
    }
    let channel = text.and_then(|name| parsers::channel(PREFIX, name));
    if let Some(channel) = &channel {
        let name = parsers::channel_name(PREFIX, channel);
        assert_eq!(text, Some(name.as_str()));
    } else if let Some(name) = text.and_then(|text| text.strip_prefix("c:channel:")) {
        assert!(Channel::parse(name).is_err(), "{name:?}");
    }
    channel.is_some() || matches!(told, TouchedKey::Key(_))
}

/// Checks that a decoded message between nodes has one of six types, and has the content of the
/// members in the input.
///
/// # Panics
///
/// Curfew and the independent parser in this file disagree.
pub fn check_message(bytes: &[u8]) -> bool {
    let written = parsers::node_message(bytes);
    let opinion = message(bytes);
    let value = written
        .as_deref()
        .map(|text| serde_json::from_str::<Value>(text).expect("a written message is JSON"));
    assert_eq!(value, opinion);
    let Some(written) = written else {
        return false;
    };
    assert_eq!(parsers::node_message(written.as_bytes()), Some(written));
    true
}

fn message(bytes: &[u8]) -> Option<Value> {
    // Every member must be valid: the type may be the last member, so Curfew parses the other
    // members before it knows the type.
    let members = Members::of(bytes).filter(Members::are_values)?;
    if bytes.len() > MOST_MESSAGE_BYTES {
        return None;
    }
    let Value::String(kind) = members.value("type")? else {
        return None;
    };
    let wanted: &[&str] = match kind.as_str() {
        "revoked" => &["id", "key", "from"],
        "applied" => &["id", "node", "closed"],
        "disconnect" => &["id", "session", "from", "replaced"],
        "probe" => &["id", "node", "sessions"],
        "probed" => &["id", "node", "gone"],
        "disconnected" => &["id", "node"],
        _ => return None,
    };
    let id = |value: &Value| Some(Value::String(uuid(value.as_str()?)?));
    let mut message = serde_json::Map::new();
    message.insert("type".to_owned(), kind.into());
    for name in wanted {
        let value = match (*name, members.raw(name)?) {
            ("replaced", None) => Value::Bool(false),
            _ => members.value(name)?,
        };
        let value = match *name {
            "id" | "key" if value.is_string() => value,
            "closed" if value.is_u64() => value,
            "replaced" if value.is_boolean() => value,
            "from" | "node" | "session" => id(&value)?,
            "sessions" | "gone" => {
                let all = value.as_array()?.iter().map(id);
                Value::Array(all.collect::<Option<_>>()?)
            }
            _ => return None,
        };
        message.insert((*name).to_owned(), value);
    }
    Some(Value::Object(message))
}
