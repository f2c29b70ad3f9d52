//! WebSocket frames (RFC 6455 §5.2), well-formed and malformed.

use bytes::{Buf as _, Bytes, BytesMut};

/// Opcodes, RFC 6455 §5.2.
pub mod opcode {
    /// A frame that continues a fragmented message.
    pub const CONTINUATION: u8 = 0;
    /// A text frame.
    pub const TEXT: u8 = 1;
    /// A binary frame.
    pub const BINARY: u8 = 2;
    /// A close frame.
    pub const CLOSE: u8 = 8;
    /// A ping.
    pub const PING: u8 = 9;
    /// A pong.
    pub const PONG: u8 = 10;
}

/// A received frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// True for the last frame of its message.
    pub fin: bool,
    /// The three reserved bits.
    pub rsv: u8,
    /// See [`opcode`].
    pub opcode: u8,
    /// The payload, unmasked.
    pub payload: Bytes,
}

impl Frame {
    /// Takes one whole frame from the front of `buffer`; `None` if the frame is incomplete. Panics
    /// on a masked frame, because servers never mask.
    pub(crate) fn take(buffer: &mut BytesMut) -> Option<Self> {
        let (&first, &second) = (buffer.first()?, buffer.get(1)?);
        assert!(second & 0x80 == 0, "the server sent a masked frame");
        let (head, length) = match second & 0x7f {
            126 => (
                4,
                u64::from(u16::from_be_bytes(buffer.get(2..4)?.try_into().ok()?)),
            ),
            127 => (10, u64::from_be_bytes(buffer.get(2..10)?.try_into().ok()?)),
            short => (2, u64::from(short)),
        };
        let length = usize::try_from(length)
            .expect("the server declared a frame that is too large for this machine");
        if buffer.len() < head + length {
            return None;
        }
        buffer.advance(head);
        Some(Self {
            fin: first & 0x80 != 0,
            rsv: first >> 4 & 7,
            opcode: first & 0xf,
            payload: buffer.split_to(length).freeze(),
        })
    }

    /// The payload as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("the payload is not UTF-8")
    }

    /// Code and reason of a close frame. The code is 1005 if the frame has no code.
    pub fn close(&self) -> (u16, String) {
        match self.payload.split_first_chunk::<2>() {
            None => (1005, String::new()),
            Some((code, reason)) => (
                u16::from_be_bytes(*code),
                String::from_utf8(reason.to_vec())
                    .expect("the reason of the close frame is not UTF-8"),
            ),
        }
    }
}

/// The form in which an [`OutFrame`] writes its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LengthForm {
    Shortest,
    TwoBytes,
    EightBytes,
}

/// A frame to send. By default it is final, masked and well-formed.
#[derive(Debug, Clone)]
pub struct OutFrame {
    fin: bool,
    rsv: u8,
    opcode: u8,
    mask: Option<[u8; 4]>,
    payload: Vec<u8>,
    declared: Option<u64>,
    form: LengthForm,
}

impl OutFrame {
    /// A frame of any opcode.
    pub fn new(opcode: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            fin: true,
            rsv: 0,
            opcode,
            mask: Some([0x37, 0xfa, 0x21, 0x3d]),
            payload: payload.into(),
            declared: None,
            form: LengthForm::Shortest,
        }
    }

    /// A text frame.
    pub fn text(text: &str) -> Self {
        Self::new(opcode::TEXT, text)
    }

    /// A close frame.
    pub fn close(code: u16, reason: &[u8]) -> Self {
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend_from_slice(reason);
        Self::new(opcode::CLOSE, payload)
    }

    /// Sets the FIN bit, which marks the last frame of a message.
    pub fn fin(mut self, fin: bool) -> Self {
        self.fin = fin;
        self
    }

    /// Sets the reserved bits, 0 to 7.
    pub fn rsv(mut self, rsv: u8) -> Self {
        self.rsv = rsv;
        self
    }

    /// Leaves the payload unmasked, which a client must not do.
    pub fn unmasked(mut self) -> Self {
        self.mask = None;
        self
    }

    /// Writes `length` as the payload length, regardless of the payload.
    pub fn declaring(mut self, length: u64) -> Self {
        self.declared = Some(length);
        self
    }

    /// Writes the length in two bytes, although a shorter form would suffice.
    pub fn in_two_bytes(mut self) -> Self {
        self.form = LengthForm::TwoBytes;
        self
    }

    /// Writes the length in eight bytes, although a shorter form would suffice.
    pub fn in_eight_bytes(mut self) -> Self {
        self.form = LengthForm::EightBytes;
        self
    }

    /// The bytes on the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.payload.len() + 14);
        out.push(u8::from(self.fin) << 7 | self.rsv << 4 | self.opcode);
        let masked = if self.mask.is_some() { 0x80 } else { 0 };
        let length = self.declared.unwrap_or(self.payload.len() as u64);
        match (self.form, length) {
            (LengthForm::Shortest, 0..=125) => {
                out.push(masked | u8::try_from(length).expect("the length is at most 125"));
            }
            (LengthForm::Shortest, 126..=0xffff) | (LengthForm::TwoBytes, _) => {
                out.push(masked | 126);
                out.extend_from_slice(
                    &u16::try_from(length)
                        .expect("the length does not fit into two bytes")
                        .to_be_bytes(),
                );
            }
            (LengthForm::Shortest | LengthForm::EightBytes, _) => {
                out.push(masked | 127);
                out.extend_from_slice(&length.to_be_bytes());
            }
        }
        match self.mask {
            None => out.extend_from_slice(&self.payload),
            Some(mask) => {
                out.extend_from_slice(&mask);
                let pad = mask.iter().cycle();
                out.extend(self.payload.iter().zip(pad).map(|(byte, mask)| byte ^ mask));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_written_as_the_rfc_shows_them() {
        // The expected bytes are from RFC 6455 §5.7.
        assert_eq!(
            OutFrame::text("Hello").to_bytes(),
            [
                0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58
            ]
        );
        let lie = OutFrame::text("").unmasked().declaring(1 << 63).to_bytes();
        assert_eq!(lie, [0x81, 127, 0x80, 0, 0, 0, 0, 0, 0, 0]);
        let long = OutFrame::text("a").unmasked().in_two_bytes().to_bytes();
        assert_eq!(long, [0x81, 126, 0, 1, b'a']);
    }

    #[test]
    fn frames_are_read_once_they_are_whole() {
        let bytes = OutFrame::new(opcode::PING, "abc").unmasked().to_bytes();
        let mut buffer = BytesMut::new();
        for byte in &bytes[..bytes.len() - 1] {
            buffer.extend_from_slice(&[*byte]);
            assert_eq!(Frame::take(&mut buffer), None);
        }
        buffer.extend_from_slice(b"cx");
        let frame = Frame::take(&mut buffer).unwrap();
        assert_eq!((frame.opcode, frame.text()), (opcode::PING, "abc"));
        assert_eq!(&buffer[..], b"x");
    }
}
