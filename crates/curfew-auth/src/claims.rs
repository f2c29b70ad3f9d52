//! Verification of a token's claims. It does not depend on the signature.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use curfew_model::AuthFailure;
use curfew_model::json::Scanned;
use serde_json::{Map, Value};

use crate::issuers::{Issuers, LoadedIssuer};
use crate::token::json::{self, Flaw, Members};
use crate::token::{ClaimRules, Date, OtherKind, TokenClaims};
use crate::{AuthConfig, AuthError, Issuer, LogoutScope};

/// The lifetime of a token without `exp`, which is accepted only with [`AuthConfig::development`].
/// It is long enough for a day of work.
const UNDATED_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// Claims that an issuer's access tokens must have in addition to the claims that every token must
/// have.
#[derive(Debug, Default)]
pub(crate) struct Needs {
    /// True if `iat` is required. A report ends the sessions whose tokens are older than the
    /// report. Without `iat`, a logout would be acknowledged and close nothing.
    issued_at: bool,
    /// Claims by which reports name users, and which must therefore be present.
    claims: Vec<Box<str>>,
    /// Claims that reports, revocations and policies read.
    used: Vec<Box<str>>,
    /// `required_claims`: for each claim the accepted values.
    pub(crate) required: BTreeMap<String, Vec<String>>,
}

impl Needs {
    pub(crate) fn of(config: &AuthConfig, issuer: &Issuer) -> Self {
        let reporters = config
            .issuers
            .iter()
            .filter(|other| other.reports() && other.reported_issuer() == issuer.name);
        let reported: Vec<&str> = reporters
            .flat_map(|other| other.subjects.claims())
            .collect();
        let by_login = issuer.backchannel_logout && issuer.logout_scope == LogoutScope::Login;
        let login = by_login.then_some(config.login_claim.as_str());
        let mut claims: Vec<Box<str>> = Vec::new();
        for claim in login.into_iter().chain(reported) {
            // The subject claim is left out, because every token needs it anyway.
            if claim != config.subject_claim && !claims.iter().any(|known| **known == *claim) {
                claims.push(claim.into());
            }
        }
        let used = config.claims_in_use.iter().chain([&config.login_claim]);
        let used = used.map(|claim| claim.as_str().into()).collect();
        let mut issuers = config.issuers.iter();
        Self {
            used,
            issued_at: issuer.backchannel_logout
                || issuers.any(|other| other.reports() && other.reported_issuer() == issuer.name),
            claims,
            required: issuer.required_claims.clone(),
        }
    }

    pub(crate) fn check(
        &self,
        claims: &TokenClaims<'_>,
        payload: &str,
        scanned: &Scanned,
    ) -> Result<(), AuthError> {
        if !scanned.is_plain() {
            self.check_plain(payload)?;
        }
        if self.issued_at && claims.issued_at.is_none() {
            return Err(AuthError::missing_claim("iat"));
        }
        if self.claims.is_empty() && self.required.is_empty() {
            return Ok(());
        }
        let payload = scanned.plain(payload);
        let all: Map<String, Value> = serde_json::from_str(&payload).unwrap_or_default();
        for name in &self.claims {
            if !all.get(&**name).is_some_and(names_somebody) {
                return Err(AuthError::missing_claim(name));
            }
        }
        for (name, accepted) in &self.required {
            match all.get(name) {
                None | Some(Value::Null) => return Err(AuthError::missing_claim(name)),
                Some(value) if !holds(value, accepted) => {
                    return Err(AuthError::other_claim(name));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Refuses a payload if a used claim has half of a surrogate pair, or a number that is too
    /// large. Parsing would change such a value.
    fn check_plain(&self, payload: &str) -> Result<(), AuthError> {
        match json::read(payload, &mut Used(self)) {
            Err(Some(flaw)) => Err(AuthError::malformed(flaw)),
            _ => Ok(()),
        }
    }
}

/// Checks the used claims of a payload. A claim whose value JSON parsers would read differently is
/// a flaw.
struct Used<'n>(&'n Needs);

impl<'a> Members<'a> for Used<'_> {
    fn member(&mut self, name: &str, value: json::Value<'a>) -> Result<(), Flaw> {
        let Needs {
            claims,
            used,
            required,
            ..
        } = self.0;
        let mut names = claims.iter().chain(used);
        match names.any(|used| **used == *name) || required.contains_key(name) {
            true => json::exact(name, value).map(drop),
            false => Ok(()),
        }
    }
}

/// Returns true if a report can name a user by this value: a non-empty text, or a list with a
/// non-empty text.
fn names_somebody(value: &Value) -> bool {
    match value {
        Value::String(text) => !text.is_empty(),
        Value::Array(values) => {
            let mut texts = values.iter().filter_map(Value::as_str);
            texts.any(|text| !text.is_empty())
        }
        _ => false,
    }
}

/// Returns true if the claim's value, or one of its elements, is in `accepted`.
fn holds(value: &Value, accepted: &[String]) -> bool {
    match value {
        Value::String(text) => accepted.contains(text),
        Value::Array(values) => values.iter().any(|value| holds(value, accepted)),
        Value::Number(number) => accepted.contains(&number.to_string()),
        Value::Bool(flag) => accepted.contains(&flag.to_string()),
        Value::Null | Value::Object(_) => false,
    }
}

/// Refuses tokens that are not access tokens, such as ID tokens.
pub(crate) fn verify_kind(
    claims: &TokenClaims<'_>,
    issuer: &LoadedIssuer,
    says_access: bool,
) -> Result<(), AuthError> {
    if issuer.requires_at_jwt && !says_access {
        return Err(AuthError::malformed(
            "the token's typ is not at+jwt: send an access token (RFC 9068)",
        ));
    }
    let mut audience = claims.audience.iter().flatten();
    let for_clients = |one: &Cow<'_, str>| issuer.client_ids.iter().any(|client| client == one);
    // An ID token's `aud` names the client that signed the user in.
    let is_id = audience.clone().next().is_some() && audience.all(for_clients);
    let listed = issuer.audience.is_some() && issuer.is_for(claims);
    match claims
        .other_kind(says_access)
        .or((is_id && !listed).then_some(OtherKind::Id))
    {
        None => Ok(()),
        Some(OtherKind::Id) if issuer.accepts_id_tokens => Ok(()),
        Some(OtherKind::Id) => Err(AuthError::malformed(
            "this is an ID token: send the access token",
        )),
        Some(OtherKind::Internal) => Err(AuthError::malformed(
            "this is a refresh token or a logout token: send the access token",
        )),
    }
}

/// The parts of a verified token that the principal needs.
pub(crate) struct VerifiedClaims<'a> {
    pub(crate) user: &'a str,
    pub(crate) expires_at: u64,
}

/// Judges the issuer, the user, the audience and the times of a token. Does not check the
/// signature.
pub(crate) fn verify_claims<'a>(
    claims: &'a TokenClaims<'_>,
    issuer: &LoadedIssuer,
    issuers: &Issuers,
    rules: &ClaimRules,
    now: Duration,
) -> Result<VerifiedClaims<'a>, AuthError> {
    verify_issuer(claims, issuer)?;
    let user = claims.subject.as_deref().unwrap_or_default();
    if user.is_empty() && !rules.allows_no_user {
        return Err(AuthError::missing_claim(&rules.subject_claim));
    }
    let expires_at = match claims.expires_at {
        Some(date) => date.down(),
        None if issuers.allows_undated => (now + UNDATED_LIFETIME).as_secs(),
        None => return Err(AuthError::missing_claim("exp")),
    };
    verify_audience(claims, issuer)?;
    let ends_at = claims.ends_at.map_or(u64::MAX, Date::down);
    let verified = VerifiedClaims {
        user,
        expires_at: expires_at.min(ends_at),
    };
    verify_times(claims, verified.expires_at, issuers, now)?;
    verify_lifetime(claims, expires_at, issuers)?;
    Ok(verified)
}

fn verify_issuer(claims: &TokenClaims<'_>, issuer: &LoadedIssuer) -> Result<(), AuthError> {
    match (&issuer.issuer, claims.issuer.as_deref()) {
        (None, _) => Ok(()),
        (Some(_), None) => Err(AuthError::missing_claim("iss")),
        (Some(_), Some(iss)) if issuer.accepts(iss) => Ok(()),
        (Some(_), Some(_)) => Err(AuthError::wrong_issuer()),
    }
}

fn verify_audience(claims: &TokenClaims<'_>, issuer: &LoadedIssuer) -> Result<(), AuthError> {
    match (&issuer.audience, &claims.audience) {
        (Some(_), None) => Err(AuthError::missing_claim("aud")),
        _ if issuer.is_for(claims) => Ok(()),
        _ => Err(AuthError::wrong_audience()),
    }
}

fn verify_times(
    claims: &TokenClaims<'_>,
    expires_at: u64,
    issuers: &Issuers,
    now: Duration,
) -> Result<(), AuthError> {
    let expiry = Duration::from_secs(expires_at);
    // A session ends at the instant from which its token is refused here: see `Principal::ends_at`.
    if now >= expiry + issuers.leeway {
        let ago = now.saturating_sub(expiry).as_secs();
        return Err(AuthError::by_clock(
            AuthFailure::Expired,
            format!("the token expired {ago} s ago"),
        ));
    }
    for (name, instant) in [("nbf", claims.not_before), ("iat", claims.issued_at)] {
        let instant = Duration::from_secs(instant.map_or(0, Date::up));
        if instant > now + issuers.leeway {
            let wait = instant.saturating_sub(now).as_secs();
            return Err(AuthError::by_clock(
                AuthFailure::NotYetValid,
                format!("the token's {name} is {wait} s in the future"),
            ));
        }
    }
    Ok(())
}

/// Compares the time from `iat` to `exp` with `auth.max_token_lifetime`.
fn verify_lifetime(
    claims: &TokenClaims<'_>,
    expires_at: u64,
    issuers: &Issuers,
) -> Result<(), AuthError> {
    if issuers.max_token_lifetime.is_zero() {
        return Ok(());
    }
    let issued_at = claims
        .issued_at
        .ok_or_else(|| AuthError::missing_claim("iat"))?
        .down();
    if Duration::from_secs(expires_at.saturating_sub(issued_at)) > issuers.max_token_lifetime {
        return Err(AuthError::malformed(
            "the token's lifetime, from iat to exp, is longer than this gateway allows",
        ));
    }
    Ok(())
}
