//! Answers a checked upgrade request, and takes the bare socket back from hyper.
//!
//! In a usual server, buffers of hyper and fastwebsockets take most of the memory of an idle
//! connection. In this crate, none of these buffers outlives the upgrade.
//!
//! The answer that hyper writes is held back, and is sent together with the first frames. This
//! saves one system call, one packet and one wake-up of the client for each connection. A refused
//! client receives the answer, the reason and the close in one piece.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use fastwebsockets::WebSocketError;
use http::header::{HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use http::{Request, Response};
use http_body_util::Empty;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{HandshakeError, Transport};

/// Prepares the 101 answer to a request that [`check`](crate::handshake::check) has passed.
/// `subprotocol` is the chosen subprotocol. Nothing else that the client offered is echoed, and no
/// extension is accepted.
///
/// The caller must serve the connection through a [`DeferredResponse`], and
/// [defer](DeferSwitch::defer) its writes before it returns the answer to hyper. The caller must
/// take the connection back from hyper without a shutdown.
pub fn accept<B>(
    request: &mut Request<B>,
    subprotocol: Option<&str>,
) -> Result<Response<Empty<Bytes>>, HandshakeError> {
    let subprotocol = subprotocol
        .map(HeaderValue::from_str)
        .transpose()
        .map_err(|_| HandshakeError::Subprotocol)?;
    // The second value is the future of an upgrade by hyper itself, which is not used here.
    let (mut response, _) = fastwebsockets::upgrade::upgrade(request).map_err(|e| match e {
        WebSocketError::MissingSecWebSocketKey => HandshakeError::Key,
        _ => HandshakeError::Version,
    })?;
    if let Some(subprotocol) = subprotocol {
        response
            .headers_mut()
            .insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    Ok(response)
}

/// Determines if a [`DeferredResponse`] passes writes on or holds them back.
///
/// Between two requests, input that cannot be parsed is answered by hyper itself, without a body
/// and without a call of our code. This answer of hyper is held back, so that the caller can
/// replace it.
#[derive(Debug, Clone, Default)]
pub struct DeferSwitch(Arc<AtomicU8>);

/// Writes are passed on.
const PASS: u8 = 0;

/// Writes are held back.
const DEFER: u8 = 1;

/// Writes are passed on until a flush, and held back after it.
const PASS_UNTIL_FLUSHED: u8 = 2;

impl DeferSwitch {
    /// Holds back every write from now on. The next write is the answer to the upgrade, or hyper's
    /// own answer to input that it cannot parse.
    pub fn defer(&self) {
        self.0.store(DEFER, Ordering::Release);
    }

    /// Passes on every write from now on, because a request is being answered.
    pub fn pass(&self) {
        self.0.store(PASS, Ordering::Release);
    }

    /// Holds back writes after the next flush, which ends the current answer. Has no effect if
    /// writes are already held back.
    pub fn defer_once_flushed(&self) {
        // The change starts only from `PASS`, so the answer to an upgrade stays held back.
        self.advance(PASS, PASS_UNTIL_FLUSHED);
    }

    /// True while writes are held back.
    fn defers(&self) -> bool {
        self.0.load(Ordering::Acquire) == DEFER
    }

    /// Changes the state from `from` to `to`. Has no effect in any other state.
    fn advance(&self, from: u8, to: u8) {
        self.0
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .ok();
    }
}

/// The stream on which hyper serves a connection. It can hold back the bytes that hyper writes.
#[derive(Debug)]
pub struct DeferredResponse<S> {
    stream: S,
    /// Bytes that were read from the stream before hyper started, and that hyper has not received
    /// yet.
    ahead: Bytes,
    switch: DeferSwitch,
    /// The bytes of the writes that were held back.
    answer: Vec<u8>,
}

/// A connection that has become a WebSocket.
#[derive(Debug)]
pub struct Upgraded {
    /// The bare socket.
    pub transport: Transport,
    /// The HTTP answer, which must be written before any frame.
    pub answer: Bytes,
    /// The bytes that the client sent after its request. They are the first bytes of the WebSocket,
    /// and must be decoded before the first read.
    pub early: Bytes,
}

impl<S> DeferredResponse<S> {
    /// Passes all writes on until `switch` changes. `ahead` holds bytes that were already read from
    /// the stream.
    pub fn new(stream: S, ahead: Bytes, switch: DeferSwitch) -> Self {
        Self {
            stream,
            ahead,
            switch,
            answer: Vec::new(),
        }
    }

    /// Takes the socket back after hyper has finished. `read` holds the bytes that hyper read and
    /// did not use.
    pub fn finish(self, read: &[u8]) -> Upgraded
    where
        S: Into<Transport>,
    {
        Upgraded {
            transport: self.stream.into(),
            answer: self.answer.into(),
            // The bytes are copied, because even an empty slice would keep hyper's whole buffer
            // alive.
            early: [read, &self.ahead].concat().into(),
        }
    }

    /// Returns the stream. Data that is held back is dropped.
    pub fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for DeferredResponse<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let length = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.ahead.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for DeferredResponse<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.switch.defers() {
            return Pin::new(&mut self.stream).poll_write(cx, bytes);
        }
        self.answer.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.switch.defers() {
            return Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        }
        for slice in slices {
            self.answer.extend_from_slice(slice);
        }
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if let Poll::Ready(Ok(())) = flushed {
            // The state changes only here, because the current answer is now completely sent.
            self.switch.advance(PASS_UNTIL_FLUSHED, DEFER);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
