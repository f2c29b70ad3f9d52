//! A small WebSocket client, for `curfew connect` and for tests.
//!
//! The client is one value in one task, without locks. The future of [`Client::next`] may be
//! dropped at any point, for example when keyboard input wins a `select!`. Bytes that were read
//! stay in the decoder, and bytes that must be written stay in the queue.

mod connect;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use curfew_model::Message;
use fastwebsockets::{Frame, Payload};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::decoder::{Decoder, Input, Limits};
use crate::frame::{Opcode, cut, cut_reason};
use crate::{Event, ProtocolError, with_read_buffer};

pub use connect::{ConnectError, connect};

/// Limits for the server's messages. They are higher than the limits for a client's messages,
/// because the user has chosen the server and trusts it.
const LIMITS: Limits = Limits {
    message_bytes: 16 * 1024 * 1024,
    fragments: 64 * 1024,
};

/// Space for the head of a frame, in bytes, as fastwebsockets requires.
const HEAD_ROOM_BYTES: usize = 16;

/// The reasons that the connection cannot be used any more.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection broke.
    #[error("the connection broke")]
    Io(#[from] io::Error),
    /// The server broke the protocol. A close frame is queued.
    #[error("the server broke the protocol: {0}")]
    Protocol(#[from] ProtocolError),
    /// The connection has ended, or nothing may be sent any more because a close frame was sent.
    #[error("the connection has ended")]
    Ended,
}

/// A message or control frame from the server.
#[derive(Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// A ping. Its pong is queued already.
    Ping(Vec<u8>),
    /// A pong.
    Pong(Vec<u8>),
    /// The server closes the connection. The answering close frame is queued, and the next result
    /// is [`ClientError::Ended`].
    Close {
        /// The close code, if there is one.
        code: Option<u16>,
        /// The reason; may be empty.
        reason: String,
    },
}

impl fmt::Debug for Incoming {
    /// Prints sizes only: contents never reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Binary(data) => write!(f, "Binary({} bytes)", data.len()),
            Self::Ping(data) => write!(f, "Ping({} bytes)", data.len()),
            Self::Pong(data) => write!(f, "Pong({} bytes)", data.len()),
            Self::Close { code, .. } => write!(f, "Close({code:?})"),
        }
    }
}

/// An open connection to a server.
pub struct Client<S> {
    stream: S,
    decoder: Decoder,
    /// Masked frames that are yet to be written.
    outgoing: BytesMut,
    subprotocol: Option<String>,
    /// True once the client's own close frame is queued.
    close_sent: bool,
    /// True once the server has closed the connection or broken the protocol. Nothing more is read
    /// then.
    close_received: bool,
}

impl<S> fmt::Debug for Client<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("subprotocol", &self.subprotocol)
            .field("outgoing_bytes", &self.outgoing.len())
            .field("close_sent", &self.close_sent)
            .finish_non_exhaustive()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Creates a client. `early` holds the bytes that came after the head of the server's answer.
    fn new(stream: S, subprotocol: Option<String>, early: &[u8]) -> Self {
        let mut decoder = Decoder::of_server();
        decoder.preload(early);
        Self {
            stream,
            decoder,
            outgoing: BytesMut::new(),
            subprotocol,
            close_sent: false,
            close_received: false,
        }
    }

    /// The subprotocol that the server chose.
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }

    /// Returns the next message or control frame. The method also answers pings and closes. It is
    /// cancel-safe: its future may be dropped without loss.
    pub async fn next(&mut self) -> Result<Incoming, ClientError> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Sends a text message. If the future is dropped, the message stays queued and is sent with
    /// the next call.
    pub async fn send_text(&mut self, text: &str) -> Result<(), ClientError> {
        self.send(Opcode::Text, text.as_bytes()).await
    }

    /// Sends a binary message. If the future is dropped, the message stays queued and is sent with
    /// the next call.
    pub async fn send_binary(&mut self, data: &[u8]) -> Result<(), ClientError> {
        self.send(Opcode::Binary, data).await
    }

    /// Sends a ping. `payload` is cut to 125 bytes. If the future is dropped, the ping stays queued
    /// and is sent with the next call.
    pub async fn ping(&mut self, payload: &[u8]) -> Result<(), ClientError> {
        self.send(Opcode::Ping, cut(payload)).await
    }

    /// Sends a close frame. [`Client::next`] returns the close frame that the server answers with.
    pub async fn close(&mut self, code: u16, reason: &str) -> Result<(), ClientError> {
        if self.close_sent {
            // Nothing may follow a close frame (RFC 6455 §5.5.1).
            return Err(ClientError::Ended);
        }
        self.push_close(Some(code), reason);
        self.flush().await
    }

    /// Sends a message or a ping.
    async fn send(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), ClientError> {
        if self.close_sent {
            // Nothing may follow a close frame (RFC 6455 §5.5.1).
            return Err(ClientError::Ended);
        }
        self.push(opcode, payload);
        self.flush().await
    }

    /// Writes all queued frames.
    async fn flush(&mut self) -> Result<(), ClientError> {
        Ok(poll_fn(|cx| self.poll_flush(cx)).await?)
    }

    /// Writes as much of the queue as the stream accepts.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.outgoing.has_remaining() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.outgoing))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.advance(written);
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Returns the next event. Reads and writes as needed.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Incoming, ClientError>> {
        let mut decoded = self.decode(Input::empty());
        loop {
            // A failed write must not hide messages that arrived before the failure.
            if let Poll::Ready(Err(_)) = self.poll_flush(cx) {
                self.outgoing.clear();
            }
            if let Some(next) = decoded.transpose() {
                // Decoded events are returned first, because they arrived before the end of the
                // stream.
                return Poll::Ready(next);
            }
            if self.close_received {
                return Poll::Ready(Err(ClientError::Ended));
            }
            decoded = ready!(self.poll_read(cx));
        }
    }

    /// Reads once, and decodes the first event of the bytes that were read.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Incoming>, ClientError>> {
        with_read_buffer(|buffer| {
            let mut read = ReadBuf::new(buffer);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Err(ClientError::Ended));
            }
            Poll::Ready(self.decode(Input::new(read.filled_mut())))
        })
    }

    /// Decodes one event and stores the rest of the input. Queues an answer if the event needs one.
    fn decode(&mut self, mut input: Input<'_>) -> Result<Option<Incoming>, ClientError> {
        let incoming = match self.decoder.next(&mut input, &LIMITS) {
            Ok(Some(event)) => Incoming::from(event),
            Ok(None) => return Ok(None),
            Err(error) => {
                self.push_close(Some(error.disconnect().code), "");
                self.close_received = true;
                return Err(error.into());
            }
        };
        self.decoder.save(input);
        match &incoming {
            Incoming::Ping(payload) if !self.close_sent => self.push(Opcode::Pong, payload),
            Incoming::Close { code, .. } => {
                self.push_close(*code, "");
                self.close_received = true;
            }
            _ => {}
        }
        Ok(Some(incoming))
    }

    /// Queues the client's own close frame, unless it is queued already.
    fn push_close(&mut self, code: Option<u16>, reason: &str) {
        if self.close_sent {
            return;
        }
        let mut payload = Vec::new();
        if let Some(code) = code {
            payload.extend_from_slice(&code.to_be_bytes());
            payload.extend_from_slice(cut_reason(reason).as_bytes());
        }
        self.push(Opcode::Close, &payload);
        self.close_sent = true;
    }

    /// Queues a masked frame.
    fn push(&mut self, opcode: Opcode, payload: &[u8]) {
        let payload = Payload::Owned(payload.to_vec());
        let mut frame = Frame::new(true, opcode.on_the_wire(), None, payload);
        frame.mask();
        let mut head = [0; HEAD_ROOM_BYTES];
        let head_bytes = frame.fmt_head(&mut head);
        self.outgoing.extend_from_slice(&head[..head_bytes]);
        self.outgoing.extend_from_slice(&frame.payload);
    }
}

impl From<Event<'_>> for Incoming {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Message(Message::Text(text)) => Self::Text(text.to_owned()),
            Event::Message(Message::Binary(data)) => Self::Binary(data.to_vec()),
            Event::Ping(payload) => Self::Ping(payload.to_vec()),
            Event::Pong(payload) => Self::Pong(payload.to_vec()),
            Event::Close { code, reason } => Self::Close {
                code,
                reason: reason.to_owned(),
            },
        }
    }
}
