//! `POST /logout/backchannel`: an identity provider ends sessions (OpenID Connect Back-Channel
//! Logout 1.0, §2.5 to §2.8).

use std::sync::Arc;
use std::time::Duration;

use curfew_auth::{Logout, LogoutScope, VerifyError};
use curfew_model::{ISSUER_USER, Revocation, RevocationKey, of_issuer};
use curfew_telemetry::{LogoutOutcome, Origin, Span};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use tracing::{Instrument as _, info};

use crate::Public;
use crate::form::{Refused, answer, refused_span};
use crate::respond::Response;
use crate::upgrade::traceparent;

/// The path.
pub(crate) const PATH: &str = "/logout/backchannel";

/// The span of a call: always recorded for a good token, which ends sessions.
const SPAN: &str = "POST /logout/backchannel";

/// How long a logout is remembered where `auth.max_token_lifetime` does not say for how long tokens
/// from before it may come back.
const LONG: Duration = Duration::from_secs(30 * 24 * 3600);

/// §2.8 knows no other status for what was not done, whosever fault it is.
const NOT_DONE: StatusCode = StatusCode::BAD_REQUEST;

impl Public {
    /// Answers a provider.
    pub(crate) async fn backchannel_logout(
        self: &Arc<Self>,
        request: Request<Incoming>,
    ) -> Response {
        let metrics = self.context.node.metrics();
        let tracer = metrics.tracer();
        let origin = Origin::client(traceparent(request.headers()));
        let began = tracer.now();
        let (span, result) = match self.take_logout(request).await {
            Err(refused) => {
                let span = refused_span(tracer, &refused, SPAN, origin, began);
                (span, Err(refused))
            }
            Ok(logout) => {
                let mut span = tracer.always(SPAN, origin);
                span.began(began);
                let log_out = self.log_out(logout, &span).instrument(span.scope());
                let result = log_out.await;
                (span, result)
            }
        };
        metrics.logouts.inc(match &result {
            Ok(()) => LogoutOutcome::Accepted,
            Err(refused) if refused.is_unavailable() => LogoutOutcome::Unavailable,
            Err(_) => LogoutOutcome::Refused,
        });
        answer(span, PATH, "logout not done", result)
    }

    async fn take_logout(&self, request: Request<Incoming>) -> Result<Logout, Refused> {
        let form = self.form(request, self.permits.logout(), NOT_DONE).await?;
        let token = form.field("logout_token")?;
        match self.context.authenticator.verify_logout(token).await {
            Ok(logout) => Ok(logout),
            Err(VerifyError::Refused(error)) => Err(Refused::invalid(error.message())),
            Err(VerifyError::KeysUnavailable(_)) => Err(Refused::unavailable(
                NOT_DONE,
                "the issuer's keys are not available",
            )),
        }
    }

    /// §2.7: a login's sessions, or all of the user's at the issuer that began before. Nobody being
    /// logged in is a success.
    async fn log_out(&self, logout: Logout, span: &Span) -> Result<(), Refused> {
        let node = &self.context.node;
        let settings = self.settings.load_full();
        let auth = &settings.auth;
        let lifetime = match auth.max_token_lifetime {
            Duration::ZERO => LONG,
            // A token's `iat` may be ahead by the leeway, and its end later by as much.
            lifetime => lifetime + 2 * auth.leeway,
        };
        let login = logout
            .login
            .as_ref()
            .filter(|_| logout.scope == LogoutScope::Login);
        let (key, before) = match (login, &logout.user) {
            // A new login has a new name: nothing is to be let in again.
            (Some(login), _) => (RevocationKey::claim(&auth.login_claim, login), None),
            (None, Some(user)) => (
                user_key(auth.issuers.len(), &logout.issuer, user),
                Some(logout.issued_at),
            ),
            (None, None) => {
                return Err(Refused {
                    error: "sid_unknown_here",
                    ..Refused::invalid(format!(
                        "access tokens of this issuer have no claim {}, by which the login could be found",
                        auth.login_claim
                    ))
                });
            }
        };
        let kind = key.kind().to_owned();
        let revocation = Revocation {
            before,
            reason: Some("backchannel_logout".into()),
            expires_at: Some(node.clock().unix().saturating_add(lifetime.as_secs())),
            trace: span.context(),
        };
        let receipt = node.revoke_reported(key, revocation).await.map_err(|_| {
            let description =
                "sessions here are closed; those of other nodes as soon as the backend is back";
            Refused::unavailable(NOT_DONE, description)
        })?;
        // Neither the user nor the login: both name a person.
        info!(
            issuer = %logout.issuer,
            kind,
            live = receipt.nodes.live,
            confirmed = receipt.nodes.confirmed,
            closed = receipt.closed,
            "logged out by the identity provider"
        );
        Ok(())
    }
}

/// A user of one issuer, where there are several: others may have a user of the same name.
fn user_key(issuers: usize, issuer: &str, user: &str) -> RevocationKey {
    match issuers {
        1 => RevocationKey::user(user),
        _ => RevocationKey::claim(ISSUER_USER, &of_issuer(issuer, user)),
    }
}
