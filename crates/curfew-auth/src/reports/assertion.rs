//! Issuers that may end all of a user's sessions: Global Token Revocation
//! (draft-parecki-oauth-global-token-revocation, Okta's Universal Logout).

use std::sync::Arc;
use std::time::Duration;

use curfew_model::AuthFailure;
use serde_json::Value;

use super::signed::{ReportClaims, SignedClaims};
use super::subject::{ReportSubject, SubjectMatch};
use crate::ask::{KeyWait, NoKey};
use crate::authenticate::Authenticator;
use crate::token::TokenType;
use crate::token::json::{self, Date, Flaw};
use crate::{AuthError, VerifyError};

/// Maximum remaining lifetime of an assertion, which is the token with which an issuer
/// authenticates. An assertion is made for one request, so a token with a longer lifetime is of
/// another type.
const MAX_REMAINING: Duration = Duration::from_secs(3600);

/// An authenticated issuer that may end its users' sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoker {
    /// The issuer's configured name.
    pub issuer: Arc<str>,
    /// The `iat` of the issuer's assertion in Unix seconds, rounded up; `None` if the assertion has
    /// none. It comes from the issuer's clock, as the `iat` of access tokens does.
    pub issued_at: Option<u64>,
}

/// Reason why no user can be found for a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevocationError {
    /// The request does not have the required form, or no session can be found by its subject.
    #[error("{0}")]
    Malformed(String),
    /// The request names a user of an issuer that the sender does not report on.
    #[error("the user belongs to an issuer that the sender does not report on")]
    Foreign,
}

impl Authenticator {
    /// Returns true if some issuer may revoke users.
    pub fn accepts_global_revocation(&self) -> bool {
        let issuers = self.snapshot();
        let mut reports = issuers
            .all
            .iter()
            .filter_map(|issuer| issuer.reports.as_ref());
        reports.any(|rules| rules.revocation_audience.is_some())
    }

    /// Validates the token with which an issuer authenticates.
    ///
    /// # Errors
    ///
    /// The fault of the token, or [`VerifyError::Unknown`] if the issuer's keys are unavailable.
    pub async fn verify_revoker(&self, token: &str, wait: KeyWait) -> Result<Revoker, VerifyError> {
        let attempt = |now| self.attempt_revoker(token, now);
        wait.run(self.clock(), attempt).await
    }

    fn attempt_revoker(&self, token: &str, now: Duration) -> Result<Revoker, NoKey> {
        let issuers = self.snapshot();
        let leeway = issuers.leeway;
        issuers.signed_report(
            token,
            TokenType::Revocation,
            |issuer| issuer.reports.as_ref()?.revocation_audience.as_ref(),
            |claims, issuer, audience: &Vec<String>| {
                judge(&claims, audience, leeway, now)?;
                Ok(Revoker {
                    issuer: Arc::clone(&issuer.name),
                    issued_at: claims.issued_at.map(Date::up),
                })
            },
        )
    }

    /// Finds the subjects that a request of `revoker` names. `subject` is the request's `sub_id`
    /// (§3 of the draft).
    ///
    /// # Errors
    ///
    /// The value is not a subject, the issuer may not report this subject, or no session can be
    /// found by the subject.
    pub fn revoked_subjects(
        &self,
        revoker: &Revoker,
        subject: &Value,
    ) -> Result<Vec<ReportSubject>, RevocationError> {
        let issuers = self.snapshot();
        let mut all = issuers.all.iter();
        let rules = all
            .find(|issuer| issuer.name == revoker.issuer)
            .and_then(|issuer| issuer.reports.as_ref())
            .ok_or(RevocationError::Foreign)?;
        match rules.find_user(subject) {
            Ok(SubjectMatch::Subjects(subjects)) => Ok(subjects),
            Ok(SubjectMatch::Nowhere(why)) => Err(RevocationError::Malformed(why.to_owned())),
            Ok(SubjectMatch::Foreign) => Err(RevocationError::Foreign),
            Err(error) => Err(RevocationError::Malformed(error.message().to_owned())),
        }
    }
}

/// The claims of an assertion, beyond the common claims of all reports.
#[derive(Debug, Default)]
struct AssertionClaims {
    not_before: Option<Date>,
    expires_at: Option<Date>,
}

fn judge(
    claims: &SignedClaims<AssertionClaims>,
    audience: &[String],
    leeway: Duration,
    now: Duration,
) -> Result<(), AuthError> {
    claims.check_audience(audience)?;
    let missing = AuthError::missing_claim;
    let expires_at = claims.own.expires_at.ok_or_else(|| missing("exp"))?;
    let expires_at = Duration::from_secs(expires_at.down());
    if now >= expires_at + leeway {
        return Err(AuthError::by_clock(
            AuthFailure::Malformed,
            "the token has expired",
        ));
    }
    if expires_at > now + MAX_REMAINING {
        return Err(AuthError::by_clock(
            AuthFailure::Malformed,
            "the token is valid for more than an hour",
        ));
    }
    let begins = [claims.issued_at, claims.own.not_before]
        .into_iter()
        .flatten();
    if begins
        .map(Date::up)
        .max()
        .is_some_and(|at| Duration::from_secs(at) > now + leeway)
    {
        return Err(AuthError::by_clock(
            AuthFailure::Malformed,
            "the token is not valid yet",
        ));
    }
    match claims.has_token_id(usize::MAX) {
        true => Ok(()),
        false => Err(missing("jti")),
    }
}

impl ReportClaims for AssertionClaims {
    const UNREADABLE: &'static str =
        "the token's payload is not a JSON object, repeats a name or has a claim of the wrong type";

    fn member(&mut self, name: &str, value: json::Value<'_>) -> Result<(), Flaw> {
        match name {
            "nbf" => self.not_before = Some(Date::read(name, value)?),
            "exp" => self.expires_at = Some(Date::read(name, value)?),
            "events" => return Err("the token has an events claim, so it is a logout or event token and permits no revocation".into()),
            _ => {}
        }
        Ok(())
    }
}
