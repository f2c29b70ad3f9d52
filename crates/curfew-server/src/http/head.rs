//! The faults of a request's head, and the answer to each fault.
//!
//! hyper answers an unreadable head with a status and no body. That answer is held back
//! (`curfew-ws/src/upgrade.rs`), and an answer from this file is sent instead.

use curfew_session::LimitsConfig;
use http::StatusCode;

use super::Problem;
use crate::metrics::RejectReason;

/// Maximum length of the target of a request, in bytes. hyper refuses longer targets.
const MAX_TARGET_BYTES: usize = 65_534;

/// The first line of every HTTP/2 connection.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// The beginning of every TLS connection: the record type 22 (handshake) and the major version 3.
const TLS_HANDSHAKE: &[u8] = &[22, 3];

/// The beginnings of a header of the PROXY protocol, in version 1 and in version 2 (§2.1 and §2.2
/// of its specification).
const PROXY_HEADERS: [&[u8]; 2] = [b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"];

/// The limits for the head of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// `limits.head_bytes`.
    pub(crate) bytes: usize,
    /// `limits.headers`.
    pub(crate) headers: usize,
}

impl From<&LimitsConfig> for Bounds {
    fn from(limits: &LimitsConfig) -> Self {
        Self {
            bytes: limits.head_bytes,
            headers: limits.headers,
        }
    }
}

/// The reasons that a connection's bytes are not read as the head of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadFault {
    /// The head has more bytes than `limits.head_bytes`.
    TooLarge,
    /// The request's target has more than [`MAX_TARGET_BYTES`] bytes.
    LongTarget,
    /// The head has more headers than `limits.headers`.
    TooManyHeaders,
    /// The bytes are the preface of HTTP/2.
    Http2,
    /// The bytes are the beginning of a TLS connection.
    Tls,
    /// The connection ended within the head.
    Incomplete,
    /// The head did not arrive in time.
    Late,
    /// The bytes are a load balancer's PROXY header.
    Proxy,
    /// The request has a version of HTTP other than 1.0 and 1.1.
    Version,
    /// The headers that determine the body's length are invalid or contradict each other.
    Framing,
    /// The bytes are not HTTP/1.1.
    Malformed,
}

impl HeadFault {
    /// Returns the fault that caused hyper's `error`. `read` has the bytes that hyper has received
    /// and not discarded. The result is `None` if the connection was lost, or ended or timed out
    /// before a request began.
    pub(crate) fn of(error: &hyper::Error, read: &[u8], bounds: Bounds) -> Option<Self> {
        if error.is_timeout() {
            return (!read.is_empty()).then_some(Self::Late);
        }
        if error.is_incomplete_message() {
            return (!read.is_empty()).then_some(Self::Incomplete);
        }
        if !error.is_parse() {
            return None;
        }
        let fault = Self::of_bytes(read, bounds, error.is_parse_too_large());
        match fault {
            // hyper may have discarded the bytes of the head, but its error text still names the
            // fault.
            Self::Malformed => Some(Self::named(&error.to_string())),
            fault => Some(fault),
        }
    }

    /// Returns the fault that hyper's error text `words` names.
    fn named(words: &str) -> Self {
        if words.contains("content-length") || words.contains("transfer-encoding") {
            Self::Framing
        } else if words.contains("HTTP version") {
            Self::Version
        } else {
            Self::Malformed
        }
    }

    fn of_bytes(read: &[u8], bounds: Bounds, too_large: bool) -> Self {
        if read.starts_with(HTTP2_PREFACE) {
            Self::Http2
        } else if read.starts_with(TLS_HANDSHAKE) {
            Self::Tls
        } else if PROXY_HEADERS.iter().any(|begin| read.starts_with(begin)) {
            Self::Proxy
        } else if !too_large {
            Self::Malformed
        } else if headers(read) > bounds.headers {
            Self::TooManyHeaders
        } else if target(read).len() <= MAX_TARGET_BYTES {
            Self::TooLarge
        } else {
            Self::LongTarget
        }
    }

    /// Returns the answer to the fault.
    pub(crate) fn problem(self, bounds: Bounds) -> Problem {
        let too_large = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        match self {
            Self::TooLarge => Problem::new(
                too_large,
                "head_too_large",
                format!(
                    "the head of the request has more than {} bytes (limits.head_bytes)",
                    bounds.bytes
                ),
            ),
            Self::LongTarget => Problem::new(
                StatusCode::URI_TOO_LONG,
                "head_too_large",
                format!(
                    "the address has more than {MAX_TARGET_BYTES} bytes: send a long token in the Authorization header or in an auth message"
                ),
            ),
            Self::TooManyHeaders => Problem::new(
                too_large,
                "too_many_headers",
                format!(
                    "the request has more than {} headers (limits.headers)",
                    bounds.headers
                ),
            ),
            Self::Http2 => Problem::new(
                StatusCode::HTTP_VERSION_NOT_SUPPORTED,
                "http_version",
                "HTTP/2 is not supported: use HTTP/1.1; behind a proxy, set its upstream HTTP version",
            ),
            Self::Tls => Problem::bad_request(
                "this listener does not use TLS: use ws:// or http://, or set server.tls_cert_file",
            ),
            Self::Incomplete => Problem::bad_request("the head of the request ended early"),
            Self::Late => Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "timeout",
                "the head of the request did not arrive in time",
            ),
            Self::Proxy => Problem::bad_request(
                "the connection begins with a PROXY header: only the public listener accepts PROXY headers, if server.proxy_protocol is on and the sender is in server.trusted_proxies",
            ),
            Self::Version => Problem::new(
                StatusCode::HTTP_VERSION_NOT_SUPPORTED,
                "http_version",
                "only HTTP/1.1 and HTTP/1.0 are supported",
            ),
            Self::Framing => Problem::bad_request(
                "the length of the body is ambiguous: send either one Content-Length or only Transfer-Encoding: chunked",
            ),
            Self::Malformed => Problem::bad_request("the head of the request is not HTTP/1.1"),
        }
    }

    /// Returns the fault's label in the metric that counts connections that are not upgraded.
    pub(crate) fn reject_reason(self) -> RejectReason {
        match self {
            Self::TooLarge | Self::LongTarget => RejectReason::HeadTooLarge,
            Self::TooManyHeaders => RejectReason::TooManyHeaders,
            Self::Http2 | Self::Version => RejectReason::HttpVersion,
            Self::Late => RejectReason::Timeout,
            Self::Tls | Self::Incomplete | Self::Proxy | Self::Framing | Self::Malformed => {
                RejectReason::BadRequest
            }
        }
    }
}

/// Returns the target in the first line of a request, or the part of the target that was read.
fn target(read: &[u8]) -> &[u8] {
    let mut words = read.split(|byte| matches!(byte, b' ' | b'\r' | b'\n'));
    let mut words = words.by_ref().filter(|word| !word.is_empty());
    words.nth(1).unwrap_or_default()
}

/// Returns the number of headers in `read`, which may be an incomplete head. An incomplete last
/// header counts too.
fn headers(read: &[u8]) -> usize {
    let end = HeadEnd::default().find(read).unwrap_or(read.len());
    let lines = read[..end].split(|byte| *byte == b'\n');
    let lines = lines.filter(|line| !line.is_empty() && *line != b"\r");
    // The first line is the request line, not a header.
    lines.count().saturating_sub(1)
}

/// Searches bytes that arrive in pieces for the end of a head, which is an empty line.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HeadEnd {
    seen: usize,
    /// True after the first byte of the request line. Empty lines before the request line do not
    /// end the head.
    begun: bool,
    /// True if a line has ended and the next line has no byte except `\r` yet.
    in_empty_line: bool,
}

impl HeadEnd {
    /// Searches the next `piece` of a head. If the head ends in this piece, returns the length of
    /// the whole head in bytes.
    pub(crate) fn find(&mut self, piece: &[u8]) -> Option<usize> {
        for byte in piece {
            self.seen = self.seen.saturating_add(1);
            match byte {
                b'\n' if self.begun && self.in_empty_line => return Some(self.seen),
                b'\n' => self.in_empty_line = true,
                b'\r' => {}
                _ => {
                    self.begun = true;
                    self.in_empty_line = false;
                }
            }
        }
        None
    }

    /// The number of bytes searched so far.
    pub(crate) fn seen(&self) -> usize {
        self.seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_head_is_found_wherever_it_is_cut() {
        let head = b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nbehind";
        let length = head.len() - b"behind".len();
        for cut in 0..head.len() {
            let mut end = HeadEnd::default();
            let found = end.find(&head[..cut]).or_else(|| end.find(&head[cut..]));
            assert_eq!(found, Some(length), "cut at {cut}");
        }
        assert_eq!(HeadEnd::default().find(b"GET / HTTP/1.1\n\n"), Some(16));
        assert_eq!(HeadEnd::default().find(b"\r\n\r\n"), None);
        assert_eq!(HeadEnd::default().find(b"GET / HTTP/1.1\r\n"), None);
    }

    #[test]
    fn what_begins_like_another_protocol_is_told_as_that() {
        let bounds = Bounds {
            bytes: 40,
            headers: 1,
        };
        for (read, too_large, fault) in [
            (
                &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
                false,
                HeadFault::Http2,
            ),
            (b"\x16\x03\x01\x02\x00\x01", false, HeadFault::Tls),
            (b"\x16GET", false, HeadFault::Malformed),
            (
                b"GET / HTTP/1.1\r\na:b\r\nc:d\r\n\r\n",
                true,
                HeadFault::TooManyHeaders,
            ),
            // The empty line at the end of the head has not arrived.
            (
                b"GET / HTTP/1.1\r\na:b\r\nc:d\r\n",
                true,
                HeadFault::TooManyHeaders,
            ),
            // The head exceeds `bounds.bytes` before its end arrives.
            (
                b"GET / HTTP/1.1\r\naaaaaaaaaaaaaaaaaaaaaaaa",
                true,
                HeadFault::TooLarge,
            ),
            (
                b"GET / HTTP/1.1\r\naaaaaaaaaaaaaaaaaaaaaaaaaaaa:b",
                true,
                HeadFault::TooLarge,
            ),
        ] {
            assert_eq!(HeadFault::of_bytes(read, bounds, too_large), fault);
        }
        let bounds = Bounds {
            bytes: 90_000,
            headers: 100,
        };
        let long = format!(
            "GET /{} HTTP/1.1\r\na:b\r\n\r\n",
            "a".repeat(MAX_TARGET_BYTES)
        );
        let fault = HeadFault::of_bytes(long.as_bytes(), bounds, true);
        assert_eq!(fault, HeadFault::LongTarget);
    }
}
