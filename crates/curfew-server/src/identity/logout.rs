//! `POST /logout/backchannel`: an identity provider ends sessions (OpenID Connect Back-Channel
//! Logout 1.0, §2.5 to §2.8).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use curfew_auth::{Logout, LogoutScope, Subject, VerifyError};
use curfew_backend::SessionFilter;
use curfew_telemetry::Span;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde_json::Value;
use tracing::Instrument as _;

use crate::config::paths;
use crate::http::Response;
use crate::http::span::Asked;
use crate::identity::Reports;
use crate::identity::ending::{Ended, Ending};
use crate::identity::form::{FormError, answer, done, refused_span};
use crate::metrics::{LogoutOutcome, Report, ReportFault};

/// The span of a call: always recorded for a good token, which ends sessions.
const SPAN: &str = "POST /logout/backchannel";

/// What is reported here.
const REPORT: &str = "backchannel_logout";

/// Said where a login is unknown and its user is not.
const NOBODY_FOUND: &str = "no session has the login that it names, and the user has sessions of other logins: \
    compare sid of logout tokens and of access tokens, by curfew doctor";

/// A user's sessions that are looked at for their logins.
const LOOKED_AT: usize = 20;

/// §2.8 knows no other status for what was not done, whosever fault it is.
const NOT_DONE: StatusCode = StatusCode::BAD_REQUEST;

impl Reports {
    /// Answers a provider.
    pub(crate) async fn backchannel_logout(
        self: &Arc<Self>,
        request: Request<Incoming>,
        address: IpAddr,
    ) -> Response {
        let tracer = self.metrics.tracer();
        let asked = Asked::of(tracer, &request);
        let began = tracer.now();
        let judged = match self.take_logout_token(request, address).await {
            Ok(token) => {
                let authenticator = &self.context.authenticator;
                let verified = authenticator.verify_logout(&token).await;
                let (reports, asked) = (Arc::clone(self), asked.clone());
                let later = {
                    let authenticator = Arc::clone(authenticator);
                    async move { authenticator.verify_logout_later(&token).await }
                };
                let conclude = async move |verified: Result<Logout, VerifyError>| {
                    let taken = verified.map_err(|error| match error {
                        VerifyError::Refused(error) => FormError::of_report(&error),
                        VerifyError::Unknown(why) => FormError::unverified(&why),
                    });
                    reports.conclude_logout(taken, &asked, began, address).await
                };
                self.judge_report(
                    Report::BackchannelLogout,
                    address,
                    verified,
                    later,
                    conclude,
                )
                .await
            }
            Err(refused) => Err(refused),
        };
        match judged {
            Ok(response) => response,
            Err(refused) => {
                self.conclude_logout(Err(refused), &asked, began, address)
                    .await
            }
        }
    }

    async fn conclude_logout(
        self: &Arc<Self>,
        taken: Result<Logout, FormError>,
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
                (span, Err(refused))
            }
            Ok(logout) => {
                let mut span = tracer.always(SPAN, asked.origin.clone());
                span.began(began);
                asked.describe(&mut span);
                let issuer = Arc::clone(&logout.issuer);
                let log_out = self.log_out(logout, &span).instrument(span.scope());
                let result = log_out.await;
                self.note_logout(&issuer, &result);
                (span, result)
            }
        };
        metrics.logouts.inc(match &result {
            Ok(outcome) => *outcome,
            Err(refused) => refusal(refused),
        });
        if let Err(refused) = &result {
            self.note_refused(Report::BackchannelLogout, refused);
        }
        let result = result.map(|_| done());
        answer(
            span,
            paths::LOGOUT,
            "logout not done",
            result,
            FormError::into_response,
        )
    }

    async fn take_logout_token(
        &self,
        request: Request<Incoming>,
        address: IpAddr,
    ) -> Result<String, FormError> {
        let form = self.form(request, self.may_report(address)).await?;
        form.field("logout_token").map(str::to_owned)
    }

    /// Remembers what became of a logout that was good. What is refused is told by
    /// [`Reports::note_refused`].
    fn note_logout(&self, issuer: &str, result: &Result<LogoutOutcome, FormError>) {
        let authenticator = &self.context.authenticator;
        match result {
            Ok(outcome @ LogoutOutcome::NobodyFound) => {
                authenticator.note_failed_report(issuer, REPORT, outcome.as_str(), NOBODY_FOUND);
            }
            Ok(outcome) => authenticator.note_report(issuer, REPORT, outcome.as_str()),
            Err(refused) => authenticator.note_report(issuer, REPORT, refusal(refused).as_str()),
        }
    }

    /// §2.7: a login's sessions, or all of the user's at the issuer that began before. Nobody being
    /// logged in is a success.
    async fn log_out(&self, logout: Logout, span: &Span) -> Result<LogoutOutcome, FormError> {
        let Logout {
            issuer,
            namesakes,
            user,
            login,
            scope,
            issued_at,
        } = logout;
        let login_claim = self.settings.load().auth.login_claim.clone();
        let login = login.filter(|_| scope == LogoutScope::Login);
        let subjects = match (&login, &user) {
            (Some(value), _) => vec![Subject::Login {
                claim: login_claim.clone(),
                value: value.clone(),
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
                let why = format!(
                    "access tokens of this issuer have no claim {login_claim}, by which the login could be found"
                );
                let refused = FormError {
                    error: "sid_unknown_here",
                    ..FormError::invalid(why.clone())
                };
                return Err(refused.signed(&issuer, ReportFault::Subject, why));
            }
        };
        let ending = Ending {
            issuer: &issuer,
            report: REPORT,
            subjects: &subjects,
            at: issued_at,
        };
        let ended = self.end_access(ending, span).await;
        let ended = ended.map_err(|error| error.into_refused(NOT_DONE))?;
        if let (Some(login), Some(user), Ended::Nobody) = (login, user, ended)
            && self
                .has_other_login(&issuer, user, &login_claim, &login)
                .await
        {
            return Ok(LogoutOutcome::NobodyFound);
        }
        Ok(LogoutOutcome::Accepted)
    }

    /// True if a user of an issuer has sessions, all of other logins.
    async fn has_other_login(&self, issuer: &str, user: String, claim: &str, login: &str) -> bool {
        let filter = SessionFilter {
            user: Some(user),
            limit: LOOKED_AT,
            ..SessionFilter::default()
        };
        let sessions = &self.context.node.backends().sessions;
        // The logout is in force; without the list there is nothing to warn of.
        let Ok(page) = sessions.list(&filter).await else {
            return false;
        };
        let of_issuer = page.sessions.iter().map(|record| &record.principal);
        let mut logins = of_issuer
            .filter(|principal| *principal.issuer() == *issuer)
            .map(|principal| principal.claims().parse().remove(claim))
            .peekable();
        logins.peek().is_some()
            && logins.all(|other| other.as_ref().and_then(Value::as_str) != Some(login))
    }
}

pub(crate) fn refusal(refused: &FormError) -> LogoutOutcome {
    match refused.error {
        FormError::RATE_LIMITED => LogoutOutcome::RateLimited,
        _ if refused.is_kept => LogoutOutcome::Kept,
        _ if refused.is_unavailable() => LogoutOutcome::Unavailable,
        _ => LogoutOutcome::Refused,
    }
}
