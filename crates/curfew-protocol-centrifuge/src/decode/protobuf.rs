//! Decoding of messages in Protobuf.

use std::borrow::Cow;

use curfew_model::{ClientRequest, Message, Payload};
use curfew_protocol::DecodeError;

use super::fields::{Field, FieldKind, one};
use super::{Fault, Read, Seen, Value};

/// The fields of an entry of a map.
const ENTRY: &[Field] = &[one(1, "key"), one(2, "value")];

const WRONG_TYPE: Fault = Fault::NotTheProtocol("a field has the wrong type");
const CUT: Fault = Fault::NotTheProtocol("the message is incomplete");

/// Takes the first command, with the length before it, from the message and decodes the command.
pub(crate) fn decode<'a>(message: &mut Message<'a>) -> Result<ClientRequest<'a>, DecodeError> {
    let mut rest = match *message {
        Message::Text(text) => text.as_bytes(),
        Message::Binary(bytes) => bytes,
    };
    let first = delimited(&mut rest);
    *message = Message::Binary(rest);
    match first {
        Ok(first) => super::decode(Wire::Bytes(first)),
        Err(_) => {
            *message = Message::Binary(&[]);
            Err(DecodeError::NotTheProtocol {
                message: "the length before the message is missing or wrong",
            })
        }
    }
}

/// The value of a field, as it is encoded.
#[derive(Clone, Copy)]
pub(super) enum Wire<'a> {
    Varint(u64),
    /// A number of 4 or 8 bytes. No known field of a request has this type.
    Fixed,
    Bytes(&'a [u8]),
}

impl<'a> Wire<'a> {
    fn varint(self) -> Read<u64> {
        match self {
            Self::Varint(value) => Ok(value),
            Self::Fixed | Self::Bytes(_) => Err(WRONG_TYPE),
        }
    }

    pub(super) fn bytes(self) -> Read<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Fixed | Self::Varint(_) => Err(WRONG_TYPE),
        }
    }

    /// Takes the next field, with its tag.
    fn take(rest: &mut &'a [u8]) -> Read<(u32, Self)> {
        let key = u32::try_from(varint(rest)?).map_err(|_| WRONG_TYPE)?;
        let value = match key & 7 {
            0 => Self::Varint(varint(rest)?),
            1 => fixed(rest, 8)?,
            2 => Self::Bytes(delimited(rest)?),
            5 => fixed(rest, 4)?,
            _ => return Err(WRONG_TYPE),
        };
        match key >> 3 {
            0 => Err(WRONG_TYPE),
            tag => Ok((tag, value)),
        }
    }
}

impl<'a> Value<'a> for Wire<'a> {
    fn text(self) -> Read<Cow<'a, str>> {
        let text = std::str::from_utf8(self.bytes()?);
        text.map(Cow::Borrowed)
            .map_err(|_| Fault::NotTheProtocol("a string is not UTF-8"))
    }

    fn flag(self) -> Read<bool> {
        self.varint().map(|value| value != 0)
    }

    // Numbers that are too large are truncated, as the Protobuf format says.
    fn u32(self) -> Read<u32> {
        self.varint().map(|value| value as u32)
    }

    fn u64(self) -> Read<u64> {
        self.varint()
    }

    fn i32(self) -> Read<i32> {
        self.varint().map(|value| value as i32)
    }

    fn i64(self) -> Read<i64> {
        self.varint().map(u64::cast_signed)
    }

    fn payload(self) -> Read<Payload<'a>> {
        self.bytes().map(|bytes| Payload::Bytes(bytes.into()))
    }

    fn expect_message(self) -> Read<()> {
        self.bytes().map(drop)
    }

    fn fields(
        self,
        known: &'static [Field],
        take: &mut dyn FnMut(&'static str, Self) -> Read<()>,
    ) -> Read<()> {
        let mut seen = Seen::default();
        let mut rest = self.bytes()?;
        while !rest.is_empty() {
            let (tag, value) = Self::take(&mut rest)?;
            let Some(at) = known.iter().position(|field| field.tag == tag) else {
                continue;
            };
            if known[at].kind != FieldKind::Map {
                seen.note(at)?;
            }
            take(known[at].name, value)?;
        }
        Ok(())
    }

    fn entries(self, take: &mut dyn FnMut(Cow<'a, str>, Self) -> Read<()>) -> Read<()> {
        let (mut key, mut entry) = (Cow::Borrowed(""), Wire::Bytes(&[]));
        self.fields(ENTRY, &mut |name, value| {
            match name {
                "key" => key = value.text()?,
                _ => entry = value,
            }
            Ok(())
        })?;
        take(key, entry)
    }
}

/// Takes a number in base 128, lowest digit first, from the front of `rest`.
fn varint(rest: &mut &[u8]) -> Read<u64> {
    let mut value = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (&byte, after) = rest.split_first().ok_or(CUT)?;
        *rest = after;
        let digit = u64::from(byte & 0x7f);
        if digit << shift >> shift != digit {
            break;
        }
        value |= digit << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Fault::NotTheProtocol("a number has more than 64 bits"))
}

/// Takes length-delimited bytes from the front of `rest`: a length, then that number of bytes.
/// Returns the bytes without the length.
fn delimited<'a>(rest: &mut &'a [u8]) -> Read<&'a [u8]> {
    let length = usize::try_from(varint(rest)?).map_err(|_| CUT)?;
    let (bytes, after) = rest.split_at_checked(length).ok_or(CUT)?;
    *rest = after;
    Ok(bytes)
}

fn fixed<'a>(rest: &mut &[u8], length: usize) -> Read<Wire<'a>> {
    *rest = rest.get(length..).ok_or(CUT)?;
    Ok(Wire::Fixed)
}
