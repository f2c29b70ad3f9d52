//! Frames from the server: encoded once, head and payload in one [`Bytes`], sent to any number of
//! peers.

use bytes::{Buf as _, Bytes, BytesMut};
use fastwebsockets::{Frame, OpCode, Payload};

use crate::head::MAX_CONTROL_BYTES;

/// The longest head of an unmasked frame.
const MAX_HEAD_BYTES: usize = 10;

/// What fastwebsockets wants to see as the room for a head.
const HEAD_ROOM_BYTES: usize = 16;

/// Room for a short frame, so that most are written without growing.
const SHORT_FRAME_BYTES: usize = 128;

/// Bytes of a close code.
const CODE_BYTES: usize = 2;

/// What a frame is. Server frames are never fragmented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// A text message; the payload is UTF-8.
    Text,
    /// A binary message.
    Binary,
    /// The last frame of a side.
    Close,
    /// Asks for a pong with the same payload.
    Ping,
    /// Answers a ping.
    Pong,
}

impl Opcode {
    pub(crate) fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    pub(crate) fn on_the_wire(self) -> OpCode {
        match self {
            Self::Text => OpCode::Text,
            Self::Binary => OpCode::Binary,
            Self::Close => OpCode::Close,
            Self::Ping => OpCode::Ping,
            Self::Pong => OpCode::Pong,
        }
    }
}

/// A whole frame whose payload is what `write` appends to the buffer; what is in it already stays
/// untouched. The payload is not copied to put the head before it. Nothing is checked: a text is
/// UTF-8 and a control frame has at most 125 bytes because the caller says so; [`ping`], [`pong`]
/// and [`close`] see to it.
pub fn encode(opcode: Opcode, write: impl FnOnce(&mut BytesMut)) -> Bytes {
    encode_with_room(SHORT_FRAME_BYTES, opcode, write)
}

/// A text frame. `payload` is UTF-8.
pub fn text(payload: &[u8]) -> Bytes {
    encode_slice(Opcode::Text, payload)
}

/// A ping. `payload` is cut to 125 bytes.
pub fn ping(payload: &[u8]) -> Bytes {
    encode_slice(Opcode::Ping, cut(payload))
}

/// The pong that answers a ping of this payload, which is cut to 125 bytes.
pub fn pong(payload: &[u8]) -> Bytes {
    encode_slice(Opcode::Pong, cut(payload))
}

/// A close frame. `reason` is cut to 123 bytes, between characters.
pub fn close(code: u16, reason: &str) -> Bytes {
    let reason = cut_reason(reason);
    encode_with_room(CODE_BYTES + reason.len(), Opcode::Close, |out| {
        out.extend_from_slice(&code.to_be_bytes());
        out.extend_from_slice(reason.as_bytes());
    })
}

/// As much of `reason` as a close frame has room for.
pub(crate) fn cut_reason(reason: &str) -> &str {
    let mut end = reason.len().min(MAX_CONTROL_BYTES - CODE_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

/// As much of `payload` as a control frame has room for.
pub(crate) fn cut(payload: &[u8]) -> &[u8] {
    &payload[..payload.len().min(MAX_CONTROL_BYTES)]
}

fn encode_slice(opcode: Opcode, payload: &[u8]) -> Bytes {
    encode_with_room(payload.len(), opcode, |out| out.extend_from_slice(payload))
}

fn encode_with_room(
    payload_bytes: usize,
    opcode: Opcode,
    write: impl FnOnce(&mut BytesMut),
) -> Bytes {
    let mut frame = BytesMut::with_capacity(MAX_HEAD_BYTES + payload_bytes);
    frame.extend_from_slice(&[0; MAX_HEAD_BYTES]);
    write(&mut frame);

    let mut head = [0; HEAD_ROOM_BYTES];
    let payload = Payload::Borrowed(frame.get(MAX_HEAD_BYTES..).unwrap_or_default());
    let head_bytes = Frame::new(true, opcode.on_the_wire(), None, payload).fmt_head(&mut head);
    // The head ends where the payload starts; what is left before it is skipped, not moved.
    let start = MAX_HEAD_BYTES - head_bytes;
    frame[start..MAX_HEAD_BYTES].copy_from_slice(&head[..head_bytes]);
    frame.advance(start);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_in_their_shortest_form() {
        for (length, head) in [
            (0, &[0x81, 0][..]),
            (125, &[0x81, 125]),
            (126, &[0x81, 126, 0, 126]),
            (65_535, &[0x81, 126, 0xff, 0xff]),
            (65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let payload = vec![b'x'; length];
            let expect = [head, &payload].concat();
            assert_eq!(text(&payload), expect, "{length} at once");
            let pieces = encode(Opcode::Text, |out| {
                payload
                    .chunks(100)
                    .for_each(|piece| out.extend_from_slice(piece));
            });
            assert_eq!(pieces, expect, "{length} in pieces");
        }
    }

    #[test]
    fn the_payload_stays_where_it_was_written() {
        let mut written = 0;
        let frame = encode(Opcode::Binary, |out| {
            out.extend_from_slice(b"payload");
            written = out[MAX_HEAD_BYTES..].as_ptr() as usize;
        });
        assert_eq!(frame[2..].as_ptr() as usize, written);
        assert_eq!(frame[0], 0x82);
    }

    #[test]
    fn control_frames_never_exceed_their_bound() {
        let long = [7; 200];
        assert_eq!(ping(b"hi"), [0x89, 2, b'h', b'i'].as_slice());
        assert_eq!(pong(b""), [0x8a, 0].as_slice());
        assert_eq!(ping(&long).len(), 2 + 125);
        assert_eq!(pong(&long).len(), 2 + 125);
    }

    #[test]
    fn close_reasons_are_cut_between_characters() {
        let two_bytes_each = "\u{e4}".repeat(100);
        for (reason, kept) in [
            ("", 0),
            ("bye", 3),
            (&"x".repeat(123), 123),
            (&"x".repeat(124), 123),
            (&two_bytes_each, 122),
        ] {
            let frame = close(4401, reason);
            assert_eq!(frame[..4], [0x88, 2 + kept, 0x11, 0x31], "{reason}");
            assert_eq!(&frame[4..], &reason.as_bytes()[..usize::from(kept)]);
        }
    }
}
