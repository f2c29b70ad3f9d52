//! The bodies of reports: forms, and bodies of other media types.

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;

use super::Reports;
use super::refusal::ReportRefusal;
use crate::http::{Response, body};

/// Maximum size of a body, in bytes: the largest token that `auth.max_token_bytes` may allow, and
/// the text around the token.
const MAX_BODY_BYTES: usize = 68 * 1024;

/// The media type of a form.
const MEDIA_TYPE: &str = "application/x-www-form-urlencoded";

/// A form. Its fields are read by name, and unknown fields are ignored.
pub(super) struct Form(String);

impl Form {
    /// The only field of this name. Its value is not decoded, because a form escapes no character
    /// of a token.
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

/// The answer to a request that took effect: 200 without a body. No cache stores the answer.
pub(super) fn done() -> Response {
    let mut response = Response::new(Full::default());
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, no_store);
    response
}

impl Reports {
    /// Reads a form if `permitted` is `Ok`. Each form costs the check of a signature.
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

/// Reads the body of a POST request if `permitted` is `Ok`. `is_expected` judges the headers before
/// the body is read. `expected` is the media type that an error names.
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

/// The media type of a body without its parameters; empty if there is none.
pub(super) fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).map(HeaderValue::to_str);
    let value = value.and_then(Result::ok).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}
