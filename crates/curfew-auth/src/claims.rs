//! Judging the claims of a token whose signature is good.

use std::time::Duration;

use curfew_model::AuthFailure;
use serde_json::{Map, Value};

use crate::issuers::{Issuers, LoadedIssuer};
use crate::token::Claims;
use crate::{AuthError, LogoutScope};

/// A session that a logout could not find is not opened.
pub(crate) fn can_be_logged_out(
    claims: &Claims<'_>,
    payload: &str,
    scope: LogoutScope,
    login_claim: &str,
) -> Result<(), AuthError> {
    if claims.issued_at.is_none() {
        return Err(AuthError::missing_claim("iat"));
    }
    if scope == LogoutScope::User {
        return Ok(());
    }
    let all: Map<String, Value> = serde_json::from_str(payload).unwrap_or_default();
    match all.get(login_claim) {
        Some(Value::String(login)) if !login.is_empty() => Ok(()),
        _ => Err(AuthError::missing_claim(login_claim)),
    }
}

/// What is left to know of a token once its claims are verified.
pub(crate) struct Verified<'a> {
    pub(crate) user: &'a str,
    pub(crate) expires_at: u64,
}

/// Judges the claims of a token whose signature is good.
pub(crate) fn verify_claims<'a>(
    claims: &'a Claims<'_>,
    issuer: &LoadedIssuer,
    issuers: &'a Issuers,
    now: Duration,
) -> Result<Verified<'a>, AuthError> {
    verify_issuer(claims, issuer)?;
    let user = claims.subject.as_deref().unwrap_or_default();
    if user.is_empty() {
        return Err(AuthError::missing_claim(&issuers.subject_claim));
    }
    let expires_at = claims
        .expires_at
        .ok_or_else(|| AuthError::missing_claim("exp"))?;
    verify_audience(claims, issuer)?;
    verify_times(claims, expires_at, issuers, now)?;
    Ok(Verified { user, expires_at })
}

fn verify_issuer(claims: &Claims<'_>, issuer: &LoadedIssuer) -> Result<(), AuthError> {
    match (&issuer.issuer, claims.issuer.as_deref()) {
        (None, _) => Ok(()),
        (Some(_), None) => Err(AuthError::missing_claim("iss")),
        (Some(expected), Some(iss)) if expected == iss => Ok(()),
        (Some(_), Some(_)) => Err(AuthError::wrong_issuer()),
    }
}

fn verify_audience(claims: &Claims<'_>, issuer: &LoadedIssuer) -> Result<(), AuthError> {
    let Some(accepted) = &issuer.audience else {
        return Ok(());
    };
    let audience = claims
        .audience
        .as_ref()
        .ok_or_else(|| AuthError::missing_claim("aud"))?;
    if audience
        .iter()
        .any(|one| accepted.iter().any(|accepted| accepted == one))
    {
        return Ok(());
    }
    Err(AuthError::wrong_audience())
}

fn verify_times(
    claims: &Claims<'_>,
    expires_at: u64,
    issuers: &Issuers,
    now: Duration,
) -> Result<(), AuthError> {
    let expiry = Duration::from_secs(expires_at);
    // The same instant as `Principal::ends_at`.
    if now >= expiry + issuers.leeway {
        let ago = now.saturating_sub(expiry).as_secs();
        return Err(AuthError::new(
            AuthFailure::Expired,
            format!("the token expired {ago} s ago"),
        ));
    }
    for (name, instant) in [("nbf", claims.not_before), ("iat", claims.issued_at)] {
        let instant = Duration::from_secs(instant.unwrap_or_default());
        if instant > now + issuers.leeway {
            let wait = instant.saturating_sub(now).as_secs();
            return Err(AuthError::new(
                AuthFailure::NotYetValid,
                format!("the token's {name} is {wait} s in the future"),
            ));
        }
    }
    if !issuers.max_token_lifetime.is_zero() {
        let issued_at = claims
            .issued_at
            .ok_or_else(|| AuthError::missing_claim("iat"))?;
        if Duration::from_secs(expires_at.saturating_sub(issued_at)) > issuers.max_token_lifetime {
            return Err(AuthError::malformed(
                "the token's lifetime, from iat to exp, is longer than allowed here",
            ));
        }
    }
    Ok(())
}
