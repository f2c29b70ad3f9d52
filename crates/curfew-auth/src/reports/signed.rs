//! What the tokens of all reports have in common, logout tokens included: how they are read, and by
//! whose keys they are verified.

use crate::authenticate::{Lately, with_keys};
use crate::issuers::{Issuers, LoadedIssuer, NoKey};
use crate::token::json::{self, Members};
use crate::token::{Header, Parts, TokenType};
use crate::{AuthError, VerifyError};

/// The claims of one kind of token.
pub(crate) trait ReportClaims: Default + for<'de> Members<'de> {
    /// What is wrong with a token whose claims cannot be read.
    const UNREADABLE: &'static str;

    /// The `iss`.
    fn issuer(&self) -> Option<&str>;
}

/// Attempts to verify a report. Where its key is not known, and the issuer was asked for its keys just
/// before, it cannot be told from one by a key that is newer than that: its sender is to try again.
pub(crate) async fn verify_report<T>(
    attempt: impl Fn() -> Result<T, NoKey>,
) -> Result<T, VerifyError> {
    with_keys(attempt, Lately::TryAgain).await
}

impl Issuers {
    /// Reads a token, finds its issuer by its `iss`, and verifies its signature. `rules` are what that
    /// issuer's tokens of this kind must be; `None`: it may send none.
    pub(crate) fn signed_report<'i, C: ReportClaims, R>(
        &'i self,
        token: &str,
        kind: TokenType,
        rules: impl FnOnce(&'i LoadedIssuer) -> Option<R>,
    ) -> Result<(C, &'i LoadedIssuer, R), NoKey> {
        let parts = Parts::of(token)?;
        let header = parts.header()?;
        let header = Header::parse(&header, kind)?;
        let mut claims = C::default();
        json::read(&parts.payload()?, &mut claims)
            .map_err(|()| AuthError::malformed(C::UNREADABLE))?;
        let issuer = self.reporting(claims.issuer())?;
        let rules = rules(issuer).ok_or_else(AuthError::wrong_issuer)?;
        let key = issuer.key(&header)?;
        if !key.verify(header.algorithm, parts.signed(), parts.signature()?) {
            return Err(issuer.bad_signature());
        }
        Ok((claims, issuer, rules))
    }
}
