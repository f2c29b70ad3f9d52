//! Whose a token is, before anything of it is verified.

use std::sync::Arc;

use curfew_model::AuthFailure;

use super::{Issuers, LoadedIssuer};
use crate::AuthError;
use crate::token::TokenClaims;

impl Issuers {
    /// The issuer an access token is to be verified by: the one its `iss` names, of several the first that
    /// its `aud` names; without an `iss`, the one its `kid` names. A mere look-up among the configured ones:
    /// nothing is verified yet.
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
            // If no audience fits, the first says so.
            let one = named().find(|issuer| issuer.is_for(claims));
            if let Some(one) = one.or_else(|| named().next()) {
                return Ok(one);
            }
            return self
                .by_kid(kid, |issuer| issuer.issuer.is_none())
                .ok_or_else(AuthError::wrong_issuer);
        }
        // An issuer that demands an `iss` comes second: it can only say that it is missing.
        self.by_kid(kid, |issuer| issuer.issuer.is_none())
            .or_else(|| self.by_kid(kid, |_| true))
            .ok_or_else(|| {
                AuthError::new(
                    AuthFailure::UnknownKey,
                    "the token has no iss, and its kid names no key of one issuer",
                )
            })
    }

    /// The issuer whose report has this `iss`, and its `rules` of such reports: a mere look-up, as above.
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

    /// The one issuer among `candidates` with a key called `kid`.
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
    /// Tells if a token's `iss` may be this.
    pub(crate) fn accepts(&self, iss: &str) -> bool {
        self.issuer.is_none() || self.accepted.iter().any(|accepted| accepted == iss)
    }

    /// Tells if a token is for one of its audiences, or it has none.
    pub(crate) fn is_for(&self, claims: &TokenClaims<'_>) -> bool {
        let Some(accepted) = &self.audience else {
            return true;
        };
        let mut audience = claims.audience.iter().flatten();
        audience.any(|one| accepted.iter().any(|accepted| accepted == one))
    }
}
