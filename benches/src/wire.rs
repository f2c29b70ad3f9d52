//! The parts of HTTP and WebSocket that the load generator needs.

use crate::target::Target;

/// The nonce of every handshake. A load generator needs no random nonce.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A mask of zeros, with which the payload is sent unchanged. The server's work is the same as with
/// any other mask.
const MASK: [u8; 4] = [0; 4];

/// One frame of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) opcode: u8,
    pub(crate) payload: &'a [u8],
}

/// Opcodes of RFC 6455 §5.2.
pub(crate) mod opcode {
    pub(crate) const TEXT: u8 = 1;
    pub(crate) const CLOSE: u8 = 8;
    pub(crate) const PING: u8 = 9;
    pub(crate) const PONG: u8 = 10;
}

/// The upgrade request of a connection with this token.
pub(crate) fn upgrade_request(target: &Target, token: &str) -> Vec<u8> {
    let Target { host, path, .. } = target;
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\
         Sec-WebSocket-Protocol: curfew.v1\r\nAuthorization: Bearer {token}\r\n\r\n"
    )
    .into_bytes()
}

/// The length of an HTTP response's head; `None` while the head is incomplete.
pub(crate) fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .map(|at| at + 4)
}

/// Appends a client's frame to `out`. Returns the number of bytes of the frame before its payload.
/// The payload is unchanged.
pub(crate) fn put_frame(opcode: u8, payload: &[u8], out: &mut Vec<u8>) -> usize {
    let before = out.len();
    out.push(0x80 | opcode);
    match payload.len() {
        short @ 0..=125 => out.push(0x80 | short as u8),
        middle @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend((middle as u16).to_be_bytes());
        }
        long => {
            out.push(0x80 | 127);
            out.extend((long as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    let head = out.len() - before;
    out.extend(payload);
    head
}

/// A client's text frame.
pub(crate) fn text(payload: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    put_frame(opcode::TEXT, payload.as_bytes(), &mut frame);
    frame
}

/// The first frame of `bytes` and its length; `None` while it is incomplete.
pub(crate) fn next_frame(bytes: &[u8]) -> Option<(Frame<'_>, usize)> {
    let [first, second, rest @ ..] = bytes else {
        return None;
    };
    let (head, length): (usize, usize) = match second & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes(*rest.first_chunk()?))),
        127 => (
            10,
            usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).ok()?,
        ),
        short => (2, usize::from(short)),
    };
    let end = head.checked_add(length)?;
    let payload = bytes.get(head..end)?;
    Some((
        Frame {
            opcode: first & 0x0f,
            payload,
        },
        end,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_every_length_are_found_once_they_are_whole() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let mut bytes = vec![0x81];
            match length {
                0..=125 => bytes.push(length as u8),
                126..=65_535 => {
                    bytes.push(126);
                    bytes.extend((length as u16).to_be_bytes());
                }
                _ => {
                    bytes.push(127);
                    bytes.extend((length as u64).to_be_bytes());
                }
            }
            bytes.extend(vec![b'x'; length]);
            assert_eq!(next_frame(&bytes[..bytes.len() - 1]), None, "{length}");
            bytes.push(0x8a);
            let (frame, taken) = next_frame(&bytes).unwrap();
            assert_eq!((frame.opcode, frame.payload.len()), (opcode::TEXT, length));
            assert_eq!(taken, bytes.len() - 1);
        }
    }

    #[test]
    fn a_frame_of_ours_is_masked_and_its_payload_readable() {
        let mut out = b"before".to_vec();
        let head = put_frame(opcode::TEXT, b"hello", &mut out);
        assert_eq!(out, b"before\x81\x85\0\0\0\0hello");
        assert_eq!(&out[6 + head..], b"hello");
    }
}
