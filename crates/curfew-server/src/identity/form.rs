//! The bodies of reports: forms, and others.

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;

use super::Reports;
use super::refusal::ReportRefusal;
use crate::http::{Response, body};

/// Largest body: the largest token that `auth.max_token_bytes` may allow, and the text around it.
const MAX_BODY_BYTES: usize = 68 * 1024;

/// The media type of a form.
const MEDIA_TYPE: &str = "application/x-www-form-urlencoded";

/// A form. Its fields are read by name, and others are passed over.
pub(super) struct Form(String);

impl Form {
    /// The one field of this name. It is taken as it was sent: tokens have only characters that a
    /// form leaves alone, so an escaped one is none.
    pub(super) fn field(&self, name: &str) -> Result<&str, ReportRefusal> {
        let mut fields = self.0.split('&').filter_map(|field| field.split_once('='));
        let mut named = fields.by_ref().filter(|(known, _)| *known == name);
        match (named.next(), named.next()) {
            (Some((_, value)), None) => Ok(value),
            (None, _) => Err(ReportRefusal::invalid(format!("the form has no {name}"))),
            (Some(_), Some(_)) => Err(ReportRefusal::invalid(format!(
                "the form has several {name}"
            ))),
        }
    }
}

/// The answer to a request that had its effect: 200 without a body, which no cache keeps.
pub(super) fn done() -> Response {
    let mut response = Response::new(Full::default());
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, no_store);
    response
}

impl Reports {
    /// Reads a form if one is `permitted` at the moment, since its content costs a signature.
    pub(super) async fn form(
        &self,
        request: Request<Incoming>,
        permitted: Result<(), ReportRefusal>,
    ) -> Result<Form, ReportRefusal> {
        let is_form = |headers: &HeaderMap| match is_form(headers) {
            true => Ok(()),
            false => Err(ReportRefusal::invalid(format!(
                "the body must be {MEDIA_TYPE}"
            ))),
        };
        let body = posted(request, permitted, is_form).await?;
        Ok(Form(body))
    }
}

/// The body of a posted request, if one is `permitted` at the moment. `check` judges the headers before the
/// body is read.
pub(super) async fn posted(
    request: Request<Incoming>,
    permitted: Result<(), ReportRefusal>,
    check: impl FnOnce(&HeaderMap) -> Result<(), ReportRefusal>,
) -> Result<String, ReportRefusal> {
    if request.method() != Method::POST {
        return Err(ReportRefusal {
            status: StatusCode::METHOD_NOT_ALLOWED,
            ..ReportRefusal::invalid("requests are posted here")
        });
    }
    permitted?;
    check(request.headers())?;
    let body = body::read(request.into_body(), MAX_BODY_BYTES, body::PUBLIC_TIMEOUT).await;
    let body = body.map_err(|error| ReportRefusal {
        status: error.status(),
        ..ReportRefusal::invalid(error.to_string())
    })?;
    String::from_utf8(body.into()).map_err(|_| ReportRefusal::invalid("the body is not UTF-8"))
}

fn is_form(headers: &HeaderMap) -> bool {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let media_type = value.and_then(|value| value.split(';').next());
    media_type.is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case(MEDIA_TYPE))
}
