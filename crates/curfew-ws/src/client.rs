//! A small WebSocket client, for `curfew connect` and for tests.
//!
//! One value, one task, no lock. [`Client::next`] may be dropped at any point, for example by
//! losing in a `select!` against a line from the keyboard: bytes that were read stay in the
//! decoder, bytes that were to be written stay in the queue.

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

/// A server is trusted with more than a client is.
const LIMITS: Limits = Limits {
    message_bytes: 16 * 1024 * 1024,
    fragments: 64 * 1024,
};

/// Room for the head of a frame, as fastwebsockets wants it.
const HEAD_ROOM_BYTES: usize = 16;

/// Why the connection cannot be used any further.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection broke.
    #[error("the connection broke")]
    Io(#[from] io::Error),
    /// The server broke the framing. A close frame is on its way.
    #[error("the server broke the protocol: {0}")]
    Protocol(#[from] ProtocolError),
    /// The connection ended, or a close frame was sent and nothing may follow it.
    #[error("the connection has ended")]
    Ended,
}

/// What a server sent.
#[derive(Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// A ping; it is answered already.
    Ping(Vec<u8>),
    /// A pong.
    Pong(Vec<u8>),
    /// The server closes; the close is answered already. After it comes [`ClientError::Ended`].
    Close {
        /// Its code, if it gave one.
        code: Option<u16>,
        /// Its reason, or nothing.
        reason: String,
    },
}

impl fmt::Debug for Incoming {
    /// Contents never reach a log.
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
    /// Frames to be written, masked.
    outgoing: BytesMut,
    subprotocol: Option<String>,
    /// Our close frame is in `outgoing` or beyond.
    close_sent: bool,
    /// The server has closed or broken the protocol: nothing of it is read any more.
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
    /// `early` came behind the server's answer.
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

    /// The subprotocol the server chose.
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }

    /// The next frame or message. Pings and a close are answered on the way. May be dropped and
    /// called again: nothing is lost.
    pub async fn next(&mut self) -> Result<Incoming, ClientError> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Sends a text message. If dropped, it is sent with the next call.
    pub async fn send_text(&mut self, text: &str) -> Result<(), ClientError> {
        self.send(Opcode::Text, text.as_bytes()).await
    }

    /// Sends a binary message. If dropped, it is sent with the next call.
    pub async fn send_binary(&mut self, data: &[u8]) -> Result<(), ClientError> {
        self.send(Opcode::Binary, data).await
    }

    /// Sends a ping; `payload` is cut to 125 bytes. If dropped, it is sent with the next call.
    pub async fn ping(&mut self, payload: &[u8]) -> Result<(), ClientError> {
        self.send(Opcode::Ping, cut(payload)).await
    }

    /// Sends a close frame. The server answers with its own, which [`Client::next`] returns.
    pub async fn close(&mut self, code: u16, reason: &str) -> Result<(), ClientError> {
        if self.close_sent {
            return Err(ClientError::Ended);
        }
        self.push_close(Some(code), reason);
        self.flush().await
    }

    async fn send(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), ClientError> {
        if self.close_sent {
            return Err(ClientError::Ended);
        }
        self.push(opcode, payload);
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), ClientError> {
        Ok(poll_fn(|cx| self.poll_flush(cx)).await?)
    }

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

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Incoming, ClientError>> {
        let mut decoded = self.decode(Input::empty());
        loop {
            // What the server has said already counts more than that it no longer listens.
            if let Poll::Ready(Err(_)) = self.poll_flush(cx) {
                self.outgoing.clear();
            }
            if let Some(next) = decoded.transpose() {
                return Poll::Ready(next);
            }
            if self.close_received {
                return Poll::Ready(Err(ClientError::Ended));
            }
            decoded = ready!(self.poll_read(cx));
        }
    }

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

    /// Takes one event off what was read, keeps the rest, and queues the answer it calls for.
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
