//! The refusal of an upgrade, and its answer.

use curfew_auth::{AuthError, Reject, VerifyError};
use curfew_node::AdmitError;
use curfew_session::{AdmissionError, Failure, Opening, Refusal};
use curfew_ws::HandshakeError;

use crate::config::ServerSettings;
use crate::http::refusal::{backend_away, forbidden_origin, revoked, unauthorized};
use crate::http::{Problem, Response};
use crate::metrics::RejectReason;

/// A refused upgrade: the reason that metrics count, the error type of the span, and the answer.
pub(super) struct UpgradeRefusal {
    pub(super) reason: RejectReason,
    pub(super) error_type: &'static str,
    pub(super) response: Box<Response>,
}

impl UpgradeRefusal {
    pub(super) fn new(reason: RejectReason, problem: Problem) -> Self {
        Self {
            reason,
            error_type: reason.as_str(),
            response: Box::new(problem.into_response()),
        }
    }

    pub(super) fn handshake(error: &HandshakeError) -> Self {
        let problem = Problem::new(error.status(), error.reason(), error.to_string());
        let mut refused = Self::new(RejectReason::BadRequest, problem);
        refused.response.headers_mut().extend(error.headers());
        refused
    }

    pub(super) fn forbidden_origin(detail: &'static str) -> Self {
        Self::new(RejectReason::Origin, forbidden_origin(detail))
    }
}

/// Refuses a client that is not admitted. If the node is draining, or if the backend or the
/// issuer's keys are unavailable, the answer is 503. Otherwise `auth.reject` selects the answer: an
/// HTTP error, or a session that reports the refusal. The limit of sessions is always reported by a
/// session.
pub(super) fn not_admitted(
    settings: &ServerSettings,
    error: AdmissionError,
) -> Result<Opening, UpgradeRefusal> {
    let Failure { error_type, .. } = Failure::from(&error);
    let (reason, problem) = match error {
        AdmissionError::Token(VerifyError::Refused(error)) => return refuse(settings, &error),
        AdmissionError::Token(VerifyError::Unknown(why)) => {
            let problem = Problem::unavailable(why.message()).after(why.retry_after());
            (RejectReason::Unavailable, problem)
        }
        AdmissionError::Session(AdmitError::Backend(error)) => {
            (RejectReason::Unavailable, backend_away(&error))
        }
        AdmissionError::Session(AdmitError::Draining) => {
            let problem = Problem::unavailable("the node is leaving service, connect again");
            (RejectReason::Draining, problem)
        }
        AdmissionError::Session(
            error @ (AdmitError::Revoked(_)
            | AdmitError::Ended(_)
            | AdmitError::SessionLimit { .. }),
        ) => {
            return match (settings.auth.reject, revoked(&error)) {
                (Reject::Http, Some(error)) => refuse(settings, &error),
                _ => Ok(Opening::Refused(Refusal::from(error))),
            };
        }
    };
    Err(UpgradeRefusal {
        error_type,
        ..UpgradeRefusal::new(reason, problem)
    })
}

/// Refuses a client because of its token. `auth.reject` selects the answer: an HTTP error, or a
/// session that reports the refusal.
fn refuse(settings: &ServerSettings, error: &AuthError) -> Result<Opening, UpgradeRefusal> {
    match settings.auth.reject {
        Reject::Message => Ok(Opening::Refused(Refusal::token(
            error.failure(),
            error.message().to_owned(),
        ))),
        Reject::Http => Err(UpgradeRefusal {
            reason: RejectReason::Auth,
            error_type: error.failure().as_str(),
            response: Box::new(unauthorized(error)),
        }),
    }
}
