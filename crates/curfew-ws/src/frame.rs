//! Frames that the server sends. A frame is encoded once, with head and payload in one [`Bytes`],
//! and then sent to any number of peers.

use bytes::{Buf as _, Bytes, BytesMut};
use fastwebsockets::{Frame, OpCode, Payload};

/// Largest payload of a control frame, in bytes (RFC 6455 §5.5).
pub(crate) const MAX_CONTROL_BYTES: usize = 125;

/// Length of the longest unmasked head, in bytes.
const MAX_HEAD_BYTES: usize = 10;

/// Space for the head of a frame, in bytes, as fastwebsockets requires.
const HEAD_ROOM_BYTES: usize = 16;

/// Initial space for a payload, in bytes. Most payloads fit into this space, so their buffer is not
/// reallocated.
const SHORT_FRAME_BYTES: usize = 128;

/// The bit of a head's second byte that says that the payload is masked.
const MASKED: u8 = 0x80;

/// Length of a masking key, in bytes.
const MASK_BYTES: usize = 4;

/// Length of a close code, in bytes.
const CODE_BYTES: usize = 2;

/// The opcode of a frame. Frames from the server are never fragmented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// A text message; the payload is UTF-8.
    Text,
    /// A binary message.
    Binary,
    /// The last frame that a side sends.
    Close,
    /// A request for a pong with the same payload.
    Ping,
    /// An answer to a ping.
    Pong,
}

impl Opcode {
    /// True for close, ping and pong.
    pub(crate) fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    /// Converts the opcode to the type of fastwebsockets.
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

/// Encodes a frame without a copy of its payload: `write` appends the payload to the buffer.
/// `write` must not change the bytes that are already in the buffer.
///
/// Nothing is checked: the caller must ensure that a text is UTF-8 and that the payload of a
/// control frame has at most 125 bytes. [`ping`], [`pong`] and [`close`] cut the payload to this
/// limit.
pub fn encode(opcode: Opcode, write: impl FnOnce(&mut BytesMut)) -> Bytes {
    encode_with_room(SHORT_FRAME_BYTES, opcode, write)
}

/// Encodes a frame in the form that a client sends, with a copy of `payload`. The masking key is
/// zero, so the payload stays unchanged. No real mask is needed, because the frame never leaves the
/// process.
pub fn masked(opcode: Opcode, payload: &[u8]) -> Bytes {
    let unmasked = encode_slice(opcode, payload);
    let (head, payload) = unmasked.split_at(unmasked.len() - payload.len());
    let mut frame = BytesMut::with_capacity(unmasked.len() + MASK_BYTES);
    frame.extend_from_slice(head);
    frame[1] |= MASKED;
    frame.extend_from_slice(&[0; MASK_BYTES]);
    frame.extend_from_slice(payload);
    frame.freeze()
}

/// Returns the payload of an unmasked frame that [`encode`] has made.
pub fn payload(frame: &[u8]) -> &[u8] {
    // RFC 6455 §5.2: the head has two bytes. A length that does not fit the second byte follows in
    // 2 or 8 more bytes.
    let head = match frame.get(1) {
        Some(127) => MAX_HEAD_BYTES,
        Some(126) => 4,
        _ => 2,
    };
    frame.get(head..).unwrap_or_default()
}

/// Encodes a text frame. `payload` must be UTF-8.
pub fn text(payload: &[u8]) -> Bytes {
    encode_slice(Opcode::Text, payload)
}

/// Encodes a ping. `payload` is cut to 125 bytes.
pub fn ping(payload: &[u8]) -> Bytes {
    encode_slice(Opcode::Ping, cut(payload))
}

/// Encodes the pong for a ping with this payload. `payload` is cut to 125 bytes.
pub fn pong(payload: &[u8]) -> Bytes {
    encode_slice(Opcode::Pong, cut(payload))
}

/// Encodes a close frame. `reason` is cut to 123 bytes, between characters.
pub fn close(code: u16, reason: &str) -> Bytes {
    let reason = cut_reason(reason);
    encode_with_room(CODE_BYTES + reason.len(), Opcode::Close, |out| {
        out.extend_from_slice(&code.to_be_bytes());
        out.extend_from_slice(reason.as_bytes());
    })
}

/// Returns the part of `reason` that fits into a close frame.
pub(crate) fn cut_reason(reason: &str) -> &str {
    let mut end = reason.len().min(MAX_CONTROL_BYTES - CODE_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

/// Returns the part of `payload` that fits into a control frame.
pub(crate) fn cut(payload: &[u8]) -> &[u8] {
    &payload[..payload.len().min(MAX_CONTROL_BYTES)]
}

/// Encodes a frame with a copy of `payload`.
fn encode_slice(opcode: Opcode, payload: &[u8]) -> Bytes {
    encode_with_room(payload.len(), opcode, |out| out.extend_from_slice(payload))
}

/// Encodes a frame. `payload_bytes` is the expected length of the payload, for which space is
/// reserved.
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
    // The head is placed right before the payload, and the unused bytes before the head are
    // skipped. The payload is therefore not moved.
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
            assert_eq!(text(&payload), expect, "{length} bytes encoded at once");
            let pieces = encode(Opcode::Text, |out| {
                payload
                    .chunks(100)
                    .for_each(|piece| out.extend_from_slice(piece));
            });
            assert_eq!(pieces, expect, "{length} bytes encoded in pieces");
        }
    }

    #[test]
    fn masked_frames_are_read_as_those_of_a_client() {
        let limits = crate::Limits {
            message_bytes: 100_000,
            fragments: 1,
        };
        for length in [0, 125, 126, 65_536] {
            let payload = vec![b'x'; length];
            let mut decoder = crate::Decoder::new();
            decoder.preload(&masked(Opcode::Binary, &payload));
            let mut input = crate::Input::empty();
            match decoder.next(&mut input, &limits).unwrap() {
                Some(crate::Event::Message(curfew_model::Message::Binary(read))) => {
                    assert_eq!(read, payload);
                }
                _ => panic!("the frame is not decoded as a message of {length} bytes"),
            }
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
