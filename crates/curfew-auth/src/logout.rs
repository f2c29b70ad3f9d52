//! Logout tokens: OpenID Connect Back-Channel Logout 1.0 (with errata set 1), §2.4 and §2.6.

use std::sync::Arc;
use std::time::Duration;

use curfew_model::AuthFailure;
use serde_json::{Map, Value};

use crate::ask::{KeyWait, NoKey};
use crate::authenticate::Authenticator;
use crate::issuers::{LoadedIssuer, LogoutRules};
use crate::reports::{MAX_ID_BYTES, ReportClaims, SignedClaims};
use crate::token::TokenType;
use crate::token::json::{self, Date, Flaw};
use crate::{AuthError, LogoutScope, VerifyError};

/// The event that makes a token a logout token (§2.4).
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// Maximum age and maximum lifetime of a logout token. Providers send a logout token as soon as it
/// is made, so an older token is a replay.
const MAX_AGE: Duration = Duration::from_secs(600);

/// The content of a good logout token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logout {
    /// The configured name of the issuer that sent the token.
    pub issuer: Arc<str>,
    /// The configured names of the other issuers with the same `iss`, which have the same users.
    pub namesakes: Vec<Arc<str>>,
    /// The user that the token names (`sub`). If the token names no login, all of the user's
    /// sessions at the issuer end.
    pub user: Option<String>,
    /// The login (one sign-in of the user), as the issuer names it (`sid`).
    pub login: Option<String>,
    /// The sessions that end if the token names a login.
    pub scope: LogoutScope,
    /// The time of issue in Unix seconds, rounded up so that access tokens of the same second count
    /// as older.
    pub issued_at: u64,
}

impl Authenticator {
    /// Returns true if logout tokens of some issuer are accepted.
    pub fn accepts_logout(&self) -> bool {
        let issuers = self.snapshot();
        issuers.all.iter().any(|issuer| issuer.logout.is_some())
    }

    /// Validates a logout token by the rules of §2.6: no encryption, the signature, `iss`, `aud`,
    /// `iat`, `exp`, a `sub` or `sid`, `events`, no `nonce`. The token must have a `jti` (§2.4). A
    /// repeated `jti` is accepted, because a logout is idempotent, and step 8 of §2.6 is optional.
    ///
    /// # Errors
    ///
    /// The fault of the token, in words that the issuer receives and may log, or
    /// [`VerifyError::Unknown`] if the issuer's keys are unavailable.
    pub async fn verify_logout(&self, token: &str, wait: KeyWait) -> Result<Logout, VerifyError> {
        let attempt = |now| self.attempt_logout(token, now);
        wait.run(self.clock(), attempt).await
    }

    /// Validates a logout token with the keys that this node has, for operators who check a token.
    ///
    /// # Errors
    ///
    /// The token is not good, or this node does not have its key.
    pub fn judge_logout(&self, token: &str) -> Result<Logout, AuthError> {
        self.attempt_logout(token, self.clock().now())
            .map_err(NoKey::into_error)
    }

    fn attempt_logout(&self, token: &str, now: Duration) -> Result<Logout, NoKey> {
        let issuers = self.snapshot();
        let leeway = issuers.leeway;
        issuers.signed_report(
            token,
            TokenType::Logout,
            |issuer| issuer.logout.as_ref(),
            |claims, issuer, rules| judge(claims, issuer, rules, leeway, now),
        )
    }
}

/// The claims of a logout token, beyond the common claims of all reports.
#[derive(Debug, Default)]
struct LogoutClaims {
    subject: Option<String>,
    login: Option<String>,
    expires_at: Option<Date>,
    events: Option<Map<String, Value>>,
    has_nonce: bool,
    has_numeric_subject: bool,
}

fn judge(
    signed: SignedClaims<LogoutClaims>,
    issuer: &LoadedIssuer,
    rules: &LogoutRules,
    leeway: Duration,
    now: Duration,
) -> Result<Logout, AuthError> {
    signed.check_audience(&rules.audience)?;
    let issued_at = signed.issued_at.ok_or_else(|| missing("iat"))?;
    if Duration::from_secs(issued_at.up()) > now + leeway {
        return Err(AuthError::by_clock(
            AuthFailure::Malformed,
            "the logout token's iat is in the future",
        ));
    }
    if now.saturating_sub(Duration::from_secs(issued_at.down())) > MAX_AGE {
        return Err(AuthError::by_clock(
            AuthFailure::Malformed,
            "the logout token's iat is more than ten minutes ago",
        ));
    }
    // `exp` is required since errata set 1.
    let expires_at = signed.own.expires_at.ok_or_else(|| missing("exp"))?.down();
    if now >= Duration::from_secs(expires_at) + leeway {
        return Err(AuthError::by_clock(
            AuthFailure::Malformed,
            "the logout token has expired",
        ));
    }
    if expires_at.saturating_sub(issued_at.down()) > MAX_AGE.as_secs() {
        return Err(AuthError::malformed(
            "the logout token is valid for more than ten minutes",
        ));
    }
    if !signed.has_token_id(MAX_ID_BYTES) {
        return Err(missing("jti"));
    }
    let claims = signed.own;
    let event = claims.events.as_ref().and_then(|events| events.get(EVENT));
    if !matches!(event, Some(Value::Object(_))) {
        return Err(AuthError::malformed(
            "the logout token's events claim is not an object, or its back-channel logout event is absent or not an object",
        ));
    }
    if claims.has_nonce {
        return Err(AuthError::malformed(
            "the logout token has a nonce, which a logout token must not have",
        ));
    }
    if claims.has_numeric_subject && !rules.numeric_subjects {
        return Err(AuthError::malformed(
            "the sub claim is not a string; auth.numeric_subjects allows integers too",
        ));
    }
    let empty = |name: &Option<String>| name.as_ref().is_some_and(String::is_empty);
    if empty(&claims.subject) || empty(&claims.login) {
        return Err(AuthError::malformed(
            "the logout token's sub or sid is empty",
        ));
    }
    if claims.subject.is_none() && claims.login.is_none() {
        return Err(AuthError::malformed(
            "the logout token has neither sub nor sid",
        ));
    }
    Ok(Logout {
        issuer: Arc::clone(&issuer.name),
        namesakes: issuer.namesakes.clone(),
        user: claims.subject,
        login: claims.login,
        scope: rules.scope,
        issued_at: issued_at.up(),
    })
}
fn missing(name: &str) -> AuthError {
    AuthError::malformed(format!("the logout token has no {name}"))
}

impl ReportClaims for LogoutClaims {
    const UNREADABLE: &'static str = "the logout token's payload is not a JSON object, repeats a name or has a claim of the wrong type";

    fn member(&mut self, name: &str, value: json::Value<'_>) -> Result<(), Flaw> {
        match name {
            "sub" => {
                self.has_numeric_subject = json::integer(value).is_some();
                self.subject = Some(json::subject(name, value, true)?.into_owned());
            }
            "sid" => self.login = Some(json::text(name, value)?.into_owned()),
            "exp" => self.expires_at = Some(Date::read(name, value)?),
            "events" => self.events = Some(json::object(name, value)?),
            "nonce" => self.has_nonce = true,
            _ => {}
        }
        Ok(())
    }
}
