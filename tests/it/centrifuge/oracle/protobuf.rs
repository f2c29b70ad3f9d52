//! The protocol's Protobuf encoding, implemented from the schema.

use super::schema::{Field, Kind, fields};
use super::value::{Message, Value, hex};

const VARINT: u32 = 0;
const DELIMITED: u32 = 2;

/// One frame with all messages, each after its length.
pub(super) fn frame(name: &str, messages: &[Message]) -> Vec<u8> {
    let mut frame = Vec::new();
    for message in messages {
        put_delimited(&mut frame, &encode(name, message));
    }
    frame
}

/// The messages of a frame.
pub(super) fn messages(name: &str, mut frame: &[u8]) -> Result<Vec<Message>, String> {
    let mut messages = Vec::new();
    while !frame.is_empty() {
        messages.push(decode(name, take_delimited(&mut frame)?)?);
    }
    Ok(messages)
}

fn encode(name: &str, message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    for (member, value) in &message.0 {
        let field = fields(name).iter().find(|field| field.name == member);
        let field =
            field.unwrap_or_else(|| panic!("{name} has no {member}; mark the script `only json`"));
        match value {
            Value::List(values) => values
                .iter()
                .for_each(|value| put(&mut out, field.tag, field.kind, value)),
            Value::Map(entries) => {
                for (key, value) in entries {
                    let mut entry = Vec::new();
                    put(&mut entry, 1, Kind::Text, &Value::Text(key.clone()));
                    put(&mut entry, 2, field.kind, value);
                    put_varint(&mut out, u64::from(field.tag << 3 | DELIMITED));
                    put_delimited(&mut out, &entry);
                }
            }
            value => put(&mut out, field.tag, field.kind, value),
        }
    }
    out
}

fn put(out: &mut Vec<u8>, tag: u32, kind: Kind, value: &Value) {
    let number = match value {
        Value::Number(number) => i64::try_from(*number)
            .map(i64::cast_unsigned)
            .or_else(|_| u64::try_from(*number))
            .expect("64 bits"),
        Value::Bool(bool) => u64::from(*bool),
        delimited => {
            put_varint(out, u64::from(tag << 3 | DELIMITED));
            match (delimited, kind) {
                (Value::Text(text), _) => put_delimited(out, text.as_bytes()),
                (Value::Bytes(bytes), _) => put_delimited(out, bytes),
                (Value::Message(message), Kind::Message(name)) => {
                    put_delimited(out, &encode(name, message))
                }
                other => panic!("{other:?} has no Protobuf form; mark the script `only json`"),
            }
            return;
        }
    };
    // In proto3, a field that is zero is omitted.
    if number != 0 {
        put_varint(out, u64::from(tag << 3 | VARINT));
        put_varint(out, number);
    }
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    loop {
        let byte = number.to_le_bytes()[0] & 0x7f;
        number >>= 7;
        if number == 0 {
            out.push(byte);
            return;
        }
        out.push(byte | 0x80);
    }
}

fn put_delimited(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn decode(name: &str, mut bytes: &[u8]) -> Result<Message, String> {
    let mut message = Message::default();
    while !bytes.is_empty() {
        let key = take_varint(&mut bytes)?;
        let (tag, wire) = (key >> 3, key & 7);
        let (number, content) = match wire {
            0 => (take_varint(&mut bytes)?, &[][..]),
            2 => (0, take_delimited(&mut bytes)?),
            _ => return Err(format!("wire type {wire} in {name}")),
        };
        let field = fields(name)
            .iter()
            .find(|field| u64::from(field.tag) == tag);
        let Some(field) = field.filter(|field| (wire == 0) == is_number(field.kind)) else {
            let shown = format!("\"{number} {}\"", hex(content));
            message.0.push((tag.to_string(), Value::Unknown(shown)));
            continue;
        };
        let value = if field.map {
            let entry = entry(field, content)?;
            add(&mut message, field, Value::Map(vec![entry]));
            continue;
        } else {
            value(field.kind, number, content)?
        };
        let value = if field.repeated {
            Value::List(vec![value])
        } else {
            value
        };
        add(&mut message, field, value);
    }
    message.sort(name);
    Ok(message)
}

/// Adds a field's value to the message. If the message already has the field's list or map, that is
/// extended.
fn add(message: &mut Message, field: &Field, value: Value) {
    let mut held = message.0.iter_mut();
    match (held.find(|(name, _)| name == field.name), value) {
        (Some((_, Value::List(list))), Value::List(more)) => list.extend(more),
        (Some((_, Value::Map(map))), Value::Map(more)) => map.extend(more),
        (_, value) => message.0.push((field.name.to_owned(), value)),
    }
}

fn entry(field: &Field, mut bytes: &[u8]) -> Result<(String, Value), String> {
    let mut key = String::new();
    let mut held = value(field.kind, 0, &[])?;
    while !bytes.is_empty() {
        match take_varint(&mut bytes)? {
            0x0a => key = text(take_delimited(&mut bytes)?)?,
            0x12 => held = value(field.kind, 0, take_delimited(&mut bytes)?)?,
            other => return Err(format!("key {other} in an entry of {}", field.name)),
        }
    }
    Ok((key, held))
}

fn is_number(kind: Kind) -> bool {
    matches!(kind, Kind::Unsigned | Kind::Signed | Kind::Bool)
}

fn value(kind: Kind, number: u64, content: &[u8]) -> Result<Value, String> {
    Ok(match kind {
        Kind::Unsigned => Value::Number(number.into()),
        Kind::Signed => Value::Number(number.cast_signed().into()),
        Kind::Bool => Value::Bool(number != 0),
        Kind::Text => Value::Text(text(content)?),
        Kind::Bytes => Value::Bytes(content.to_vec()),
        Kind::Message(name) => Value::Message(decode(name, content)?),
    })
}

fn text(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|error| error.to_string())
}

fn take_varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or("a number is cut off")?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err("a number of more than 64 bits".to_owned())
}

fn take_delimited<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], String> {
    let length = usize::try_from(take_varint(bytes)?).map_err(|error| error.to_string())?;
    let (content, rest) = bytes
        .split_at_checked(length)
        .ok_or("a message is cut off")?;
    *bytes = rest;
    Ok(content)
}
