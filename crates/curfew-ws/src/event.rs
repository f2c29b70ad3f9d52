//! What the payload of a whole frame or message must be, by its opcode.

use std::fmt;

use curfew_model::Message;

use crate::ProtocolError;
use crate::frame::Opcode;

/// What a peer sent. Borrows from the read buffer or from the decoder.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Event<'b> {
    /// A whole message.
    Message(Message<'b>),
    /// To be answered by a pong with the same payload, of at most 125 bytes.
    Ping(&'b [u8]),
    /// The answer to a ping, or unsolicited.
    Pong(&'b [u8]),
    /// The peer sends nothing after this, and nothing after it is decoded.
    Close {
        /// A code that may be on the wire, unless the frame was empty.
        code: Option<u16>,
        /// At most 123 bytes.
        reason: &'b str,
    },
}

impl<'b> Event<'b> {
    /// Checks an unmasked payload.
    pub(crate) fn read(opcode: Opcode, payload: &'b [u8]) -> Result<Self, ProtocolError> {
        match opcode {
            Opcode::Text => text(payload),
            Opcode::Binary => Ok(Event::Message(Message::Binary(payload))),
            Opcode::Close => close(payload),
            Opcode::Ping => Ok(Event::Ping(payload)),
            Opcode::Pong => Ok(Event::Pong(payload)),
        }
    }
}

impl fmt::Debug for Event<'_> {
    /// Contents never reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(message) => message.fmt(f),
            Self::Ping(payload) => write!(f, "Ping({} bytes)", payload.len()),
            Self::Pong(payload) => write!(f, "Pong({} bytes)", payload.len()),
            Self::Close { code, reason } => {
                write!(f, "Close({code:?}, {} bytes)", reason.len())
            }
        }
    }
}

fn text(payload: &[u8]) -> Result<Event<'_>, ProtocolError> {
    std::str::from_utf8(payload)
        .map(|text| Event::Message(Message::Text(text)))
        .map_err(|_| ProtocolError::InvalidUtf8)
}

fn close(payload: &[u8]) -> Result<Event<'_>, ProtocolError> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return match payload {
            [] => Ok(Event::Close {
                code: None,
                reason: "",
            }),
            _ => Err(ProtocolError::CloseBody),
        };
    };
    let code = u16::from_be_bytes(*code);
    if !may_be_sent(code) {
        return Err(ProtocolError::CloseCode(code));
    }
    let reason = std::str::from_utf8(reason).map_err(|_| ProtocolError::CloseReason)?;
    Ok(Event::Close {
        code: Some(code),
        reason,
    })
}

/// RFC 6455 §7.4 and the registry it founded: 1004, 1005, 1006 and 1015 are never on the wire.
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
