//! The native protocol, `curfew.v1`: text messages, one JSON object each.
//!
//! The decoder checks that `data` is JSON. `data` is delivered byte for byte as received.

mod decode;
mod encode;

use bytes::BytesMut;
use curfew_model::json::{self, Fault, Rules};
use curfew_model::{Channel, ClientRequest, CommandId, Message, MessageKind, Push, Reply};

use crate::{DecodeError, Protocol};

/// Largest depth of arrays and objects in `data`, the outermost included.
pub const MAX_DEPTH: usize = 32;

/// Maximum length of an `id`, in bytes. The length of a string is counted without quotes and
/// escapes. The length of a number is counted as it is written. The length is bounded because the
/// `id` is copied and echoed.
pub const MAX_ID_BYTES: usize = 64;

/// The rules by which a message is scanned. Repeated names are refused only for known members.
const RULES: Rules = Rules {
    // The message around `data` adds one level.
    max_depth: MAX_DEPTH + 1,
    strict: false,
};

/// The protocol `curfew.v1`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Native;

impl Protocol for Native {
    fn name(&self) -> &'static str {
        "curfew.v1"
    }

    fn kind(&self) -> MessageKind {
        MessageKind::Text
    }

    fn decode<'a>(&self, message: &mut Message<'a>) -> Result<ClientRequest<'a>, DecodeError> {
        // A message of this protocol holds one request, so the decoder leaves the message empty.
        match std::mem::replace(message, Message::Text("")) {
            Message::Text(text) => decode::decode(text),
            Message::Binary(_) => Err(DecodeError::NotTheProtocol {
                message: "the message is binary: send JSON as text",
            }),
        }
    }

    fn encode_reply(&self, id: Option<&CommandId>, reply: &Reply<'_>, out: &mut BytesMut) -> bool {
        encode::reply(id, reply, out)
    }

    fn encode_push(&self, push: &Push<'_>, out: &mut BytesMut) -> bool {
        encode::push(push, out);
        true
    }

    fn is_of(&self, message: &[u8], channel: &Channel) -> bool {
        encode::is_of(message, channel)
    }
}

/// Checks the body of a publication that arrives outside this protocol, such as a request to the
/// admin API. The rules are the same: JSON, with `data` at most [`MAX_DEPTH`] deep. The error
/// describes the fault.
pub fn check_request(text: &[u8]) -> Result<(), &'static str> {
    let text = std::str::from_utf8(text).map_err(|_| "the body is not UTF-8")?;
    match json::scan(text, RULES, |_, _| ()) {
        Ok(scanned) if scanned.is_object => Ok(()),
        Ok(_) => Err("the body is not a JSON object"),
        Err(Fault::TooDeep) => Err("arrays and objects are nested deeper than 32"),
        Err(Fault::NotJson | Fault::Repeated) => Err("the body is not JSON"),
    }
}

/// Checks the `data` of a publication that arrives in another protocol. It is for protocols whose
/// decoder does not check `data`. The rules are the same: JSON in UTF-8, at most [`MAX_DEPTH`]
/// deep.
///
/// # Errors
///
/// [`Fault::NotJson`] or [`Fault::TooDeep`].
pub fn check_data(data: &[u8]) -> Result<(), Fault> {
    let text = std::str::from_utf8(data).map_err(|_| Fault::NotJson)?;
    let rules = Rules {
        max_depth: MAX_DEPTH,
        ..RULES
    };
    json::scan(text, rules, |_, _| ()).map(|_| ())
}

#[cfg(test)]
mod tests;
