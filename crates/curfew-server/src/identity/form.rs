//! The bodies of reports: forms, and bodies of other media types.

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;

use super::Reports;
use super::refusal::ReportRefusal;
use crate::http::{Response, body};

/// Maximum size of a body, in bytes. It has room for the largest token that `auth.max_token_bytes`
/// may allow, and for the text around the token.
const MAX_BODY_BYTES: usize = 68 * 1024;

/// The media type of a form.
const MEDIA_TYPE: &str = "application/x-www-form-urlencoded";

/// The body of a request that posts a form.
pub(super) struct Form(String);

impl Form {
    /// Returns the value of the field `name`. Fails if the form has no such field, or several. The
    /// value is not decoded, because the encoding of a form escapes no character of a token.
    pub(super) fn field(&self, name: &str) -> Result<&str, ReportRefusal> {
        let mut fields = self.0.split('&').filter_map(|field| field.split_once('='));
        let mut named = fields.by_ref().filter(|(known, _)| *known == name);
        match (named.next(), named.next()) {
            (Some((_, value)), None) => Ok(value),
            (None, _) => Err(ReportRefusal::invalid(format!(
                "the form has no field {name}"
            ))),
            (Some(_), Some(_)) => Err(ReportRefusal::invalid(format!(
                "the form has several fields {name}"
            ))),
        }
    }
}

/// Returns the answer to a request that took effect: status 200 without a body. Caches must not
/// store the answer.
pub(super) fn done() -> Response {
    let mut response = Response::new(Full::default());
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, no_store);
    response
}

impl Reports {
    /// Reads the form in the body of a POST request. If `permitted` is an error, returns the error
    /// without reading the body.
    pub(super) async fn form(
        &self,
        request: Request<Incoming>,
        permitted: Result<(), ReportRefusal>,
    ) -> Result<Form, ReportRefusal> {
        let is_form = |headers: &HeaderMap| media_type(headers).eq_ignore_ascii_case(MEDIA_TYPE);
        let body = posted(request, permitted, MEDIA_TYPE, is_form).await?;
        Ok(Form(body))
    }
}

/// Reads the body of a POST request. If `permitted` is an error, returns the error without reading
/// the body. If `is_expected` returns false for the headers, the body is not read either, and the
/// error names the media type `expected`.
pub(super) async fn posted(
    request: Request<Incoming>,
    permitted: Result<(), ReportRefusal>,
    expected: &str,
    is_expected: impl FnOnce(&HeaderMap) -> bool,
) -> Result<String, ReportRefusal> {
    if request.method() != Method::POST {
        return Err(ReportRefusal {
            status: StatusCode::METHOD_NOT_ALLOWED,
            ..ReportRefusal::invalid("this path accepts only POST")
        });
    }
    permitted?;
    if !is_expected(request.headers()) {
        let why = format!("the content type must be {expected}");
        return Err(ReportRefusal::invalid(why));
    }
    let body = body::read(request.into_body(), MAX_BODY_BYTES, body::PUBLIC_TIMEOUT).await;
    let body = body.map_err(|error| ReportRefusal {
        status: error.status(),
        ..ReportRefusal::invalid(error.to_string())
    })?;
    String::from_utf8(body.into()).map_err(|_| ReportRefusal::invalid("the body is not UTF-8"))
}

/// Returns the media type in `Content-Type`, without its parameters; empty if there is none.
pub(super) fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).map(HeaderValue::to_str);
    let value = value.and_then(Result::ok).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}
