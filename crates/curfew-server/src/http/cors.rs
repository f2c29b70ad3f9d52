//! Answers that pages of other origins may read (Fetch §3.2).

use curfew_ws::{OriginPolicy, handshake};
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ALLOW, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName,
    HeaderValue, VARY,
};
use http::{Method, StatusCode};

use super::Response;

/// The value of `Allow` for an endpoint that answers POST requests.
pub(crate) const METHODS: HeaderValue = HeaderValue::from_static("POST, OPTIONS");

/// The value of `Allow` for an endpoint that answers GET requests.
const METHODS_OF_GET: HeaderValue = HeaderValue::from_static("GET, OPTIONS");

/// The request headers that a page needs for these endpoints.
const DOCUMENTED: &str = "authorization, content-type";

/// The number of seconds for which a browser may cache the answer to a preflight. It is small, so
/// that a changed `server.allowed_origins` takes effect soon.
const PREFLIGHT_SECONDS: HeaderValue = HeaderValue::from_static("600");

/// Returns the origin of a request, if pages of that origin may read the answer.
pub(crate) fn allowed(headers: &HeaderMap, origins: &OriginPolicy) -> Option<HeaderValue> {
    let origin = handshake::origin(headers).ok().flatten();
    let origin = origin.filter(|origin| origins.allows(Some(origin), false))?;
    HeaderValue::from_str(&origin).ok()
}

/// Returns the value of `Allow` for an endpoint that answers requests with the method `method`.
pub(crate) fn methods(method: &Method) -> HeaderValue {
    match *method {
        Method::GET => METHODS_OF_GET,
        _ => METHODS,
    }
}

/// Returns the answer to a preflight. [`share_with`] adds the permission for the origin. Pages may
/// send any header, because tracing libraries add their own headers to every request of a page.
pub(crate) fn preflight(request: &HeaderMap, method: &Method) -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(ALLOW, methods(method));
    let method = HeaderValue::from_str(method.as_str());
    headers.extend(method.map(|method| (ACCESS_CONTROL_ALLOW_METHODS, method)));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, headers_for(request));
    headers.insert(ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS);
    response
}

/// Returns the headers that a page may send: the headers in [`DOCUMENTED`], and the headers for
/// which the browser asks permission. Each header is listed by name, because `*` would not include
/// `Authorization`.
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

/// Adds the headers that let pages of `origin` read the answer. Without an origin, no page may read
/// it. Requests with cookies are not allowed.
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

/// Like [`share_with`], for the origin of `request`. Requests with cookies are allowed too, if
/// `origins` accepts cookies from this origin.
pub(crate) fn share_with_credentials(
    request: &HeaderMap,
    origins: &OriginPolicy,
    headers: &mut HeaderMap,
) {
    let origin = allowed(request, origins);
    let by_cookie = |origin: &HeaderValue| {
        let origin = origin.to_str().ok();
        origins.allows(origin, true)
    };
    if origin.as_ref().is_some_and(by_cookie) {
        headers.insert(
            ACCESS_CONTROL_ALLOW_CREDENTIALS,
            HeaderValue::from_static("true"),
        );
    }
    share_with(origin, headers);
}
