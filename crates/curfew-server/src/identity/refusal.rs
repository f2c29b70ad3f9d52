//! The refusal of a report or of a token revocation: its cause, and the answer in the form of an
//! OAuth error.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use curfew_auth::{AuthError, Unverified, VerifyError};
use curfew_model::AuthFailure;
use curfew_telemetry::{Span, Tracer};
use http::StatusCode;
use http::header::{ALLOW, HeaderMap, HeaderValue, RETRY_AFTER};
use serde::Serialize;
use tracing::debug;

use super::Reports;
use crate::http::span::{Asked, name_trace};
use crate::http::{Response, json, retry_after_seconds};
use crate::metrics::{EventOutcome, LogoutOutcome, ReportFault, ReportKind};

/// The refusal of a report or of a token revocation. `error` and `description` are members of an
/// OAuth error (RFC 6749 §5.2).
#[derive(Debug)]
pub(super) struct ReportRefusal {
    pub(super) status: StatusCode,
    pub(super) error: &'static str,
    pub(super) description: String,
    /// The issuer that signed the report, and the report's fault; `None` if no issuer's signature
    /// was verified.
    pub(super) signed: Option<Box<SignedRefusal>>,
    /// The time until a retry can succeed; `None` if it is not known.
    pub(super) retry_after: Option<Duration>,
    /// True if the report is stored until its issuer's keys arrive. Its outcome is then open.
    pub(super) is_kept: bool,
}

/// The issuer that signed a refused report, and the report's fault. Either the issuer or this node
/// is configured wrongly.
#[derive(Debug)]
pub(super) struct SignedRefusal {
    /// The issuer's configured name.
    issuer: Arc<str>,
    fault: ReportFault,
    /// The explanation for operators, such as the expected and the received value.
    why: String,
}

/// The outcomes of reports without effect. Each outcome is possible for every kind of report.
#[derive(Debug, Clone, Copy)]
pub(super) enum Undone {
    /// The report is invalid.
    Refused,
    /// The report was not read, because too many reports from its address could not be verified.
    RateLimited,
    /// The report may be valid, but the issuer's keys or the backend are unavailable.
    Unavailable,
    /// The report is stored until its issuer's keys arrive.
    Kept,
    /// The report was stored, and is dropped because the keys did not arrive in time or another
    /// report has displaced it.
    Lost,
}

impl ReportRefusal {
    /// The `error` of a request that is refused before its body is read, because of too many
    /// unverified reports from its address.
    pub(super) const RATE_LIMITED: &'static str = "rate_limited";

    /// Refuses a request that is invalid through the sender's fault.
    pub(super) fn invalid(description: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            error: "invalid_request",
            description: description.into(),
            signed: None,
            retry_after: None,
            is_kept: false,
        }
    }

    /// Refuses a report whose verification failed.
    pub(super) fn not_verified(error: &VerifyError) -> Self {
        match error {
            VerifyError::Refused(error) => Self::of_report(error),
            VerifyError::Unknown(why) => Self::unverified(why),
        }
    }

    /// Refuses a report whose token is invalid. If an issuer signed the token, the refusal names
    /// the issuer.
    pub(super) fn of_report(error: &AuthError) -> Self {
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

    /// Adds the issuer that signed the report, the report's fault, and its explanation for
    /// operators.
    pub(super) fn signed(mut self, issuer: &Arc<str>, fault: ReportFault, why: String) -> Self {
        self.signed = Some(Box::new(SignedRefusal {
            issuer: Arc::clone(issuer),
            fault,
            why,
        }));
        self
    }

    /// Refuses a request because this node, the backend or the source of the issuer's keys fails.
    pub(super) fn unavailable(status: StatusCode, description: impl Into<String>) -> Self {
        Self {
            status,
            error: "temporarily_unavailable",
            ..Self::invalid(description)
        }
    }

    /// Refuses a report or token that cannot be verified at the moment.
    pub(super) fn unverified(why: &Unverified) -> Self {
        Self {
            retry_after: why.retry_after(),
            ..Self::unavailable(StatusCode::SERVICE_UNAVAILABLE, why.message())
        }
    }

    /// Returns the outcome that the metrics count.
    pub(super) fn undone(&self) -> Undone {
        match self.error {
            Self::RATE_LIMITED => Undone::RateLimited,
            _ if self.is_kept => Undone::Kept,
            _ if self.is_unavailable() => Undone::Unavailable,
            _ => Undone::Refused,
        }
    }

    /// True if the sender should try again.
    pub(super) fn is_unavailable(&self) -> bool {
        self.error == "temporarily_unavailable"
    }

    pub(super) fn into_response(self) -> Response {
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

    /// Adds the header that the status requires: `Allow` for 405, `Retry-After` for 429 and 503.
    pub(super) fn explain(&self, headers: &mut HeaderMap) {
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

impl From<Undone> for LogoutOutcome {
    fn from(undone: Undone) -> Self {
        match undone {
            Undone::Refused => Self::Refused,
            Undone::RateLimited => Self::RateLimited,
            Undone::Unavailable => Self::Unavailable,
            Undone::Kept => Self::Kept,
            Undone::Lost => Self::Lost,
        }
    }
}

impl From<Undone> for EventOutcome {
    fn from(undone: Undone) -> Self {
        match undone {
            Undone::Refused => Self::Refused,
            Undone::RateLimited => Self::RateLimited,
            Undone::Unavailable => Self::Unavailable,
            Undone::Kept => Self::Kept,
            Undone::Lost => Self::Lost,
        }
    }
}

/// Returns the span of a refused report or token revocation. `began` is the time at which the
/// request arrived.
pub(super) fn refused_span(
    tracer: &Tracer,
    refused: &ReportRefusal,
    name: &'static str,
    asked: &Asked,
    began: SystemTime,
) -> Span {
    let (origin, whose) = (asked.origin.clone(), asked.whose());
    let mut span = tracer.fault(refused.is_unavailable(), name, origin, began, whose);
    asked.describe(&mut span);
    span
}

/// Returns the answer to a request posted to `route`, and records it in `span`. If `result` is a
/// refusal, `refuse` turns it into the answer, and `undone` is logged. The level of the log line is
/// debug, because a stranger can cause the line.
pub(super) fn answer(
    mut span: Span,
    route: &'static str,
    undone: &'static str,
    result: Result<Response, ReportRefusal>,
    refuse: impl FnOnce(ReportRefusal) -> Response,
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

impl Reports {
    /// Counts a refused report that an issuer has signed, and notes it in the journal of reports. A
    /// report without a verified signature is neither counted nor noted, because a stranger may
    /// have written it.
    pub(super) fn note_refused(&self, report: ReportKind, refused: &ReportRefusal) {
        let Some(signed) = &refused.signed else {
            return;
        };
        let metrics = &self.metrics;
        metrics.reports_refused.inc((report, signed.fault));
        let authenticator = &self.context.authenticator;
        authenticator.note_failed_report(&signed.issuer, report.as_str(), "refused", &signed.why);
    }
}
