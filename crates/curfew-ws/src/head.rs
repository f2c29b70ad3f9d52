//! The head of a frame (RFC 6455 §5.2). An invalid head is refused as soon as its first invalid
//! byte arrives.

use fastwebsockets::OpCode;

use crate::ProtocolError;
use crate::frame::{MAX_CONTROL_BYTES, Opcode};

/// Length of a masking key, in bytes.
const MASK_BYTES: usize = 4;

/// The sender of the frames. A client masks its frames, and a server does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    Client,
    Server,
}

/// The head of a frame. The masking key is not included, because it may not have arrived yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) fin: bool,
    /// The opcode; `None` for a continuation of the open message.
    pub(crate) opcode: Option<Opcode>,
    /// The length that the peer declares. For a data frame, it can be any number below 2^63.
    pub(crate) payload_bytes: u64,
    /// The length of the whole head, including the masking key.
    pub(crate) bytes: usize,
    /// True if the payload is masked.
    masked: bool,
}

/// The result of parsing the first bytes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parsed {
    Head(Head),
    /// The head is incomplete: at least `wanted` bytes of the frame are needed to parse its next
    /// part.
    Short {
        wanted: usize,
    },
}

impl Head {
    /// Parses the head at the start of `bytes`.
    pub(crate) fn parse(bytes: &[u8], sender: Sender) -> Result<Parsed, ProtocolError> {
        let Some(&first) = bytes.first() else {
            return Ok(Parsed::Short { wanted: 2 });
        };
        if first & 0x70 != 0 {
            return Err(ProtocolError::ReservedBits);
        }
        let fin = first & 0x80 != 0;
        let opcode = match OpCode::try_from(first & 0x0f) {
            Ok(OpCode::Continuation) => None,
            Ok(OpCode::Text) => Some(Opcode::Text),
            Ok(OpCode::Binary) => Some(Opcode::Binary),
            Ok(OpCode::Close) => Some(Opcode::Close),
            Ok(OpCode::Ping) => Some(Opcode::Ping),
            Ok(OpCode::Pong) => Some(Opcode::Pong),
            Err(_) => return Err(ProtocolError::ReservedOpcode(first & 0x0f)),
        };
        let control = opcode.is_some_and(Opcode::is_control);
        if control && !fin {
            return Err(ProtocolError::FragmentedControl);
        }

        let Some(&second) = bytes.get(1) else {
            return Ok(Parsed::Short { wanted: 2 });
        };
        let masked = second & 0x80 != 0;
        match (sender, masked) {
            (Sender::Client, false) => return Err(ProtocolError::Unmasked),
            (Sender::Server, true) => return Err(ProtocolError::Masked),
            (Sender::Client, true) | (Sender::Server, false) => {}
        }
        let short = second & 0x7f;
        if control && usize::from(short) > MAX_CONTROL_BYTES {
            return Err(ProtocolError::ControlTooLarge);
        }

        let extended = &bytes[2..];
        let (payload_bytes, bytes) = match short {
            126 => match extended.first_chunk() {
                None => return Ok(Parsed::Short { wanted: 4 }),
                Some(length) => (u64::from(u16::from_be_bytes(*length)), 4),
            },
            127 => match extended.first_chunk() {
                None => return Ok(Parsed::Short { wanted: 10 }),
                Some(length) => (u64::from_be_bytes(*length), 10),
            },
            short => (u64::from(short), 2),
        };
        if payload_bytes >> 63 != 0 {
            return Err(ProtocolError::LengthTopBit);
        }
        if (short == 126 && payload_bytes < 126) || (short == 127 && payload_bytes < 1 << 16) {
            return Err(ProtocolError::NonMinimalLength);
        }
        Ok(Parsed::Head(Self {
            fin,
            opcode,
            payload_bytes,
            bytes: if masked { bytes + MASK_BYTES } else { bytes },
            masked,
        }))
    }

    /// Returns the masking key in `frame`, whose head must be complete; `None` for an unmasked
    /// frame.
    pub(crate) fn mask(&self, frame: &[u8]) -> Option<[u8; MASK_BYTES]> {
        if !self.masked {
            return None;
        }
        frame.get(..self.bytes)?.last_chunk().copied()
    }

    /// True for a control frame.
    pub(crate) fn is_control(&self) -> bool {
        self.opcode.is_some_and(Opcode::is_control)
    }
}
