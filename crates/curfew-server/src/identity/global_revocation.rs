//! `POST /v1/global-token-revocation`: an issuer ends all of a user's sessions
//! (draft-parecki-oauth-global-token-revocation-05, which Okta calls Universal Logout).

use std::sync::Arc;

use curfew_auth::{Authenticator, KeyWait, ReportSubject, RevocationError, Revoker, VerifyError};
use curfew_model::json::object_text;
use curfew_telemetry::{Counters, Span};
use http::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::Value;

use super::Reports;
use super::end_access::{AccessEnd, not_ended};
use super::form::{done, media_type, posted};
use super::refusal::ReportRefusal;
use super::report::{Delivery, OrderName, Report};
use crate::config::{Snapshot, paths};
use crate::http::{Response, bearer};
use crate::metrics::{LogoutOutcome, ReportFault, ReportKind, ServerMetrics};

/// The media type of the body of a request.
const MEDIA_TYPE: &str = "application/json";

/// The status of the answer to a request that cannot take full effect now.
const NOT_NOW: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

/// The body of a request (§3 of the draft). Up to version -02 of the draft, the member `sub_id` was
/// called `subject`.
#[derive(Deserialize)]
struct Body {
    #[serde(alias = "subject")]
    sub_id: Value,
}

/// A received request: `token` is the token that identifies the issuer, and `body` names the user.
struct Assertion {
    token: String,
    body: String,
}

/// The user whose sessions are to end, and the issuer that requests it.
struct RevokedUser {
    revoker: Revoker,
    /// The subjects to revoke. Each of them names the user.
    subjects: Vec<ReportSubject>,
}

impl Report for Assertion {
    const KIND: ReportKind = ReportKind::GlobalTokenRevocation;
    const ROUTE: &'static str = paths::GLOBAL_REVOCATION;
    const SPAN: &'static str = "POST /v1/global-token-revocation";
    const REFUSED: &'static str = "user not revoked";

    type Verified = Revoker;
    type Order = RevokedUser;
    type Outcome = LogoutOutcome;

    async fn verify(
        &self,
        authenticator: &Authenticator,
        wait: KeyWait,
    ) -> Result<Revoker, VerifyError> {
        authenticator.verify_revoker(&self.token, wait).await
    }

    /// Returns the user that the body names, if the verified issuer may revoke this user.
    fn order(
        self,
        reports: &Reports,
        verified: Result<Revoker, VerifyError>,
    ) -> Result<RevokedUser, ReportRefusal> {
        let revoker = match verified {
            Ok(revoker) => revoker,
            Err(VerifyError::Refused(error)) => {
                return Err(ReportRefusal {
                    signed: ReportRefusal::of_report(&error).signed,
                    ..unauthorized(error.message())
                });
            }
            Err(VerifyError::Unknown(why)) => return Err(ReportRefusal::unverified(&why)),
        };
        let body: Body = object_text(self.body.as_bytes())
            .and_then(|text| serde_json::from_str(text).ok())
            .ok_or_else(|| ReportRefusal::invalid("the body is not a JSON object with sub_id"))?;
        let authenticator = &reports.context.authenticator;
        match authenticator.revoked_subjects(&revoker, &body.sub_id) {
            Ok(subjects) => Ok(RevokedUser { revoker, subjects }),
            Err(RevocationError::Malformed(why)) => {
                let refused = ReportRefusal::invalid(why.clone());
                Err(refused.signed(&revoker.issuer, ReportFault::Subject, why))
            }
            Err(error @ RevocationError::Foreign) => Err(ReportRefusal {
                status: StatusCode::FORBIDDEN,
                error: "access_denied",
                ..ReportRefusal::invalid(error.to_string())
            }
            .signed(&revoker.issuer, ReportFault::Subject, error.to_string())),
        }
    }

    fn name(user: &RevokedUser) -> OrderName<'_> {
        OrderName {
            issuer: &user.revoker.issuer,
            event: None,
            ends_access: true,
        }
    }

    /// Revokes all tokens of the user that were issued until now, and so ends their sessions. The
    /// answer for a user without sessions is the same, so the issuer does not learn if the user has
    /// sessions. (§4 also allows 404.)
    async fn carry_out(
        user: &RevokedUser,
        reports: &Reports,
        settings: &Snapshot,
        span: &Span,
    ) -> Result<LogoutOutcome, ReportRefusal> {
        let RevokedUser { revoker, subjects } = user;
        let now = reports.context.node.clock().unix();
        let end = AccessEnd {
            issuer: &revoker.issuer,
            report: Assertion::KIND.as_str(),
            subjects,
            // The later of two times is used: the current time, and the time at which the issuer
            // signed its token. A session from before the request then ends even if the two clocks
            // differ.
            at: revoker.issued_at.max(Some(now)).unwrap_or(now),
        };
        let found = reports.end_access(end, settings, span).await;
        found.map_err(|error| not_ended(&error, NOT_NOW))?;
        Ok(LogoutOutcome::Accepted)
    }

    fn counter(metrics: &ServerMetrics) -> &Counters<LogoutOutcome> {
        &metrics.global_revocations
    }

    fn done() -> Response {
        let mut response = done();
        *response.status_mut() = StatusCode::NO_CONTENT;
        response
    }

    fn refuse(refused: ReportRefusal) -> Response {
        let status = refused.status;
        let mut response = refused.into_response();
        if status == StatusCode::UNAUTHORIZED {
            let bearer = HeaderValue::from_static(r#"Bearer error="invalid_token""#);
            response.headers_mut().insert(WWW_AUTHENTICATE, bearer);
        }
        response
    }
}

impl Reports {
    /// Answers a request of an issuer to end a user's sessions.
    pub(super) async fn global_revocation(
        self: &Arc<Self>,
        request: Request<Incoming>,
        delivery: &Delivery,
    ) -> Response {
        let received = self.receive_assertion(request, delivery).await;
        self.take_report(received, delivery).await
    }

    /// Reads the issuer's token from the header `Authorization`, and the body.
    async fn receive_assertion(
        &self,
        request: Request<Incoming>,
        delivery: &Delivery,
    ) -> Result<Assertion, ReportRefusal> {
        let token = bearer(request.headers()).map(str::to_owned);
        let is_json = |headers: &HeaderMap| media_type(headers).eq_ignore_ascii_case(MEDIA_TYPE);
        let body = posted(request, self.may_report(delivery), MEDIA_TYPE, is_json).await?;
        let token = token
            .ok_or_else(|| unauthorized("send a token in the header Authorization: Bearer"))?;
        Ok(Assertion { token, body })
    }
}

fn unauthorized(description: &str) -> ReportRefusal {
    ReportRefusal {
        status: StatusCode::UNAUTHORIZED,
        error: "invalid_token",
        ..ReportRefusal::invalid(description)
    }
}
