//! `POST /logout/backchannel`: an identity provider ends sessions (OpenID Connect Back-Channel
//! Logout 1.0, §2.5 to §2.8).

use std::sync::Arc;

use curfew_auth::{Authenticator, KeyWait, Logout, LogoutScope, ReportSubject, VerifyError};
use curfew_backend::SessionFilter;
use curfew_telemetry::{Counters, Span};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde_json::Value;

use super::Reports;
use super::end_access::{AccessEnd, SessionsFound, not_ended};
use super::form::done;
use super::refusal::ReportRefusal;
use super::report::{Delivery, OrderName, Report};
use crate::config::{Snapshot, paths};
use crate::http::Response;
use crate::metrics::{LogoutOutcome, ReportFault, ReportKind, ServerMetrics};

/// The advice to the operator if no session has the named login although its user has sessions.
const NOBODY_FOUND: &str = "no session has the login in the logout token (sid), but the user has sessions of \
    other logins: let curfew doctor compare the sid of logout tokens with the sid of access tokens";

/// Maximum number of a user's sessions whose login is compared with the login of a logout token.
const LOOKED_AT: usize = 20;

/// The status of the answer to a logout that failed. §2.8 defines no other status for failures.
const NOT_DONE: StatusCode = StatusCode::BAD_REQUEST;

/// A received logout token, not verified.
struct LogoutToken(String);

impl Report for LogoutToken {
    const KIND: ReportKind = ReportKind::BackchannelLogout;
    const ROUTE: &'static str = paths::LOGOUT;
    const SPAN: &'static str = "POST /logout/backchannel";
    const REFUSED: &'static str = "logout not done";

    type Verified = Logout;
    type Order = Logout;
    type Outcome = LogoutOutcome;

    async fn verify(
        &self,
        authenticator: &Authenticator,
        wait: KeyWait,
    ) -> Result<Logout, VerifyError> {
        authenticator.verify_logout(&self.0, wait).await
    }

    fn order(
        self,
        _: &Reports,
        verified: Result<Logout, VerifyError>,
    ) -> Result<Logout, ReportRefusal> {
        verified.map_err(|error| ReportRefusal::not_verified(&error))
    }

    fn name(logout: &Logout) -> OrderName<'_> {
        OrderName {
            issuer: &logout.issuer,
            event: None,
            ends_access: true,
        }
    }

    /// Ends every session of the login that the logout token names (§2.7). If the token names no
    /// login, or if the scope is [`LogoutScope::User`], ends the user's sessions whose tokens were
    /// issued up to the logout, by this issuer or by another configured issuer with the same `iss`.
    /// A logout that closes no session is a success too.
    async fn carry_out(
        logout: &Logout,
        reports: &Reports,
        settings: &Snapshot,
        span: &Span,
    ) -> Result<LogoutOutcome, ReportRefusal> {
        let Logout {
            issuer,
            namesakes,
            user,
            login,
            scope,
            issued_at,
        } = logout;
        let login_claim = &settings.auth.login_claim;
        let login = login.as_ref().filter(|_| *scope == LogoutScope::Login);
        let subjects = match (login, user) {
            (Some(value), _) => vec![ReportSubject::Login {
                claim: login_claim.clone(),
                value: value.clone(),
            }],
            (None, Some(user)) => {
                let issuers = [issuer].into_iter().chain(namesakes);
                let of = |issuer: &Arc<str>| ReportSubject::User {
                    issuer: Arc::clone(issuer),
                    user: user.clone(),
                };
                issuers.map(of).collect()
            }
            (None, None) => {
                let why = "the logout token has no sub, and logout_scope = \"user\" finds sessions only by sub";
                let refused = ReportRefusal {
                    error: "sid_unknown_here",
                    ..ReportRefusal::invalid(why)
                };
                return Err(refused.signed(issuer, ReportFault::Subject, why.to_owned()));
            }
        };
        let end = AccessEnd {
            issuer,
            report: LogoutToken::KIND.as_str(),
            subjects: &subjects,
            at: *issued_at,
        };
        let found = reports.end_access(end, settings, span).await;
        let found = found.map_err(|error| not_ended(&error, NOT_DONE))?;
        if let (Some(login), Some(user), SessionsFound::None) = (login, user, found)
            && reports
                .has_other_login(issuer, user.clone(), login_claim, login)
                .await
        {
            return Ok(LogoutOutcome::NobodyFound);
        }
        Ok(LogoutOutcome::Accepted)
    }

    fn counter(metrics: &ServerMetrics) -> &Counters<LogoutOutcome> {
        &metrics.logouts
    }

    fn done() -> Response {
        done()
    }

    fn advice(outcome: LogoutOutcome) -> Option<&'static str> {
        (outcome == LogoutOutcome::NobodyFound).then_some(NOBODY_FOUND)
    }
}

impl Reports {
    /// Answers a request of an identity provider to end sessions.
    pub(super) async fn backchannel_logout(
        self: &Arc<Self>,
        request: Request<Incoming>,
        delivery: &Delivery,
    ) -> Response {
        let received = self.receive_logout_token(request, delivery).await;
        self.take_report(received, delivery).await
    }

    async fn receive_logout_token(
        &self,
        request: Request<Incoming>,
        delivery: &Delivery,
    ) -> Result<LogoutToken, ReportRefusal> {
        let form = self.form(request, self.may_report(delivery)).await?;
        let token = form.field("logout_token")?;
        Ok(LogoutToken(token.to_owned()))
    }

    /// True if the user has sessions with tokens of `issuer`, and in none of these tokens the claim
    /// `claim` has the value `login`.
    async fn has_other_login(&self, issuer: &str, user: String, claim: &str, login: &str) -> bool {
        let filter = SessionFilter {
            user: Some(user),
            limit: LOOKED_AT,
            ..SessionFilter::default()
        };
        let sessions = &self.context.node.backends().sessions;
        // The logout has taken effect even if the sessions cannot be listed. Only the advice is
        // then missing.
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
