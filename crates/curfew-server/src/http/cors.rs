//! Answers that pages of other origins may read (Fetch §3.2).

use curfew_ws::{OriginPolicy, handshake};
use http::StatusCode;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ALLOW,
    AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, VARY,
};

use super::Response;

/// The methods there are, as `Allow` has them.
pub(crate) const METHODS: HeaderValue = HeaderValue::from_static("POST, OPTIONS");

/// The headers that requests here have a use for.
const DOCUMENTED: &str = "authorization, content-type";

/// The time that a browser may remember the answer to a preflight, in seconds. Configurations change.
const PREFLIGHT_SECONDS: HeaderValue = HeaderValue::from_static("600");

/// The origin of a request, if its pages may read the answer.
pub(crate) fn allowed(headers: &HeaderMap, origins: &OriginPolicy) -> Option<HeaderValue> {
    let origin = handshake::origin(headers).ok().flatten();
    let origin = origin.filter(|origin| origins.allows(Some(origin), false))?;
    HeaderValue::from_str(&origin).ok()
}

/// The answer to a preflight; [`share_with`] adds that the origin may post. Any header may be sent, since
/// only documented ones are acted on: tracing libraries add theirs to every request of a page.
pub(crate) fn preflight(request: &HeaderMap) -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(ALLOW, METHODS);
    headers.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("POST"),
    );
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, headers_for(request));
    headers.insert(ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS);
    response
}

/// The headers that are documented, and those that a browser asks for, by name: `*` never means
/// Authorization.
fn headers_for(request: &HeaderMap) -> HeaderValue {
    let lines = request.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter();
    let names = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let names = names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok());
    let names = names.filter(|name| ![AUTHORIZATION, CONTENT_TYPE].contains(name));
    let mut headers = DOCUMENTED.to_owned();
    for name in names {
        headers.push_str(", ");
        headers.push_str(name.as_str());
    }
    HeaderValue::from_str(&headers).unwrap_or(HeaderValue::from_static(DOCUMENTED))
}

/// Lets pages of this origin read the answer, errors included. Credentials are never allowed: a cookie
/// gets nothing here.
pub(crate) fn share_with(origin: Option<HeaderValue>, headers: &mut HeaderMap) {
    headers.insert(VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = origin else {
        return;
    };
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(
        ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("Retry-After, WWW-Authenticate, traceresponse"),
    );
}
