//! Look-up of a token's issuer, before its signature is verified.

use std::sync::Arc;

use curfew_model::AuthFailure;

use super::{Issuers, LoadedIssuer};
use crate::AuthError;
use crate::token::TokenClaims;

impl Issuers {
    /// Finds the issuer whose keys must verify an access token. If only one issuer opens sessions,
    /// it is chosen unless it refuses the token's `iss`. If several issuers open sessions, the
    /// issuer that `iss` names is chosen. If several of them have this `iss`, the first whose
    /// audience is in `aud` is chosen. If no issuer has this `iss`, or if the token has no `iss`,
    /// the issuer with a key named `kid` is chosen. Verifies nothing.
    pub(crate) fn find(
        &self,
        claims: &TokenClaims<'_>,
        kid: Option<&str>,
    ) -> Result<&Arc<LoadedIssuer>, AuthError> {
        let iss = claims.issuer.as_deref();
        if let [only] = self.opening.as_slice() {
            return match iss {
                Some(iss) if !only.accepts(iss) => Err(AuthError::wrong_issuer()),
                _ => Ok(only),
            };
        }
        if let Some(iss) = iss {
            let named = || {
                let all = self.opening.iter();
                all.filter(|issuer| issuer.issuer.is_some() && issuer.accepts(iss))
            };
            // If no audience fits, the first issuer with this `iss` is chosen, and later refuses
            // the token.
            let one = named().find(|issuer| issuer.is_for(claims));
            if let Some(one) = one.or_else(|| named().next()) {
                return Ok(one);
            }
            return self
                .by_kid(kid, |issuer| issuer.issuer.is_none())
                .ok_or_else(AuthError::wrong_issuer);
        }
        // Issuers that require an `iss` come second, because they can only refuse the token.
        self.by_kid(kid, |issuer| issuer.issuer.is_none())
            .or_else(|| self.by_kid(kid, |_| true))
            .ok_or_else(|| {
                AuthError::new(
                    AuthFailure::UnknownKey,
                    "the token has no iss, and its kid does not identify one issuer",
                )
            })
    }

    /// Finds the issuer that `iss` names and that may send a report of one type. `rules` returns
    /// the issuer's rules for this type, or `None` if the issuer may not send it. Verifies nothing.
    pub(crate) fn reporting<'i, R>(
        &'i self,
        iss: Option<&str>,
        rules: impl Fn(&'i LoadedIssuer) -> Option<R>,
    ) -> Result<(&'i LoadedIssuer, R), AuthError> {
        let named = self
            .all
            .iter()
            .filter(|issuer| issuer.issuer.is_some() && iss.is_some_and(|iss| issuer.accepts(iss)));
        let mut ruled = named.filter_map(|issuer| Some((&**issuer, rules(issuer)?)));
        ruled.next().ok_or_else(AuthError::wrong_issuer)
    }

    /// The only issuer among `candidates` with a key named `kid`; `None` if no issuer or several
    /// issuers have such a key.
    fn by_kid(
        &self,
        kid: Option<&str>,
        candidates: impl Fn(&LoadedIssuer) -> bool,
    ) -> Option<&Arc<LoadedIssuer>> {
        let kid = kid?;
        let mut named = self
            .opening
            .iter()
            .filter(|issuer| candidates(issuer) && issuer.has_kid(kid));
        match (named.next(), named.next()) {
            (Some(issuer), None) => Some(issuer),
            _ => None,
        }
    }
}

impl LoadedIssuer {
    /// Returns true if the issuer's tokens may have this `iss`.
    pub(crate) fn accepts(&self, iss: &str) -> bool {
        self.issuer.is_none() || self.accepted.iter().any(|accepted| accepted == iss)
    }

    /// Returns true if the token's `aud` has one of the issuer's audiences, or if the issuer has no
    /// configured audience.
    pub(crate) fn is_for(&self, claims: &TokenClaims<'_>) -> bool {
        let Some(accepted) = &self.audience else {
            return true;
        };
        let mut audience = claims.audience.iter().flatten();
        audience.any(|one| accepted.iter().any(|accepted| accepted == one))
    }
}
