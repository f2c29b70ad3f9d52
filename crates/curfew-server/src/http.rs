//! HTTP/1.1 on both listeners. This file defines the answers: JSON, and problems (RFC 9457).
//!
//! The files, in the order in which a request uses them:
//!
//! - `exchange` serves the requests of a connection;
//! - `head` finds the fault in bytes that are not a request;
//! - `body` reads the body of a request;
//! - `span` describes a request in a trace;
//! - `refusal` refuses a request because of its token, or because of the origin of the web page
//!   that sent it;
//! - `cors` lets web pages of other origins read answers;
//! - `answers` counts and logs answers.

pub(crate) mod answers;
pub(crate) mod body;
pub(crate) mod cors;
pub(crate) mod exchange;
pub(crate) mod head;
pub(crate) mod refusal;
pub(crate) mod span;

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::Full;
use schemars::JsonSchema;
use serde::Serialize;

/// The body of every answer.
pub type Body = Full<Bytes>;

/// An answer.
pub type Response = http::Response<Body>;

/// The smallest value of `Retry-After`, in seconds. It is also the value if no time is known.
const RETRY_AFTER_SECONDS: u64 = 1;

/// An error answer: `application/problem+json` (RFC 9457).
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The status in words, such as `Bad Request`.
    pub title: String,
    /// The fault, and its remedy if there is one.
    pub detail: String,
    /// The fault's name, which programs can compare.
    pub code: &'static str,
    /// The time after which another attempt may succeed; `None` if it is not known.
    #[serde(skip)]
    pub(crate) retry_after: Option<Duration>,
    /// The name of the setting that the request exceeds; `None` if the request is refused for
    /// another reason.
    #[serde(skip)]
    pub(crate) limit: Option<&'static str>,
}

/// The JSON of an answer. It is stored as an extension of the answer, so that [`span::add_trace`]
/// can add members.
#[derive(Debug, Clone)]
struct JsonBody(Bytes);

/// The [`Problem::code`] of an answer, as a label of the metric that counts answers. It is stored
/// as an extension of the answer and is not sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Code(pub(crate) &'static str);

/// The [`Problem::limit`] of an answer. It is stored as an extension of the answer and is not sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit(pub(crate) &'static str);

impl Problem {
    /// Creates a problem. `code` is the fault's name for programs, and `detail` states the fault
    /// and its remedy.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status: status.as_u16(),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            detail: detail.into(),
            code,
            retry_after: None,
            limit: None,
        }
    }

    /// The same problem, with the time after which another attempt may succeed.
    #[must_use]
    pub(crate) fn after(self, retry_after: Option<Duration>) -> Self {
        Self {
            retry_after,
            ..self
        }
    }

    /// The problem of an invalid request, with status 400.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", detail)
    }

    /// The problem of a service that is temporarily unavailable, with status 503. The answer
    /// carries `Retry-After`.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
    }

    /// The problem of a request or connection that exceeds the setting `limit`, with status 503.
    /// The answer carries `Retry-After`.
    pub(crate) fn over_limit(limit: &'static str, detail: impl Into<String>) -> Self {
        Self {
            limit: Some(limit),
            ..Self::unavailable(detail)
        }
    }

    /// The problem of a publication whose outcome is not known, with status 504. The answer carries
    /// no `Retry-After`, because a retry could publish the data twice.
    pub fn unknown_outcome(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "unknown_outcome", detail)
    }

    /// Returns the answer that states this problem.
    pub fn into_response(self) -> Response {
        let status = self.status();
        let mut response = json(status, &self);
        response.extensions_mut().insert(Code(self.code));
        if let Some(limit) = self.limit {
            response.extensions_mut().insert(Limit(limit));
        }
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(RETRY_AFTER, retry_after_seconds(self.retry_after).into());
        }
        response
    }

    /// Returns [`Problem::status`] as a [`StatusCode`].
    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Returns the bytes of the answer on a connection whose request could not be read. After this
    /// answer the connection is closed.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let response = self.clone().into_response();
        let mut bytes =
            format!("HTTP/1.1 {}\r\nConnection: close\r\n", response.status()).into_bytes();
        let body = serde_json::to_vec(self).expect("our types serialize");
        for (name, value) in response.headers() {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }
}

/// Returns the text behind `Bearer` in the header `Authorization`, unverified; `None` without such
/// a header.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let is_bearer = scheme.eq_ignore_ascii_case("bearer");
    is_bearer.then(|| token.trim())
}

/// Returns the value of `Retry-After`: whole seconds, rounded up, at least 1; 1 if the time is not
/// known.
pub(crate) fn retry_after_seconds(after: Option<Duration>) -> u64 {
    let up = after.map(|after| after.as_secs() + u64::from(after.subsec_nanos() > 0));
    up.unwrap_or_default().max(RETRY_AFTER_SECONDS)
}

/// Returns a JSON answer that caches must not store.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value).expect("our types serialize");
    let body = Bytes::from(body);
    let mut response = Response::new(Full::new(body.clone()));
    response.extensions_mut().insert(JsonBody(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Makes this answer the last one of its connection, unless it is an upgrade.
pub(crate) fn close(mut response: Response) -> Response {
    let close = match response.status() {
        StatusCode::SWITCHING_PROTOCOLS => return response,
        // `Connection` must also name the header `Upgrade` (RFC 9110 §7.8).
        StatusCode::UPGRADE_REQUIRED => "upgrade, close",
        _ => "close",
    };
    let close = HeaderValue::from_static(close);
    response.headers_mut().insert(CONNECTION, close);
    response
}
