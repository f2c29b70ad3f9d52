//! `POST /v1/global-token-revocation`: an issuer ends all of a user's sessions
//! (draft-parecki-oauth-global-token-revocation-05, which Okta calls Universal Logout).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use curfew_auth::{RevocationError, Revoker, Subject, VerifyError};
use curfew_model::json::object_text;
use curfew_telemetry::Span;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::Value;
use tracing::Instrument as _;

use crate::config::paths;
use crate::http::Response;
use crate::http::span::Asked;
use crate::identity::Reports;
use crate::identity::ending::Ending;
use crate::identity::form::{FormError, answer, done, posted, refused_span};
use crate::identity::logout::refusal;
use crate::metrics::{LogoutOutcome, Report, ReportFault};

/// The span of a call: always recorded for a good one.
const SPAN: &str = "POST /v1/global-token-revocation";

/// What is reported here.
const REPORT: &str = "global_token_revocation";

/// What is not done now may be tried again.
const NOT_NOW: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

/// §3 of the draft; `subject` is what versions up to -02 called it.
#[derive(Deserialize)]
struct Body {
    #[serde(alias = "subject")]
    sub_id: Value,
}

impl Reports {
    /// Answers an issuer.
    pub(crate) async fn global_revocation(
        self: &Arc<Self>,
        request: Request<Incoming>,
        address: IpAddr,
    ) -> Response {
        let tracer = self.metrics.tracer();
        let asked = Asked::of(tracer, &request);
        let began = tracer.now();
        let judged = match self.take_assertion(request, address).await {
            Ok((token, body)) => {
                let authenticator = &self.context.authenticator;
                let verified = authenticator.verify_revoker(&token).await;
                let (reports, asked) = (Arc::clone(self), asked.clone());
                let later = {
                    let authenticator = Arc::clone(authenticator);
                    async move { authenticator.verify_revoker_later(&token).await }
                };
                let conclude = async move |verified: Result<Revoker, VerifyError>| {
                    let taken = reports.find_revoked(verified, &body);
                    reports
                        .conclude_revocation(taken, &asked, began, address)
                        .await
                };
                let report = Report::GlobalTokenRevocation;
                self.judge_report(report, address, verified, later, conclude)
                    .await
            }
            Err(refused) => Err(refused),
        };
        match judged {
            Ok(response) => response,
            Err(refused) => {
                self.conclude_revocation(Err(refused), &asked, began, address)
                    .await
            }
        }
    }

    async fn conclude_revocation(
        self: &Arc<Self>,
        taken: Result<(Revoker, Vec<Subject>), FormError>,
        asked: &Asked,
        began: SystemTime,
        address: IpAddr,
    ) -> Response {
        let metrics = &self.metrics;
        let tracer = metrics.tracer();
        let (span, result) = match taken {
            Err(refused) => {
                self.charge(address, &refused);
                let span = refused_span(tracer, &refused, SPAN, asked, began);
                metrics.global_revocations.inc(refusal(&refused));
                self.note_refused(Report::GlobalTokenRevocation, &refused);
                (span, Err(refused))
            }
            Ok((revoker, subjects)) => {
                let mut span = tracer.always(SPAN, asked.origin.clone());
                span.began(began);
                asked.describe(&mut span);
                let revoke = self.revoke_user(&revoker, &subjects, &span);
                let result = revoke.instrument(span.scope()).await;
                let outcome = match &result {
                    Ok(()) => LogoutOutcome::Accepted,
                    Err(refused) => refusal(refused),
                };
                metrics.global_revocations.inc(outcome);
                let authenticator = &self.context.authenticator;
                authenticator.note_report(&revoker.issuer, REPORT, outcome.as_str());
                (span, result)
            }
        };
        let result = result.map(|()| {
            let mut response = done();
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        });
        answer(
            span,
            paths::GLOBAL_REVOCATION,
            "user not revoked",
            result,
            refuse,
        )
    }

    /// The issuer's token and the body.
    async fn take_assertion(
        &self,
        request: Request<Incoming>,
        address: IpAddr,
    ) -> Result<(String, String), FormError> {
        let token = bearer(request.headers());
        let check = |headers: &HeaderMap| match is_json(headers) {
            true => Ok(()),
            false => Err(FormError::invalid("the body must be application/json")),
        };
        let body = posted(request, self.may_report(address), check).await?;
        let token = token.ok_or_else(|| unauthorized("send a token as Authorization: Bearer"))?;
        Ok((token, body))
    }

    /// Whom an issuer names in `body`.
    fn find_revoked(
        &self,
        verified: Result<Revoker, VerifyError>,
        body: &str,
    ) -> Result<(Revoker, Vec<Subject>), FormError> {
        let revoker = match verified {
            Ok(revoker) => revoker,
            Err(VerifyError::Refused(error)) => {
                return Err(FormError {
                    signed: FormError::of_report(&error).signed,
                    ..unauthorized(error.message())
                });
            }
            Err(VerifyError::Unknown(why)) => return Err(FormError::unverified(&why)),
        };
        let body: Body = object_text(body.as_bytes())
            .and_then(|text| serde_json::from_str(text).ok())
            .ok_or_else(|| FormError::invalid("the body is not a JSON object with sub_id"))?;
        let authenticator = &self.context.authenticator;
        match authenticator.revoked_subjects(&revoker, &body.sub_id) {
            Ok(subjects) => Ok((revoker, subjects)),
            Err(RevocationError::Malformed(why)) => {
                let refused = FormError::invalid(why.clone());
                Err(refused.signed(&revoker.issuer, ReportFault::Subject, why))
            }
            Err(error @ RevocationError::Foreign) => Err(FormError {
                status: StatusCode::FORBIDDEN,
                error: "access_denied",
                ..FormError::invalid(error.to_string())
            }
            .signed(&revoker.issuer, ReportFault::Subject, error.to_string())),
        }
    }

    /// All of a user's sessions until now. Nobody being signed in is a success: whom there is
    /// nothing to be told about is not told (§4 leaves 404 for it).
    async fn revoke_user(
        &self,
        revoker: &Revoker,
        subjects: &[Subject],
        span: &Span,
    ) -> Result<(), FormError> {
        let now = self.context.node.clock().unix();
        let ending = Ending {
            issuer: &revoker.issuer,
            report: REPORT,
            subjects,
            // Whichever clock is ahead: whoever signed in before must not stay.
            at: revoker.issued_at.max(Some(now)).unwrap_or(now),
        };
        let ended = self.end_access(ending, span).await;
        ended.map(drop).map_err(|error| error.into_refused(NOT_NOW))
    }
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let is_bearer = scheme.eq_ignore_ascii_case("bearer");
    is_bearer.then(|| token.trim().to_owned())
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE);
    let value = value.and_then(|value| value.to_str().ok());
    let media_type = value.and_then(|value| value.split(';').next());
    media_type.is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json"))
}

fn unauthorized(description: &str) -> FormError {
    FormError {
        status: StatusCode::UNAUTHORIZED,
        error: "invalid_token",
        ..FormError::invalid(description)
    }
}

fn refuse(refused: FormError) -> Response {
    let status = refused.status;
    let mut response = refused.into_response();
    if status == StatusCode::UNAUTHORIZED {
        let bearer = HeaderValue::from_static(r#"Bearer error="invalid_token""#);
        response.headers_mut().insert(WWW_AUTHENTICATE, bearer);
    }
    response
}
