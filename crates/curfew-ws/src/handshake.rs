//! Checks an upgrade request against RFC 6455 §4.2.1, and against no other rules.
//!
//! The origin and the subprotocols are only parsed here. The caller decides which origins and
//! subprotocols it accepts.

use std::fmt;

use http::header::{
    ALLOW, CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::Authority;
use http::{Method, Request, StatusCode, Version};
use hyper::body::Body;

/// The offers of a valid upgrade request.
#[derive(Clone, PartialEq, Eq)]
pub struct Handshake {
    /// The subprotocols offered in `Sec-WebSocket-Protocol`, in order. One of them may hold a
    /// secret.
    pub subprotocols: Vec<String>,
    /// The `Origin` header as sent: visible ASCII.
    pub origin: Option<String>,
}

impl fmt::Debug for Handshake {
    /// Prints only the number of subprotocols, because a subprotocol may be a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake")
            .field("subprotocols", &self.subprotocols.len())
            .field("origin", &self.origin)
            .finish()
    }
}

/// The reasons that a request is not a valid upgrade request. The client may see the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The method is neither GET nor HEAD; status 405.
    #[error("a WebSocket upgrade must be a GET request")]
    Method,
    /// The HTTP version is not 1.1; status 505.
    #[error(
        "a WebSocket upgrade needs HTTP/1.1; behind a proxy, set the proxy's HTTP version to the node to 1.1"
    )]
    HttpVersion,
    /// The host is missing, repeated or invalid.
    #[error("exactly one Host header with a host and an optional port is required")]
    Host,
    /// Status 426: the request is not an upgrade.
    #[error(
        "this is a WebSocket endpoint: send Upgrade: websocket; behind a proxy, make the proxy pass the Upgrade header on"
    )]
    NotAnUpgrade,
    /// `Connection` does not list `upgrade`, usually because a proxy removed the header.
    #[error(
        "Connection: upgrade is missing beside Upgrade: websocket; behind a proxy, make the proxy pass the Connection header on"
    )]
    Connection,
    /// The key is missing or repeated, or does not have 16 bytes.
    #[error("exactly one Sec-WebSocket-Key of 16 bytes in base64 is required")]
    Key,
    /// The WebSocket version is missing, repeated or not 13; status 426.
    #[error("exactly one Sec-WebSocket-Version: 13 is required")]
    Version,
    /// The request has a body, or its head announces a body.
    #[error(
        "a WebSocket upgrade has no body: send neither Transfer-Encoding nor a Content-Length other than 0"
    )]
    Body,
    /// The origin is repeated or not visible ASCII.
    #[error("at most one Origin header of visible ASCII is allowed")]
    Origin,
    /// `Sec-WebSocket-Protocol` is not a list of tokens.
    #[error("Sec-WebSocket-Protocol must be a list of tokens separated by commas")]
    Subprotocol,
}

impl HandshakeError {
    /// The status of the answer.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::HttpVersion => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::NotAnUpgrade | Self::Version => StatusCode::UPGRADE_REQUIRED,
            Self::Host
            | Self::Connection
            | Self::Key
            | Self::Body
            | Self::Origin
            | Self::Subprotocol => StatusCode::BAD_REQUEST,
        }
    }

    /// The headers that an answer with this status must have.
    pub fn headers(self) -> Vec<(HeaderName, HeaderValue)> {
        let upgrade = (UPGRADE, HeaderValue::from_static("websocket"));
        // RFC 9110 §7.8: a sender of `Upgrade` lists `upgrade` in `Connection`.
        let connection = (CONNECTION, HeaderValue::from_static("upgrade"));
        match self {
            Self::Method => vec![(ALLOW, HeaderValue::from_static("GET, HEAD"))],
            Self::NotAnUpgrade => vec![connection, upgrade],
            Self::Version => vec![
                connection,
                upgrade,
                (SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
            ],
            Self::HttpVersion
            | Self::Host
            | Self::Connection
            | Self::Key
            | Self::Body
            | Self::Origin
            | Self::Subprotocol => Vec::new(),
        }
    }

    /// The reason in metrics. It is the same for all errors, because the details concern only the
    /// client.
    pub fn reason(self) -> &'static str {
        "bad_request"
    }
}

/// Checks a request against RFC 6455 §4.2.1 and returns its offers. The check takes time linear in
/// the size of the head, and never panics.
///
/// # Errors
///
/// The error is the first rule that the request breaks.
pub fn check<B: Body>(request: &Request<B>) -> Result<Handshake, HandshakeError> {
    let headers = request.headers();
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return Err(HandshakeError::Method);
    }
    if request.version() != Version::HTTP_11 {
        // RFC 6455 §4.1 requires HTTP/1.1 at least, and HTTP/2 has no `Upgrade` header.
        return Err(HandshakeError::HttpVersion);
    }
    // The body is checked before the headers of the upgrade, because otherwise its bytes would be
    // decoded as WebSocket frames.
    if !request.body().is_end_stream() || announces_body(headers) {
        return Err(HandshakeError::Body);
    }
    if !single(headers, HOST).is_some_and(is_host) {
        return Err(HandshakeError::Host);
    }
    // HEAD is answered like a GET request that is not an upgrade.
    if request.method() == Method::HEAD || !lists(headers, UPGRADE, b"websocket") {
        return Err(HandshakeError::NotAnUpgrade);
    }
    if !lists(headers, CONNECTION, b"upgrade") {
        return Err(HandshakeError::Connection);
    }
    if single(headers, SEC_WEBSOCKET_VERSION) != Some(b"13") {
        return Err(HandshakeError::Version);
    }
    if !single(headers, SEC_WEBSOCKET_KEY).is_some_and(is_key) {
        return Err(HandshakeError::Key);
    }
    Ok(Handshake {
        subprotocols: subprotocols(headers)?,
        origin: origin(headers)?,
    })
}

/// Checks the `Host` header of any request (RFC 9112 §3.2). Exactly one header with a valid host is
/// required, except that the header may be absent in HTTP/1.0.
///
/// # Errors
///
/// [`HandshakeError::Host`].
pub fn check_host<B>(request: &Request<B>) -> Result<(), HandshakeError> {
    let headers = request.headers();
    let absent = request.version() < Version::HTTP_11 && !headers.contains_key(HOST);
    match absent || single(headers, HOST).is_some_and(is_host) {
        true => Ok(()),
        false => Err(HandshakeError::Host),
    }
}

/// True if any line of `header` lists `token`, in upper or lower case.
pub(crate) fn lists(headers: &HeaderMap, header: HeaderName, token: &[u8]) -> bool {
    headers
        .get_all(header)
        .iter()
        .flat_map(elements)
        .any(|element| element.eq_ignore_ascii_case(token))
}

/// The value of a header that occurs exactly once.
fn single(headers: &HeaderMap, header: HeaderName) -> Option<&[u8]> {
    let mut values = headers.get_all(header).iter();
    let value = values.next()?;
    values.next().is_none().then(|| value.as_bytes())
}

/// The non-empty elements of a comma-separated header.
fn elements(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value
        .as_bytes()
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}

/// True if the head announces a body. A `Content-Length` of 0 announces no body.
fn announces_body(headers: &HeaderMap) -> bool {
    let zero = |value: &HeaderValue| {
        let value = value.as_bytes();
        !value.is_empty() && value.iter().all(|byte| *byte == b'0')
    };
    headers.contains_key(TRANSFER_ENCODING) || !headers.get_all(CONTENT_LENGTH).iter().all(zero)
}

/// True for a host with an optional port, and without a user name.
fn is_host(value: &[u8]) -> bool {
    let Ok(authority) = Authority::try_from(value) else {
        return false;
    };
    let (text, host) = (authority.as_str(), authority.host());
    let port = text.len() == host.len() || text.ends_with(':') || authority.port().is_some();
    !host.is_empty() && port && !text.contains('@')
}

/// True for the base64 of 16 bytes: 22 characters and two padding characters.
fn is_key(value: &[u8]) -> bool {
    value.strip_suffix(b"==").is_some_and(|digits| {
        digits.len() == 22
            && digits
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(byte))
    })
}

/// The subprotocols offered, in order, over all lines of the header.
fn subprotocols(headers: &HeaderMap) -> Result<Vec<String>, HandshakeError> {
    headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .flat_map(elements)
        .map(|element| {
            if !element.iter().all(|byte| is_token_byte(*byte)) {
                return Err(HandshakeError::Subprotocol);
            }
            String::from_utf8(element.to_vec()).map_err(|_| HandshakeError::Subprotocol)
        })
        .collect()
}

/// True for a `tchar` of RFC 9110 §5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The `Origin` header as sent: visible ASCII. `None` if the header is absent.
///
/// # Errors
///
/// [`HandshakeError::Origin`].
pub fn origin(headers: &HeaderMap) -> Result<Option<String>, HandshakeError> {
    if !headers.contains_key(ORIGIN) {
        return Ok(None);
    }
    single(headers, ORIGIN)
        .filter(|value| value.iter().all(u8::is_ascii_graphic))
        .and_then(|value| String::from_utf8(value.to_vec()).ok())
        .map(Some)
        .ok_or(HandshakeError::Origin)
}

#[cfg(test)]
mod tests;
