//! Events: messages and control frames, with the rules for their payloads.

use std::fmt;

use curfew_model::Message;

use crate::ProtocolError;
use crate::frame::Opcode;

/// A message or control frame from a peer. It borrows from the read buffer or from the decoder.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Event<'b> {
    /// A complete message.
    Message(Message<'b>),
    /// A ping of at most 125 bytes. The caller answers with a pong of the same payload.
    Ping(&'b [u8]),
    /// A pong, as an answer to a ping or unsolicited.
    Pong(&'b [u8]),
    /// A close frame. The peer may send nothing after it, and later bytes are not decoded.
    Close {
        /// The close code; `None` if the frame was empty.
        code: Option<u16>,
        /// The reason, of at most 123 bytes.
        reason: &'b str,
    },
}

impl<'b> Event<'b> {
    /// Checks an unmasked payload by the rules of its opcode, and returns its event.
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
    /// Prints sizes only: contents never reach a log.
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

/// The event of a text message, which must be UTF-8.
fn text(payload: &[u8]) -> Result<Event<'_>, ProtocolError> {
    std::str::from_utf8(payload)
        .map(|text| Event::Message(Message::Text(text)))
        .map_err(|_| ProtocolError::InvalidUtf8)
}

/// The event of a close frame: empty, or a code with an optional reason.
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

/// True if RFC 6455 §7.4 or its registry allows this close code in a frame. The codes 1004, 1005,
/// 1006 and 1015 are never sent.
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
