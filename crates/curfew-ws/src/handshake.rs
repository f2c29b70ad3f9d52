//! What an upgrade request must be: RFC 6455 §4.2.1, and no more than that.
//!
//! Origin and subprotocols are read here and judged by the caller.

use std::fmt;

use http::header::{
    ALLOW, CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::Authority;
use http::{Method, Request, StatusCode, Version};
use hyper::body::Body;

/// What a request offers beyond being a valid upgrade request.
#[derive(Clone, PartialEq, Eq)]
pub struct Handshake {
    /// `Sec-WebSocket-Protocol`: the tokens offered, in order. One may hold a secret.
    pub subprotocols: Vec<String>,
    /// `Origin`, as sent: visible ASCII.
    pub origin: Option<String>,
}

impl fmt::Debug for Handshake {
    /// A subprotocol may be a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake")
            .field("subprotocols", &self.subprotocols.len())
            .field("origin", &self.origin)
            .finish()
    }
}

/// Why a request is not a valid upgrade request. The message may be told to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// 405.
    #[error("a WebSocket upgrade is a GET request")]
    Method,
    /// 505.
    #[error("a WebSocket upgrade needs HTTP/1.1; behind a proxy, set its upstream HTTP version")]
    HttpVersion,
    /// Missing, repeated or no host.
    #[error("exactly one Host header with a host and an optional port is required")]
    Host,
    /// 426: any other request to this path.
    #[error(
        "this is a WebSocket endpoint: send Upgrade: websocket; behind a proxy, let it pass the header on"
    )]
    NotAnUpgrade,
    /// Stripped by a proxy, most often.
    #[error(
        "Connection: upgrade is missing beside Upgrade: websocket; behind a proxy, let it pass the header on"
    )]
    Connection,
    /// Missing, repeated or not 16 bytes.
    #[error("exactly one Sec-WebSocket-Key of 16 bytes in base64 is required")]
    Key,
    /// 426.
    #[error("exactly one Sec-WebSocket-Version: 13 is required")]
    Version,
    /// A body, or a head that announces one.
    #[error(
        "a WebSocket upgrade has no body: send neither Transfer-Encoding nor a Content-Length other than 0"
    )]
    Body,
    /// Repeated or not visible ASCII.
    #[error("at most one Origin header of visible ASCII is allowed")]
    Origin,
    /// Not a list of tokens.
    #[error("Sec-WebSocket-Protocol must be a list of tokens separated by commas")]
    Subprotocol,
}

impl HandshakeError {
    /// The status to answer with.
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

    /// The headers the status calls for.
    pub fn headers(self) -> Vec<(HeaderName, HeaderValue)> {
        let upgrade = (UPGRADE, HeaderValue::from_static("websocket"));
        // RFC 9110 §7.8: a sender of Upgrade says so in Connection.
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

    /// Its name in metrics, one for all: what was wrong in detail is the client's affair.
    pub fn reason(self) -> &'static str {
        "bad_request"
    }
}

/// Checks a request against RFC 6455 §4.2.1 and reads what it offers. Linear in the size of the
/// head; no byte in it makes it panic.
pub fn check<B: Body>(request: &Request<B>) -> Result<Handshake, HandshakeError> {
    let headers = request.headers();
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return Err(HandshakeError::Method);
    }
    if request.version() != Version::HTTP_11 {
        return Err(HandshakeError::HttpVersion);
    }
    // Before all the rest: bytes that follow a request with a body are not WebSocket frames.
    if !request.body().is_end_stream() || announces_body(headers) {
        return Err(HandshakeError::Body);
    }
    if !single(headers, HOST).is_some_and(is_host) {
        return Err(HandshakeError::Host);
    }
    // HEAD is answered as the GET that is no upgrade.
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

/// Checks `Host` of any request (RFC 9112 §3.2): exactly one with a host, and of HTTP/1.0 at most one.
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

/// Whether `header`, over all its lines, lists `token`.
pub(crate) fn lists(headers: &HeaderMap, header: HeaderName, token: &[u8]) -> bool {
    headers
        .get_all(header)
        .iter()
        .flat_map(elements)
        .any(|element| element.eq_ignore_ascii_case(token))
}

/// The value of a header that is there exactly once.
fn single(headers: &HeaderMap, header: HeaderName) -> Option<&[u8]> {
    let mut values = headers.get_all(header).iter();
    let value = values.next()?;
    values.next().is_none().then(|| value.as_bytes())
}

/// The elements of a comma-separated header, the empty ones left out.
fn elements(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value
        .as_bytes()
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}

fn announces_body(headers: &HeaderMap) -> bool {
    let zero = |value: &HeaderValue| {
        let value = value.as_bytes();
        !value.is_empty() && value.iter().all(|byte| *byte == b'0')
    };
    headers.contains_key(TRANSFER_ENCODING) || !headers.get_all(CONTENT_LENGTH).iter().all(zero)
}

fn is_host(value: &[u8]) -> bool {
    let Ok(authority) = Authority::try_from(value) else {
        return false;
    };
    let (text, host) = (authority.as_str(), authority.host());
    let port = text.len() == host.len() || text.ends_with(':') || authority.port().is_some();
    !host.is_empty() && port && !text.contains('@')
}

/// 16 bytes are 22 characters and two of padding.
fn is_key(value: &[u8]) -> bool {
    value.strip_suffix(b"==").is_some_and(|digits| {
        digits.len() == 22
            && digits
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(byte))
    })
}

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

/// `tchar` of RFC 9110 §5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// `Origin`, as sent: visible ASCII. `None` when there is none.
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
