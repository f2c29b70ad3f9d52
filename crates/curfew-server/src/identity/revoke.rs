//! `POST /revoke`: the holder of an access token revokes the token, and the token's sessions end
//! (RFC 7009).
//!
//! A client needs no credential except the valid token that it revokes.

use std::sync::Arc;

use curfew_auth::{ReportSubject, VerifyError};
use curfew_model::{AuthFailure, Principal, Revocation, RevocationKey};
use curfew_telemetry::Span;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use tracing::{Instrument as _, debug, info};

use super::Reports;
use super::form::done;
use super::refusal::{ReportRefusal, answer, refused_span};
use super::report::Delivery;
use crate::config::paths;
use crate::http::Response;
use crate::http::cors;

/// The name of the span of a token revocation.
const SPAN: &str = "POST /revoke";

/// The status of the answer to a request that cannot take full effect now. The client may repeat
/// the request (§2.2.1).
const NOT_NOW: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

impl Reports {
    /// Answers a token revocation. The client may be a page of another origin (§2.3).
    pub(super) async fn token_revocation(
        self: &Arc<Self>,
        request: Request<Incoming>,
        delivery: &Delivery,
    ) -> Response {
        let allowed = cors::allowed(request.headers(), &delivery.settings.origins);
        let mut response = match *request.method() {
            Method::OPTIONS => cors::preflight(request.headers(), &Method::POST),
            _ => self.take_back(request, delivery).await,
        };
        cors::share_with(allowed, response.headers_mut());
        response
    }

    async fn take_back(
        self: &Arc<Self>,
        request: Request<Incoming>,
        delivery: &Delivery,
    ) -> Response {
        let tracer = self.metrics.tracer();
        let Delivery { asked, began, .. } = delivery;
        let (span, result) = match self.take_token(request, delivery).await {
            Err(refused) => {
                self.charge(delivery, &refused);
                let span = refused_span(tracer, &refused, SPAN, asked, *began);
                (span, Err(refused))
            }
            // The answer for an invalid token is the same as for a revoked token (§2.2).
            Ok(None) => {
                self.charge_token(delivery);
                return done();
            }
            Ok(Some(principal)) if self.is_given_back(&principal).await => return done(),
            Ok(Some(principal)) => {
                let mut span = tracer.always(SPAN, asked.origin.clone());
                span.began(*began);
                asked.describe(&mut span);
                let give_back = self.give_back(&principal, &span).instrument(span.scope());
                let result = give_back.await;
                (span, result)
            }
        };
        let result = result.map(|()| done());
        answer(
            span,
            paths::TOKEN_REVOCATION,
            "token not revoked",
            result,
            ReportRefusal::into_response,
        )
    }

    /// Verifies the token in the body of the request. Returns `None` if the token is invalid.
    async fn take_token(
        &self,
        request: Request<Incoming>,
        delivery: &Delivery,
    ) -> Result<Option<Arc<Principal>>, ReportRefusal> {
        let form = self.form(request, self.may_report(delivery)).await?;
        match self.context.verify(form.field("token")?).await {
            Ok(principal) => Ok(Some(principal)),
            // The token may become valid later, so the answer must not say that it is revoked.
            Err(VerifyError::Refused(error))
                if matches!(
                    error.failure(),
                    AuthFailure::NotYetValid | AuthFailure::UnknownKey
                ) =>
            {
                Err(ReportRefusal::unavailable(
                    NOT_NOW,
                    "the token cannot be verified yet",
                ))
            }
            Err(VerifyError::Refused(error)) => {
                debug!(
                    reason = error.failure().as_str(),
                    "token to be revoked is invalid"
                );
                Ok(None)
            }
            Err(VerifyError::Unknown(why)) => Err(ReportRefusal::unverified(&why)),
        }
    }

    /// Returns true if the token is already revoked. A repeated request then writes nothing.
    async fn is_given_back(&self, principal: &Principal) -> bool {
        let Some(token_id) = principal.token_id() else {
            return false;
        };
        let key = [self.token_key(principal, token_id)];
        let revocations = &self.context.node.backends().revocations;
        matches!(
            revocations.check(&key, principal.issued_at()).await,
            Ok(Some(_))
        )
    }

    fn token_key(&self, principal: &Principal, token_id: &str) -> RevocationKey {
        let token = ReportSubject::Token {
            issuer: principal.issuer().into(),
            id: token_id.to_owned(),
        };
        token.key()
    }

    async fn give_back(&self, principal: &Principal, span: &Span) -> Result<(), ReportRefusal> {
        let Some(token_id) = principal.token_id() else {
            return Err(ReportRefusal {
                error: "unsupported_token_type",
                ..ReportRefusal::invalid(
                    "the token has no jti, without which a single token cannot be revoked",
                )
            });
        };
        // The revocation lasts until one second after the end of the token's access.
        let ends_at = principal.ends_at().as_secs().saturating_add(1);
        let revocation = Revocation {
            before: None,
            reason: Some("token_revocation".into()),
            expires_at: Some(ends_at),
            trace: span.context(),
        };
        let key = self.token_key(principal, token_id);
        let node = &self.context.node;
        let written = node.revoke_or_end_here(key.clone(), revocation).await;
        let receipt = written.map_err(|_| {
            ReportRefusal::unavailable(
                NOT_NOW,
                "sessions of this node are closed; try again to close sessions of other nodes",
            )
        })?;
        node.tell_receipt(&key, &receipt);
        info!(
            live = receipt.nodes.live,
            confirmed = receipt.nodes.confirmed,
            missing = ?receipt.nodes.missing,
            closed = receipt.closed,
            "token revoked by its holder"
        );
        Ok(())
    }
}
