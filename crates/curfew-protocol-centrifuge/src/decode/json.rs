//! Decoding of messages in JSON.

use std::borrow::Cow;

use curfew_model::json::{self, Rules, scan};
use curfew_model::{ClientRequest, Message, Payload};
use curfew_protocol::DecodeError;

use super::fields::{Field, FieldKind};
use super::{Fault, Read, Seen, Value};

/// Maximum depth of arrays and objects in a payload.
pub(super) const MAX_DEPTH: usize = 32;

/// Number of objects around a payload: the command and its request.
const LEVELS_AROUND: usize = 2;

const RULES: Rules = Rules {
    max_depth: MAX_DEPTH + LEVELS_AROUND,
    strict: false,
};

const NOT_JSON: Fault = Fault::NotTheProtocol("the message is not JSON");

/// Takes the first line of the message and decodes it.
pub(crate) fn decode<'a>(message: &mut Message<'a>) -> Result<ClientRequest<'a>, DecodeError> {
    // A newline within a string is escaped, so every raw newline separates two commands.
    let line = match *message {
        Message::Text(text) => {
            let (line, rest) = text.split_once('\n').unwrap_or((text, ""));
            *message = Message::Text(rest);
            Some(line)
        }
        Message::Binary(bytes) => {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let end = end.unwrap_or(bytes.len());
            *message = Message::Binary(bytes.get(end + 1..).unwrap_or_default());
            std::str::from_utf8(&bytes[..end]).ok()
        }
    };
    match line {
        Some(line) => super::decode(Json(json::Value {
            raw: line.trim_matches([' ', '\t', '\r']),
            kind: json::Kind::Other,
        })),
        None => Err(DecodeError::NotTheProtocol {
            message: "the message is not UTF-8",
        }),
    }
}

#[derive(Clone, Copy)]
pub(super) struct Json<'a>(pub(super) json::Value<'a>);

impl<'a> Json<'a> {
    fn number<T: std::str::FromStr>(self) -> Read<T> {
        // `parse` also accepts a plus sign and leading zeros, but a number in JSON has neither.
        let number = self.0.raw.parse();
        number.map_err(|_| {
            Fault::NotTheProtocol("a member must be a number in the range of its type")
        })
    }

    fn members(self, member: &mut dyn FnMut(Cow<'a, str>, Self) -> Read<()>) -> Read<()> {
        self.expect_message()?;
        let mut taken = Ok(());
        let scanned = scan(self.0.raw, RULES, |name, value| {
            // A name that is not valid Unicode is unknown, and ignored.
            if let (Ok(()), Some(name)) = (&taken, name.as_str()) {
                taken = member(name, Json(value));
            }
        });
        match scanned {
            Err(json::Fault::TooDeep) => Err(Fault::TooDeep),
            Err(json::Fault::NotJson | json::Fault::Repeated) => Err(NOT_JSON),
            Ok(_) => taken,
        }
    }
}

impl<'a> Value<'a> for Json<'a> {
    fn text(self) -> Read<Cow<'a, str>> {
        let text = self.0.as_str();
        text.ok_or(Fault::NotTheProtocol("a member must be a string"))
    }

    fn flag(self) -> Read<bool> {
        match self.0.raw {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(Fault::NotTheProtocol("a member must be true or false")),
        }
    }

    fn u32(self) -> Read<u32> {
        self.number()
    }

    fn u64(self) -> Read<u64> {
        self.number()
    }

    fn i32(self) -> Read<i32> {
        self.number()
    }

    fn i64(self) -> Read<i64> {
        self.number()
    }

    fn payload(self) -> Read<Payload<'a>> {
        Ok(Payload::Json(self.0.raw))
    }

    fn expect_message(self) -> Read<()> {
        match self.0.raw.starts_with('{') {
            true => Ok(()),
            false => Err(Fault::NotTheProtocol("a message must be a JSON object")),
        }
    }

    fn fields(
        self,
        known: &'static [Field],
        take: &mut dyn FnMut(&'static str, Self) -> Read<()>,
    ) -> Read<()> {
        let mut seen = Seen::default();
        self.members(&mut |name, value| {
            let Some(at) = known.iter().position(|field| field.name == name) else {
                return Ok(());
            };
            seen.note(at)?;
            if value.0.raw == "null" && known[at].kind != FieldKind::Data {
                return Ok(());
            }
            take(known[at].name, value)
        })
    }

    fn entries(self, take: &mut dyn FnMut(Cow<'a, str>, Self) -> Read<()>) -> Read<()> {
        self.members(take)
    }
}
