//! `POST /connection/http_stream` and `GET /connection/sse`: requests that open a session, which
//! sends its messages in the streamed answer.
//!
//! The session takes over the connection, as after an upgrade. The request contains the client's
//! first message. The client sends each later message in a request of its own to `/emulation`.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use curfew_auth::SessionKey;
use curfew_model::percent_decode;
use curfew_protocol_centrifuge::Encoding;
use curfew_session::{Carrier, Credentials, Opening, WireId};
use curfew_ws::{Handshake, Streamed, Upgraded, handshake};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version};
use hyper::body::Incoming;

use super::emulation::{Emulated, Entry, encoding, message};
use super::refused::UpgradeRefusal;
use super::span::UpgradeSpan;
use super::{Accepted, Upgrade, Upgrades, centrifuge, guards, not_spoken};
use crate::config::Snapshot;
use crate::http::{Problem, Response, body, cors};
use crate::metrics::RejectReason;

/// The query member that contains the client's first message in a request for an event stream.
const CONNECT: &str = "cf_connect";

/// The header that tells nginx to pass the answer on without buffering.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The header by which hyper announces an empty body.
const NO_BODY: &[u8] = b"content-length: 0\r\n";

/// The header that announces a streamed body. It replaces [`NO_BODY`].
const CHUNKED: &[u8] = b"transfer-encoding: chunked\r\n";

/// The first chunk of an event stream. It has no event, but a browser reports a stream as open only
/// after the first byte.
const FIRST_CHUNK: &[u8] = b"2\r\n\r\n\r\n";

/// A kind of streamed answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamKind {
    /// The streamed answer to a POST request.
    HttpStream,
    /// Server-sent events.
    Sse,
}

/// The state of a streamed answer until its session begins.
#[derive(Debug)]
pub(super) struct Stream {
    kind: StreamKind,
    key: SessionKey,
    emulated: Arc<Emulated>,
    /// The client's first message as a frame.
    first: Bytes,
}

impl StreamKind {
    fn method(self) -> Method {
        match self {
            Self::HttpStream => Method::POST,
            Self::Sse => Method::GET,
        }
    }

    fn carrier(self) -> Carrier {
        match self {
            Self::HttpStream => Carrier::HttpStream,
            Self::Sse => Carrier::EventStream,
        }
    }
}

impl Stream {
    /// Turns the connection into a connection with a streamed answer. Commands for the returned key
    /// reach its session until the returned entry is dropped.
    pub(super) fn begin(self, upgraded: Upgraded) -> (Upgraded, SessionKey, Entry) {
        let (streamed, inlet) = Streamed::new(upgraded.transport);
        let entry = self.emulated.enter(self.key, inlet);
        let upgraded = Upgraded {
            transport: streamed.into(),
            answer: head(&upgraded.answer, self.kind),
            // Bytes after the request are discarded. The session reads the first message in their
            // place.
            early: self.first,
        };
        (upgraded, self.key, entry)
    }
}

impl Upgrades {
    /// Opens a session that sends its messages in the answer to the request.
    pub(super) async fn stream(
        &self,
        request: Request<Incoming>,
        kind: StreamKind,
        accepted: &Accepted,
        settings: &Snapshot,
        span: &mut UpgradeSpan<'_>,
    ) -> Result<Response, UpgradeRefusal> {
        let limits = &settings.sessions.limits;
        self.check_service(limits)?;
        if request.version() != Version::HTTP_11 {
            let detail = "the stream needs HTTP/1.1; behind a proxy, set its upstream HTTP version";
            let status = StatusCode::HTTP_VERSION_NOT_SUPPORTED;
            return Err(bad_request(Problem::new(status, "bad_request", detail)));
        }
        handshake::check_host(&request).map_err(|error| UpgradeRefusal::handshake(&error))?;
        let offer = Handshake {
            subprotocols: Vec::new(),
            origin: handshake::origin(request.headers())
                .map_err(|error| UpgradeRefusal::handshake(&error))?,
        };
        let encoding = match kind {
            StreamKind::HttpStream => encoding(request.headers()),
            StreamKind::Sse => Encoding::Json,
        };
        let wire = self.wire(kind, encoding).ok_or_else(not_spoken)?;
        let credential = super::credential::of(settings, &request, &offer);
        let (connection, token) = self.claim(settings, &offer, credential, span).await?;
        let (head, body) = request.into_parts();
        let first = match kind {
            StreamKind::HttpStream => {
                let read = body::read(body, limits.message_bytes, body::PUBLIC_TIMEOUT);
                let read = read.await.map_err(|error| bad_request(error.into()))?;
                message(encoding, &read)
            }
            StreamKind::Sse => {
                let first = first_message(head.uri.query()).map_err(bad_request)?;
                message(encoding, &first)
            }
        };
        let opening = Opening::Awaiting(Credentials {
            of_request: token.transpose(),
            takes_message: settings.auth.accepts(curfew_auth::Source::Message),
        });
        let mut response = Response::default();
        describe(response.headers_mut(), kind, encoding);
        let stream = Stream {
            kind,
            key: SessionKey::generate(),
            emulated: Arc::clone(&self.emulated),
            first,
        };
        let span = span.opened(&opening, &mut response);
        let upgrade = Upgrade {
            context: Arc::clone(&self.context),
            wire,
            opening,
            guards: guards(connection, accepted),
            address: accepted.client(),
            span,
            stream: Some(Box::new(stream)),
        };
        self.take_over(upgrade, accepted);
        Ok(response)
    }

    fn wire(&self, kind: StreamKind, encoding: Encoding) -> Option<WireId> {
        let name = centrifuge::subprotocol(encoding);
        let wires = self.context.node.hub().wires();
        wires.find_over(kind.carrier(), name)
    }
}

/// Answers a preflight, and a request with a wrong method. Returns `None` for a request with the
/// method of the stream.
pub(super) fn answer_aside(request: &Request<Incoming>, kind: StreamKind) -> Option<Response> {
    let method = kind.method();
    if *request.method() == method {
        return None;
    }
    if *request.method() == Method::OPTIONS {
        return Some(cors::preflight(request.headers(), &method));
    }
    let detail = format!("a request for this stream must use the method {method}");
    let status = StatusCode::METHOD_NOT_ALLOWED;
    let mut response = Problem::new(status, "bad_request", detail).into_response();
    response.headers_mut().insert(ALLOW, cors::methods(&method));
    Some(response)
}

fn bad_request(problem: Problem) -> UpgradeRefusal {
    UpgradeRefusal::new(RejectReason::BadRequest, problem)
}

/// Returns the client's first message from the query of a request for an event stream.
fn first_message(query: Option<&str>) -> Result<Vec<u8>, Problem> {
    let members = query.unwrap_or_default().split('&');
    let mut found = members
        .filter_map(|member| member.split_once('='))
        .filter(|(name, _)| *name == CONNECT);
    let (Some((_, value)), None) = (found.next(), found.next()) else {
        let detail = "exactly one query member cf_connect with the connect command is required";
        return Err(Problem::bad_request(detail));
    };
    // A browser may write a space in a query as a plus sign.
    let value = value.replace('+', " ");
    let decoded = percent_decode(value.as_bytes()).map(Cow::into_owned);
    decoded.ok_or_else(|| Problem::bad_request("cf_connect is not percent-encoded correctly"))
}

/// Sets the headers of a streamed answer. They ask intermediaries not to cache or delay it.
fn describe(headers: &mut HeaderMap, kind: StreamKind, encoding: Encoding) {
    let content = match (kind, encoding) {
        (StreamKind::Sse, _) => "text/event-stream",
        (StreamKind::HttpStream, Encoding::Json) => "application/json",
        (StreamKind::HttpStream, Encoding::Protobuf) => "application/octet-stream",
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content));
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("private, no-cache, no-store, must-revalidate, max-age=0"),
    );
    headers.insert(BUFFERING, HeaderValue::from_static("no"));
}

/// Returns the beginning of a streamed answer. `answer` is hyper's head of an answer without a
/// body.
fn head(answer: &[u8], kind: StreamKind) -> Bytes {
    let at = answer
        .windows(NO_BODY.len())
        .position(|line| line.eq_ignore_ascii_case(NO_BODY));
    let (before, after) = match at {
        Some(at) => (&answer[..at], &answer[at + NO_BODY.len()..]),
        // The header is inserted before the empty line that ends the head.
        None => answer.split_at(answer.len().saturating_sub(2)),
    };
    let first = match kind {
        StreamKind::HttpStream => &b""[..],
        StreamKind::Sse => FIRST_CHUNK,
    };
    [before, CHUNKED, after, first].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_of_a_stream_announces_chunks() {
        let plain = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\ndate: now\r\n\r\n";
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ndate: now\r\n\r\n";
        assert_eq!(head(plain, StreamKind::HttpStream), chunked);
        assert_eq!(
            head(plain, StreamKind::Sse),
            format!("{chunked}2\r\n\r\n\r\n")
        );
        let bare = b"HTTP/1.1 200 OK\r\ndate: now\r\n\r\n";
        let chunked = "HTTP/1.1 200 OK\r\ndate: now\r\ntransfer-encoding: chunked\r\n\r\n";
        assert_eq!(head(bare, StreamKind::HttpStream), chunked);
    }

    #[test]
    fn the_first_message_is_one_member_of_the_query() {
        let query = "x=1&cf_connect=%7B%22id%22%3A1%7D+%0A&token=t";
        assert_eq!(first_message(Some(query)).unwrap(), b"{\"id\":1} \n");
        for query in [
            None,
            Some(""),
            Some("cf_connect"),
            Some("cf_connect=a&cf_connect=a"),
            Some("cf_connect=%7"),
        ] {
            assert!(first_message(query).is_err(), "{query:?}");
        }
    }
}
