//! An independent decoder for RFC 6455, with which `curfew_ws` is compared. It reads the input byte
//! by byte, and has no buffer of undecoded bytes.

use curfew_ws::ProtocolError;

use super::{Decoded, DecodedEvent, LIMITS};

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The meaning of a frame's next byte.
#[derive(Debug, Clone, Copy)]
enum Awaited {
    First,
    Length,
    /// A byte of a multi-byte length. The number counts the bytes of the length that remain.
    Extended(u8),
    /// The byte of the masking key at this index.
    Mask(usize),
    Payload,
}

#[derive(Debug)]
struct Reader {
    awaited: Awaited,
    last: bool,
    opcode: u8,
    /// Number of length bytes after the second byte of the head: 0, 2 or 8.
    extended: u8,
    length: u64,
    mask: [u8; 4],
    payload: Vec<u8>,
    /// The incomplete fragmented message: its opcode, the number of its fragments so far, and their
    /// bytes.
    open: Option<(u8, usize, Vec<u8>)>,
    told: Vec<DecodedEvent>,
    over: bool,
}

/// Decodes the frames in a client's bytes.
pub(super) fn decode(bytes: &[u8]) -> Decoded {
    let mut reader = Reader {
        awaited: Awaited::First,
        last: false,
        opcode: 0,
        extended: 0,
        length: 0,
        mask: [0; 4],
        payload: Vec::new(),
        open: None,
        told: Vec::new(),
        over: false,
    };
    for byte in bytes {
        if let Err(fault) = reader.take(*byte) {
            reader.told.push(DecodedEvent::Fault(fault));
            reader.over = true;
        }
        if reader.over {
            break;
        }
    }
    let between = matches!(reader.awaited, Awaited::First) && reader.open.is_none();
    Decoded {
        owed: !reader.over && !between,
        told: reader.told,
    }
}

impl Reader {
    fn take(&mut self, byte: u8) -> Result<(), ProtocolError> {
        match self.awaited {
            Awaited::First => {
                (self.last, self.opcode) = (byte & 0b1000_0000 != 0, byte & 0b1111);
                if byte & 0b0111_0000 != 0 {
                    return Err(ProtocolError::ReservedBits);
                }
                if matches!(self.opcode, 3..=7 | 11..=15) {
                    return Err(ProtocolError::ReservedOpcode(self.opcode));
                }
                if self.is_control() && !self.last {
                    return Err(ProtocolError::FragmentedControl);
                }
                self.awaited = Awaited::Length;
            }
            Awaited::Length => {
                if byte & 0b1000_0000 == 0 {
                    return Err(ProtocolError::Unmasked);
                }
                let length = byte & 0b0111_1111;
                if self.is_control() && length > 125 {
                    return Err(ProtocolError::ControlTooLarge);
                }
                self.extended = match length {
                    126 => 2,
                    127 => 8,
                    _ => 0,
                };
                self.length = 0;
                self.awaited = Awaited::Extended(self.extended);
                if self.extended == 0 {
                    self.length = length.into();
                    self.admit()?;
                }
            }
            Awaited::Extended(left) => {
                self.length = self.length << 8 | u64::from(byte);
                self.awaited = Awaited::Extended(left - 1);
                if left == 1 {
                    if self.length >= 1 << 63 {
                        return Err(ProtocolError::LengthTopBit);
                    }
                    if self.length < if self.extended == 2 { 126 } else { 65_536 } {
                        return Err(ProtocolError::NonMinimalLength);
                    }
                    self.admit()?;
                }
            }
            Awaited::Mask(at) => {
                self.mask[at] = byte;
                self.awaited = Awaited::Mask(at + 1);
                if at == 3 {
                    self.awaited = Awaited::Payload;
                    self.payload.clear();
                    self.finish()?;
                }
            }
            Awaited::Payload => {
                let key = self.mask[self.payload.len() % 4];
                self.payload.push(byte ^ key);
                self.finish()?;
            }
        }
        Ok(())
    }

    fn is_control(&self) -> bool {
        self.opcode & 0b1000 != 0
    }

    /// Checks that a frame with this head is allowed at this point. The length is already known.
    fn admit(&mut self) -> Result<(), ProtocolError> {
        let already = match (&self.open, self.opcode) {
            _ if self.is_control() => 0,
            (None, CONTINUATION) => return Err(ProtocolError::ContinuationWithoutStart),
            (Some(_), TEXT | BINARY) => return Err(ProtocolError::InterruptedMessage),
            (Some((_, count, _)), _) if *count == LIMITS.fragments => {
                return Err(ProtocolError::TooManyFragments);
            }
            (Some((_, _, bytes)), _) => bytes.len() as u64,
            (None, _) => 0,
        };
        if already + self.length > LIMITS.message_bytes as u64 {
            return Err(ProtocolError::MessageTooLarge);
        }
        self.awaited = Awaited::Mask(0);
        Ok(())
    }

    /// Ends the frame if it is complete.
    fn finish(&mut self) -> Result<(), ProtocolError> {
        if (self.payload.len() as u64) < self.length {
            return Ok(());
        }
        self.awaited = Awaited::First;
        let payload = std::mem::take(&mut self.payload);
        match self.opcode {
            PING => self.told.push(DecodedEvent::Ping(payload)),
            PONG => self.told.push(DecodedEvent::Pong(payload)),
            CLOSE => self.close(&payload)?,
            _ => {
                let (opcode, count, mut bytes) =
                    self.open.take().unwrap_or((self.opcode, 0, Vec::new()));
                bytes.extend(payload);
                match (self.last, opcode) {
                    (false, _) => self.open = Some((opcode, count + 1, bytes)),
                    (true, BINARY) => self.told.push(DecodedEvent::Binary(bytes)),
                    (true, _) if is_utf8(&bytes) => self.told.push(DecodedEvent::Text(bytes)),
                    (true, _) => return Err(ProtocolError::InvalidUtf8),
                }
            }
        }
        Ok(())
    }

    fn close(&mut self, payload: &[u8]) -> Result<(), ProtocolError> {
        self.over = true;
        let (code, reason) = match payload {
            [] => (None, [].as_slice()),
            [_] => return Err(ProtocolError::CloseBody),
            [high, low, reason @ ..] => (Some(u16::from(*high) * 256 + u16::from(*low)), reason),
        };
        let reserved =
            |code: &u16| [1004, 1005, 1006].contains(code) || (1015..3000).contains(code);
        if let Some(code) = code.filter(|code| reserved(code) || !(1000..5000).contains(code)) {
            return Err(ProtocolError::CloseCode(code));
        }
        if !is_utf8(reason) {
            return Err(ProtocolError::CloseReason);
        }
        self.told.push(DecodedEvent::Close(code, reason.to_vec()));
        Ok(())
    }
}

/// Checks UTF-8 by RFC 3629, by computing the number of each code point.
fn is_utf8(bytes: &[u8]) -> bool {
    let mut bytes = bytes.iter().copied();
    while let Some(first) = bytes.next() {
        let (more, bits, least) = match first.leading_ones() {
            0 => continue,
            2 => (1, first & 0b1_1111, 0x80),
            3 => (2, first & 0b1111, 0x800),
            4 => (3, first & 0b111, 0x1_0000),
            _ => return false,
        };
        let mut number = u32::from(bits);
        for _ in 0..more {
            match bytes.next() {
                Some(next) if next & 0b1100_0000 == 0b1000_0000 => {
                    number = number << 6 | u32::from(next & 0b11_1111);
                }
                _ => return false,
            }
        }
        if number < least || number > 0x10_ffff || (0xd800..0xe000).contains(&number) {
            return false;
        }
    }
    true
}
