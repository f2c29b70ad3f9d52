//! The form that all endpoints read, and answers as OAuth has them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use curfew_auth::{AuthError, Unverified};
use curfew_model::AuthFailure;
use curfew_telemetry::{Span, Tracer};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde::Serialize;
use tracing::debug;

use crate::http::body;
use crate::http::span::{Asked, name_trace};
use crate::http::{Response, json, retry_after_seconds};
use crate::identity::Reports;
use crate::metrics::{Report, ReportFault};

/// Largest body: the largest token that `auth.max_token_bytes` may allow, and what is around it.
const MAX_BODY_BYTES: usize = 68 * 1024;

/// What a form is sent as.
const MEDIA_TYPE: &str = "application/x-www-form-urlencoded";

/// A form; fields that nobody asks for are passed over.
pub(crate) struct Form(String);

impl Form {
    /// The one field of this name. It is taken as it was sent: tokens have only characters that a
    /// form leaves alone, so an escaped one is none.
    pub(crate) fn field(&self, name: &str) -> Result<&str, FormError> {
        let mut fields = self.0.split('&').filter_map(|field| field.split_once('='));
        let mut named = fields.by_ref().filter(|(known, _)| *known == name);
        match (named.next(), named.next()) {
            (Some((_, value)), None) => Ok(value),
            (None, _) => Err(FormError::invalid(format!("the form has no {name}"))),
            (Some(_), Some(_)) => Err(FormError::invalid(format!("the form has several {name}"))),
        }
    }
}

/// Why a form had no effect (RFC 6749 §5.2).
#[derive(Debug)]
pub(crate) struct FormError {
    pub(crate) status: StatusCode,
    pub(crate) error: &'static str,
    pub(crate) description: String,
    /// The issuer's part, if it has signed what is refused.
    pub(crate) signed: Option<Box<SignedRefusal>>,
    /// The time after which another attempt can have another outcome, where that is known.
    pub(crate) retry_after: Option<Duration>,
    /// It waits for its issuer's keys: what becomes of it is not known yet.
    pub(crate) is_kept: bool,
}

/// A refusal that is no stranger's fault: an issuer's configuration, or ours, is wrong.
#[derive(Debug)]
pub(crate) struct SignedRefusal {
    /// The issuer's configured name.
    issuer: Arc<str>,
    fault: ReportFault,
    /// Expected and received, for operators.
    why: String,
}

impl FormError {
    /// The error of what was turned away unread.
    pub(crate) const RATE_LIMITED: &'static str = "rate_limited";

    /// The sender's fault.
    pub(crate) fn invalid(description: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            error: "invalid_request",
            description: description.into(),
            signed: None,
            retry_after: None,
            is_kept: false,
        }
    }

    /// The fault of a report, which is one of its issuer's where that has signed it.
    pub(crate) fn of_report(error: &AuthError) -> Self {
        let fault = match error.failure() {
            AuthFailure::WrongAudience => ReportFault::WrongAudience,
            _ if error.is_by_clock() => ReportFault::Time,
            _ => ReportFault::Content,
        };
        let why = match error.detail() {
            Some(detail) => format!("{}: {detail}", error.message()),
            None => error.message().to_owned(),
        };
        match error.signer() {
            Some(signer) => Self::invalid(error.message()).signed(signer, fault, why),
            None => Self::invalid(error.message()),
        }
    }

    /// The same, of a report that the issuer called `issuer` has signed.
    pub(crate) fn signed(mut self, issuer: &Arc<str>, fault: ReportFault, why: String) -> Self {
        self.signed = Some(Box::new(SignedRefusal {
            issuer: Arc::clone(issuer),
            fault,
            why,
        }));
        self
    }

    /// Our fault, or that of something we depend on.
    pub(crate) fn unavailable(status: StatusCode, description: impl Into<String>) -> Self {
        Self {
            status,
            error: "temporarily_unavailable",
            ..Self::invalid(description)
        }
    }

    /// It cannot be known at the moment if what was sent is good.
    pub(crate) fn unverified(why: &Unverified) -> Self {
        Self {
            retry_after: why.retry_after(),
            ..Self::unavailable(StatusCode::SERVICE_UNAVAILABLE, why.message())
        }
    }

    /// Whether it is worth trying again.
    pub(crate) fn is_unavailable(&self) -> bool {
        self.error == "temporarily_unavailable"
    }

    pub(crate) fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body<'a> {
            error: &'a str,
            error_description: &'a str,
        }
        let body = Body {
            error: self.error,
            error_description: &self.description,
        };
        let mut response = json(self.status, &body);
        self.explain(response.headers_mut());
        response
    }

    /// Adds what the status asks for: what would be allowed, when to try again.
    pub(crate) fn explain(&self, headers: &mut HeaderMap) {
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, HeaderValue::from_static("POST"));
        }
        let later = [
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::TOO_MANY_REQUESTS,
        ];
        if later.contains(&self.status) {
            let seconds = retry_after_seconds(self.retry_after);
            headers.insert(RETRY_AFTER, seconds.into());
        }
    }
}

/// The span of a form that was refused, which began at `began`.
pub(crate) fn refused_span(
    tracer: &Tracer,
    refused: &FormError,
    name: &'static str,
    asked: &Asked,
    began: SystemTime,
) -> Span {
    let (origin, whose) = (asked.origin.clone(), asked.whose());
    let mut span = tracer.fault(refused.is_unavailable(), name, origin, began, whose);
    asked.describe(&mut span);
    span
}

/// The answer to what was posted to `route`, and what its span says of it. `undone` is for the log:
/// anybody can post, so it is said at debug, and the span has it. `refuse` puts a refusal into the
/// form that is usual there.
pub(crate) fn answer(
    mut span: Span,
    route: &'static str,
    undone: &'static str,
    result: Result<Response, FormError>,
    refuse: impl FnOnce(FormError) -> Response,
) -> Response {
    let scope = span.scope();
    let _entered = scope.entered();
    let mut response = match result {
        Ok(response) => response,
        Err(refused) => {
            match refused.is_unavailable() {
                true => span.failed(refused.error),
                false => span.refused(refused.error),
            }
            debug!(why = %refused.description, "{undone}");
            refuse(refused)
        }
    };
    span.set("http.request.method", "POST");
    span.set("http.route", route);
    let status = i64::from(response.status().as_u16());
    span.set("http.response.status_code", status);
    name_trace(&mut response, &span);
    response
}

/// It had its effect: 200 without a body, which nobody keeps.
pub(crate) fn done() -> Response {
    let mut response = Response::new(Full::default());
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, no_store);
    response
}

impl Reports {
    /// Counts and tells a refusal of what an issuer has signed. Of what a stranger can write nothing is
    /// said.
    pub(crate) fn note_refused(&self, report: Report, refused: &FormError) {
        let Some(signed) = &refused.signed else {
            return;
        };
        let metrics = &self.metrics;
        metrics.reports_refused.inc((report, signed.fault));
        let authenticator = &self.context.authenticator;
        authenticator.note_failed_report(&signed.issuer, report.as_str(), "refused", &signed.why);
    }

    /// Reads a form if it is `permitted` at the moment, since what is in it will have to be verified.
    pub(crate) async fn form(
        &self,
        request: Request<Incoming>,
        permitted: Result<(), FormError>,
    ) -> Result<Form, FormError> {
        let is_form = |headers: &HeaderMap| match is_form(headers) {
            true => Ok(()),
            false => Err(FormError::invalid(format!("the body must be {MEDIA_TYPE}"))),
        };
        let body = posted(request, permitted, is_form).await?;
        Ok(Form(body))
    }
}

/// The body of a request, likewise; whether its headers are good `check` says before it is read.
pub(crate) async fn posted(
    request: Request<Incoming>,
    permitted: Result<(), FormError>,
    check: impl FnOnce(&HeaderMap) -> Result<(), FormError>,
) -> Result<String, FormError> {
    if request.method() != Method::POST {
        return Err(FormError {
            status: StatusCode::METHOD_NOT_ALLOWED,
            ..FormError::invalid("requests are posted here")
        });
    }
    permitted?;
    check(request.headers())?;
    let body = body::read(request.into_body(), MAX_BODY_BYTES, body::PUBLIC_TIMEOUT).await;
    let body = body.map_err(|error| FormError {
        status: error.status(),
        ..FormError::invalid(error.to_string())
    })?;
    String::from_utf8(body.into()).map_err(|_| FormError::invalid("the body is not UTF-8"))
}

fn is_form(headers: &HeaderMap) -> bool {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let media_type = value.and_then(|value| value.split(';').next());
    media_type.is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case(MEDIA_TYPE))
}
