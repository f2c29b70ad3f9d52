//! Answers a checked upgrade request and takes the bare socket back.
//!
//! Most of the memory of an idle connection in the usual structure is buffers that hyper and
//! fastwebsockets leave behind. Here nothing of either survives the upgrade.

use bytes::Bytes;
use fastwebsockets::WebSocketError;
use http::header::{HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use http::{Request, Response};
use http_body_util::Empty;
use hyper::upgrade::{OnUpgrade, Parts, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::{HandshakeError, Transport};

/// Why the socket could not be taken over.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The connection ended before the answer was sent.
    #[error("send the answer to the upgrade request")]
    Connection(#[source] hyper::Error),
    /// The server serves connections over something else than [`Transport`] knows.
    #[error("the connection is neither TCP nor TLS over TCP")]
    UnknownIo,
}

/// A connection whose 101 is on its way.
#[derive(Debug)]
pub struct Upgrading(OnUpgrade);

/// Prepares the 101 answer to a request that [`check`](crate::handshake::check) has passed.
/// `subprotocol` is the one chosen of those offered: nothing else of what was offered is echoed,
/// and no extension is accepted. The response must be returned to hyper, which must serve the
/// connection `with_upgrades`, before [`Upgrading::finish`] can be.
pub fn accept<B>(
    request: &mut Request<B>,
    subprotocol: Option<&str>,
) -> Result<(Response<Empty<Bytes>>, Upgrading), HandshakeError> {
    let subprotocol = subprotocol
        .map(HeaderValue::from_str)
        .transpose()
        .map_err(|_| HandshakeError::Subprotocol)?;
    // Taken before fastwebsockets does: its future would allocate a read buffer to throw away.
    let upgrading = Upgrading(hyper::upgrade::on(&mut *request));
    let (mut response, _) = fastwebsockets::upgrade::upgrade(request).map_err(|e| match e {
        WebSocketError::MissingSecWebSocketKey => HandshakeError::Key,
        _ => HandshakeError::Version,
    })?;
    if let Some(subprotocol) = subprotocol {
        response
            .headers_mut()
            .insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    Ok((response, upgrading))
}

impl Upgrading {
    /// Waits until the answer is sent, then hands over the socket with the bytes that had come
    /// behind the request. They are the first of the WebSocket and must be decoded before the
    /// first read. The wait is as long as the peer takes to read the answer: bound it.
    pub async fn finish(self) -> Result<(Transport, Bytes), UpgradeError> {
        let upgraded = self.0.await.map_err(UpgradeError::Connection)?;
        let (transport, early) = take_plain(upgraded)
            .or_else(take_tls)
            .map_err(|_| UpgradeError::UnknownIo)?;
        // Copied, for a slice would keep hyper's whole buffer alive; an empty one as well.
        Ok((transport, Bytes::copy_from_slice(&early)))
    }
}

fn take_plain(upgraded: Upgraded) -> Result<(Transport, Bytes), Upgraded> {
    let Parts { io, read_buf, .. } = upgraded.downcast::<TokioIo<TcpStream>>()?;
    Ok((Transport::Plain(io.into_inner()), read_buf))
}

fn take_tls(upgraded: Upgraded) -> Result<(Transport, Bytes), Upgraded> {
    let Parts { io, read_buf, .. } = upgraded.downcast::<TokioIo<TlsStream<TcpStream>>>()?;
    Ok((Transport::Tls(Box::new(io.into_inner())), read_buf))
}
