//! `POST /logout/backchannel`: an identity provider ends sessions (OpenID Connect Back-Channel
//! Logout 1.0, §2.5 to §2.8).

use std::sync::Arc;

use curfew_auth::{Logout, LogoutScope, Subject, VerifyError};
use curfew_telemetry::{LogoutOutcome, Origin, Span};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use tracing::Instrument as _;

use crate::Public;
use crate::ending::{ENDED_HERE, Ending};
use crate::form::{Refused, answer, done, refused_span};
use crate::respond::Response;
use crate::upgrade::traceparent;

/// The path.
pub(crate) const PATH: &str = "/logout/backchannel";

/// The span of a call: always recorded for a good token, which ends sessions.
const SPAN: &str = "POST /logout/backchannel";

/// What is reported here.
const REPORT: &str = "backchannel_logout";

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
                metrics.logouts.inc(outcome(&Err(&refused)));
                (span, Err(refused))
            }
            Ok(logout) => {
                let mut span = tracer.always(SPAN, origin);
                span.began(began);
                let issuer = Arc::clone(&logout.issuer);
                let log_out = self.log_out(logout, &span).instrument(span.scope());
                let result = log_out.await;
                let outcome = outcome(&result.as_ref());
                metrics.logouts.inc(outcome);
                let authenticator = &self.context.authenticator;
                authenticator.note_report(&issuer, REPORT, outcome.as_str());
                (span, result)
            }
        };
        let result = result.map(|()| done());
        answer(
            span,
            PATH,
            "logout not done",
            result,
            Refused::into_response,
        )
    }

    async fn take_logout(&self, request: Request<Incoming>) -> Result<Logout, Refused> {
        let form = self.form(request, self.permits.logout(), NOT_DONE).await?;
        let token = form.field("logout_token")?;
        let verified = self.context.authenticator.verify_logout(token).await;
        match self.context.judge(verified) {
            Ok(logout) => Ok(logout),
            Err(VerifyError::Refused(error)) => Err(Refused::invalid(error.message())),
            Err(VerifyError::Unknown(why)) => Err(Refused::unavailable(NOT_DONE, why.message())),
        }
    }

    /// §2.7: a login's sessions, or all of the user's at the issuer that began before. Nobody being
    /// logged in is a success.
    async fn log_out(&self, logout: Logout, span: &Span) -> Result<(), Refused> {
        let Logout {
            issuer,
            namesakes,
            user,
            login,
            scope,
            issued_at,
        } = logout;
        let login_claim = self.settings.load().auth.login_claim.clone();
        let subjects = match (login.filter(|_| scope == LogoutScope::Login), user) {
            (Some(value), _) => vec![Subject::Login {
                claim: login_claim,
                value,
            }],
            (None, Some(user)) => {
                let issuers = [&issuer].into_iter().chain(&namesakes);
                let of = |issuer: &Arc<str>| Subject::User {
                    issuer: Arc::clone(issuer),
                    user: user.clone(),
                };
                issuers.map(of).collect()
            }
            (None, None) => {
                return Err(Refused {
                    error: "sid_unknown_here",
                    ..Refused::invalid(format!(
                        "access tokens of this issuer have no claim {login_claim}, by which the login could be found"
                    ))
                });
            }
        };
        let ending = Ending {
            issuer: &issuer,
            report: REPORT,
            subjects: &subjects,
            at: issued_at,
        };
        let ended = self.end_access(ending, span).await;
        ended.map_err(|_| Refused::unavailable(NOT_DONE, ENDED_HERE))
    }
}

pub(crate) fn outcome(result: &Result<&(), &Refused>) -> LogoutOutcome {
    match result {
        Ok(()) => LogoutOutcome::Accepted,
        Err(refused) if refused.is_unavailable() => LogoutOutcome::Unavailable,
        Err(_) => LogoutOutcome::Refused,
    }
}
