//! The client's side of the handshake (RFC 6455 §4.1).

use std::future::poll_fn;
use std::pin::pin;

use bytes::{Bytes, BytesMut};
use http::header::{
    CONNECTION, HOST, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming as Body;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::client::Client;
use crate::handshake::lists;

/// Maximum number of bytes that are read from a refusal's body.
const MAX_REFUSAL_BYTES: usize = 16 * 1024;

/// The reasons that no connection was opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The host, the path or a subprotocol is not valid in a request.
    #[error("build the upgrade request")]
    Request(#[source] http::Error),
    /// The connection broke, or the peer does not speak HTTP.
    #[error("send the upgrade request and read the answer")]
    Http(#[source] hyper::Error),
    /// The server answered with a status other than 101.
    #[error("the server refused the upgrade with {status}")]
    Refused {
        /// The status of the answer.
        status: StatusCode,
        /// The headers of the answer.
        headers: HeaderMap,
        /// The body of the answer, cut to 16 KiB.
        body: Bytes,
    },
    /// The server answered with 101, but the answer violates RFC 6455 §4.2.2.
    #[error("the server's answer to the upgrade is not valid: {0}")]
    InvalidAnswer(&'static str),
}

/// Opens a WebSocket over `stream`, which is already connected. For a `wss` URL, `stream` must
/// already speak TLS. `host` is the `Host` header. It includes the port, unless the port is the
/// scheme's default. `headers` are sent in addition to the headers of the handshake.
pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    host: &str,
    path_and_query: &str,
    subprotocols: &[&str],
    headers: HeaderMap,
) -> Result<Client<S>, ConnectError> {
    let key = fastwebsockets::handshake::generate_key();
    let request = request(&key, host, path_and_query, subprotocols, headers)
        .map_err(ConnectError::Request)?;
    let (mut sender, mut connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(ConnectError::Http)?;
    let subprotocol = {
        let mut exchange = pin!(exchange(&mut sender, request, &key, subprotocols));
        let mut connected = true;
        poll_fn(|cx| {
            // The result of polling `connection` is not needed: if the connection fails,
            // `send_request` returns the error too.
            connected = connected && connection.poll_without_shutdown(cx).is_pending();
            exchange.as_mut().poll(cx)
        })
        .await?
    };
    let parts = connection.into_parts();
    Ok(Client::new(
        parts.io.into_inner(),
        subprotocol,
        &parts.read_buf,
    ))
}

/// The upgrade request.
fn request(
    key: &str,
    host: &str,
    path_and_query: &str,
    subprotocols: &[&str],
    headers: HeaderMap,
) -> Result<Request<Empty<Bytes>>, http::Error> {
    let mut request = Request::get(path_and_query)
        .header(HOST, host)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_KEY, key)
        .header(SEC_WEBSOCKET_VERSION, "13");
    if !subprotocols.is_empty() {
        let mut offered = HeaderValue::from_str(&subprotocols.join(", "))?;
        // A subprotocol may carry a bearer token (`bearer.…`), so the header value is marked as
        // sensitive.
        offered.set_sensitive(true);
        request = request.header(SEC_WEBSOCKET_PROTOCOL, offered);
    }
    let mut request = request.body(Empty::new())?;
    request.headers_mut().extend(headers);
    Ok(request)
}

/// Sends the request and checks the answer. Returns the chosen subprotocol.
async fn exchange(
    sender: &mut SendRequest<Empty<Bytes>>,
    request: Request<Empty<Bytes>>,
    key: &str,
    offered: &[&str],
) -> Result<Option<String>, ConnectError> {
    let response = sender
        .send_request(request)
        .await
        .map_err(ConnectError::Http)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refusal(response).await);
    }
    verify(response.headers(), key, offered).map_err(ConnectError::InvalidAnswer)
}

/// Reads the start of a refusal's body, and returns the refusal.
async fn refusal(response: Response<Body>) -> ConnectError {
    let (parts, mut body) = response.into_parts();
    let mut kept = BytesMut::new();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let room = MAX_REFUSAL_BYTES - kept.len();
        kept.extend_from_slice(&data[..data.len().min(room)]);
        if kept.len() == MAX_REFUSAL_BYTES {
            break;
        }
    }
    ConnectError::Refused {
        status: parts.status,
        headers: parts.headers,
        body: kept.freeze(),
    }
}

/// Checks the answer as a client must (RFC 6455 §4.1). Returns the chosen subprotocol.
fn verify(answer: &HeaderMap, key: &str, offered: &[&str]) -> Result<Option<String>, &'static str> {
    if !lists(answer, UPGRADE, b"websocket") || !lists(answer, CONNECTION, b"upgrade") {
        return Err("the server does not upgrade to WebSocket");
    }
    let accept = answer.get(SEC_WEBSOCKET_ACCEPT);
    if accept.is_none() || accept != expected_accept(key).as_ref() {
        return Err("Sec-WebSocket-Accept does not match the key");
    }
    if answer.contains_key(SEC_WEBSOCKET_EXTENSIONS) {
        return Err("the server selects an extension, but the client offered none");
    }
    let Some(chosen) = answer.get(SEC_WEBSOCKET_PROTOCOL) else {
        // The server may decline all offered subprotocols.
        return Ok(None);
    };
    match offered.iter().find(|offer| chosen == **offer) {
        Some(offer) => Ok(Some((*offer).to_owned())),
        None => Err("the server selects a subprotocol that the client did not offer"),
    }
}

/// Computes the `Sec-WebSocket-Accept` for a key, by letting the server code of fastwebsockets
/// answer a request with this key.
fn expected_accept(key: &str) -> Option<HeaderValue> {
    let request = Request::get("/")
        .header(SEC_WEBSOCKET_KEY, key)
        .header(SEC_WEBSOCKET_VERSION, "13")
        .body(())
        .ok()?;
    let (mut answer, _) = fastwebsockets::upgrade::upgrade(request).ok()?;
    answer.headers_mut().remove(SEC_WEBSOCKET_ACCEPT)
}
