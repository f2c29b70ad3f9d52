//! The part of WebSocket framing that a client needs (RFC 6455 §5.2).

/// A frame from a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The frame's opcode.
    pub opcode: u8,
    /// The payload, or its available part if the frame is incomplete.
    pub payload: &'a [u8],
    /// The length of the frame in bytes, including its head.
    pub size: usize,
    /// True if the frame is complete.
    pub whole: bool,
}

/// Opcode of a text frame.
pub const TEXT: u8 = 1;
/// Opcode of a close frame.
pub const CLOSE: u8 = 8;
/// Opcode of a ping frame.
pub const PING: u8 = 9;
/// Opcode of a pong frame.
pub const PONG: u8 = 10;

/// The first frame in `bytes`; `None` if its head is incomplete.
pub fn first(bytes: &[u8]) -> Option<Frame<'_>> {
    let (&head, &short) = (bytes.first()?, bytes.get(1)?);
    let (start, length) = match short & 0x7f {
        126 => {
            let length: [u8; 2] = bytes.get(2..4)?.try_into().ok()?;
            (4, usize::from(u16::from_be_bytes(length)))
        }
        127 => {
            let length: [u8; 8] = bytes.get(2..10)?.try_into().ok()?;
            (10, usize::try_from(u64::from_be_bytes(length)).ok()?)
        }
        length => (2, usize::from(length)),
    };
    let size = start + length;
    let there = bytes.len().min(size);
    Some(Frame {
        opcode: head & 0x0f,
        payload: &bytes[start.min(there)..there],
        size,
        whole: there == size,
    })
}

/// A frame of a client, masked with zeros.
pub fn of_client(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | short as u8),
        length => {
            let length = u16::try_from(length).expect("a client's frame is shorter than 64 KiB");
            frame.push(0x80 | 126);
            frame.extend(length.to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}
