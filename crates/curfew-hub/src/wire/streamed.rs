//! Framing of messages in the streamed answer to an HTTP request: each message is a chunk (RFC 9112
//! §7.1). A client can thus tell the end of the answer from a broken connection.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use curfew_model::MessageKind;

use super::{Carrier, Framing};

/// The chunk that ends an answer.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Length of the longest head of a chunk: a size in hexadecimal digits, and the end of its line.
const MAX_HEAD_BYTES: usize = 10;

/// Initial room for a message. Most messages fit and need no reallocation.
const SHORT_MESSAGE_BYTES: usize = 128;

/// The bytes of a server-sent event before its message.
const EVENT_START: &[u8] = b"data: ";

/// The streamed answer to a POST request. A line feed follows each JSON message; a Protobuf message
/// begins with its length.
#[derive(Debug, Clone, Copy, Default)]
pub struct HttpStreamFraming;

/// A streamed answer of events (HTML, "Server-sent events"), for messages without line ends.
#[derive(Debug, Clone, Copy, Default)]
pub struct EventStreamFraming;

impl Framing for HttpStreamFraming {
    fn carrier(&self) -> Carrier {
        Carrier::HttpStream
    }

    fn message(
        &self,
        kind: MessageKind,
        write: &mut dyn FnMut(&mut BytesMut) -> bool,
    ) -> Option<Bytes> {
        chunk(|out| {
            let is_told = write(out);
            if kind == MessageKind::Text {
                out.put_u8(b'\n');
            }
            is_told
        })
    }

    fn content<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        behind_head(frame)
    }

    /// Empty: the protocols that this transport carries have pings of their own.
    fn ping(&self) -> Bytes {
        Bytes::new()
    }

    fn close(&self, _code: u16, _reason: &str) -> Bytes {
        Bytes::from_static(LAST_CHUNK)
    }
}

impl Framing for EventStreamFraming {
    fn carrier(&self) -> Carrier {
        Carrier::EventStream
    }

    fn message(
        &self,
        _kind: MessageKind,
        write: &mut dyn FnMut(&mut BytesMut) -> bool,
    ) -> Option<Bytes> {
        chunk(|out| {
            out.put_slice(EVENT_START);
            let is_told = write(out);
            out.put_slice(b"\n\n");
            is_told
        })
    }

    fn content<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        let event = behind_head(frame);
        event.strip_prefix(EVENT_START).unwrap_or(event)
    }

    /// A comment, which clients ignore.
    fn ping(&self) -> Bytes {
        Bytes::from_static(b"3\r\n:\n\n\r\n")
    }

    fn close(&self, _code: u16, _reason: &str) -> Bytes {
        Bytes::from_static(LAST_CHUNK)
    }
}

/// The part of a chunk behind its head: the content, and the line end after the content.
fn behind_head(chunk: &[u8]) -> &[u8] {
    let mut lines = chunk.windows(2);
    let end = lines.position(|bytes| bytes == b"\r\n");
    end.map_or(chunk, |end| &chunk[end + 2..])
}

/// A chunk with this content; `None` if `write` returns false.
fn chunk(write: impl FnOnce(&mut BytesMut) -> bool) -> Option<Bytes> {
    let mut chunk = BytesMut::with_capacity(MAX_HEAD_BYTES + SHORT_MESSAGE_BYTES);
    chunk.extend_from_slice(&[0; MAX_HEAD_BYTES]);
    if !write(&mut chunk) {
        return None;
    }
    let head = format!("{:x}\r\n", chunk.len() - MAX_HEAD_BYTES);
    // The head is written right before the content, so that the content is not moved.
    let start = MAX_HEAD_BYTES.checked_sub(head.len())?;
    chunk[start..MAX_HEAD_BYTES].copy_from_slice(head.as_bytes());
    chunk.put_slice(b"\r\n");
    chunk.advance(start);
    Some(chunk.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(framing: &dyn Framing, kind: MessageKind, content: &[u8]) -> Bytes {
        let framed = framing.message(kind, &mut |out| {
            out.put_slice(content);
            true
        });
        framed.expect("the message has a frame")
    }

    #[test]
    fn a_message_is_one_chunk() {
        let text = framed(&HttpStreamFraming, MessageKind::Text, b"{}");
        assert_eq!(&text[..], b"3\r\n{}\n\r\n");
        let bytes = framed(&HttpStreamFraming, MessageKind::Binary, b"\x01\x08");
        assert_eq!(&bytes[..], b"2\r\n\x01\x08\r\n");
        let event = framed(&EventStreamFraming, MessageKind::Text, b"{}");
        assert_eq!(&event[..], b"a\r\ndata: {}\n\n\r\n");
        let long = framed(&HttpStreamFraming, MessageKind::Binary, &[b'x'; 70_000]);
        assert_eq!(&long[..8], b"11170\r\nx");
        assert!(long.ends_with(b"x\r\n"));
        assert_eq!(&HttpStreamFraming.close(3001, "shutdown")[..], b"0\r\n\r\n");
        for (framing, frame, content) in [
            (&HttpStreamFraming as &dyn Framing, &text, &b"{}"[..]),
            (&HttpStreamFraming, &bytes, b"\x01\x08"),
            (&HttpStreamFraming, &long, &[b'x'; 70_000]),
            (&EventStreamFraming, &event, b"{}"),
        ] {
            assert!(framing.content(frame).starts_with(content));
        }
    }

    #[test]
    fn a_message_that_is_not_told_is_no_chunk() {
        for framing in [&HttpStreamFraming as &dyn Framing, &EventStreamFraming] {
            let framed = framing.message(MessageKind::Text, &mut |_| false);
            assert_eq!(framed, None);
        }
    }
}
