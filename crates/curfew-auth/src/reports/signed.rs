//! Steps that are the same for the tokens of all reports, including logout tokens: reading the
//! token, and verifying its signature.

use std::borrow::Cow;

use crate::AuthError;
use crate::ask::NoKey;
use crate::issuers::{Issuers, LoadedIssuer};
use crate::token::json::{self, Date, Flaw, Members, Value};
use crate::token::{Header, Parts, TokenType};

/// Longest `jti` of logouts and events, in bytes.
pub(crate) const MAX_ID_BYTES: usize = 256;

/// The claims of one type of report, beyond the claims that all reports have in common.
pub(crate) trait ReportClaims: Default {
    /// The refusal of a token whose claims cannot be read.
    const UNREADABLE: &'static str;

    /// Reads the claim named `name`, which is specific to this type of report.
    fn member(&mut self, name: &str, value: Value<'_>) -> Result<(), Flaw>;
}

/// The claims of a report. Reading fails at a claim of the wrong type.
#[derive(Debug, Default)]
pub(crate) struct SignedClaims<C> {
    issuer: Option<String>,
    audience: Vec<String>,
    pub(crate) issued_at: Option<Date>,
    token_id: Option<String>,
    pub(crate) own: C,
}

impl<C> SignedClaims<C> {
    /// Checks that the report is for one of the `accepted` audiences.
    pub(crate) fn check_audience(&self, accepted: &[String]) -> Result<(), AuthError> {
        match self.audience.iter().any(|one| accepted.contains(one)) {
            true => Ok(()),
            false => Err(AuthError::other_audience(&self.audience, accepted)),
        }
    }

    /// Returns true if there is a `jti` of 1 to `most` bytes.
    pub(crate) fn has_token_id(&self, most: usize) -> bool {
        let id = self.token_id.as_ref();
        id.is_some_and(|id| (1..=most).contains(&id.len()))
    }
}

impl<'a, C: ReportClaims> Members<'a> for SignedClaims<C> {
    fn member(&mut self, name: &str, value: Value<'a>) -> Result<(), Flaw> {
        match name {
            "iss" => self.issuer = Some(json::text(name, value)?.into_owned()),
            "aud" => {
                let audience = json::texts(name, value)?;
                self.audience = audience.into_iter().map(Cow::into_owned).collect();
            }
            "iat" => self.issued_at = Some(Date::read(name, value)?),
            "jti" => self.token_id = Some(json::text(name, value)?.into_owned()),
            _ => self.own.member(name, value)?,
        }
        Ok(())
    }
}

impl Issuers {
    /// Reads a token, finds its issuer by `iss`, and verifies its signature. `rules` returns the
    /// issuer's rules for tokens of this type, or `None` if the issuer may not send them. `judge`
    /// checks the claims. A refusal by `judge` names the issuer as signer only after the signature
    /// is verified. If the key is missing, the refusal does not contain the verdict of `judge`. The
    /// sender should then repeat the report, because the issuer may have a newer key.
    pub(crate) fn signed_report<'i, C: ReportClaims, R, T>(
        &'i self,
        token: &str,
        kind: TokenType,
        rules: impl Fn(&'i LoadedIssuer) -> Option<R>,
        judge: impl FnOnce(SignedClaims<C>, &LoadedIssuer, R) -> Result<T, AuthError>,
    ) -> Result<T, NoKey> {
        let parts = Parts::of(token, self.max_token_bytes)?;
        let header = parts.header()?;
        let payload = parts.payload()?;
        let mut claims = SignedClaims::<C>::default();
        let read = Header::parse(&header, kind).and_then(|header| {
            let read = json::read(&payload, &mut claims);
            read.map_err(|flaw| AuthError::malformed(flaw.unwrap_or(C::UNREADABLE.into())))?;
            Ok(header)
        });
        let header =
            read.map_err(
                |error| match self.signer_of_flawed(&parts, &header, &payload, &rules) {
                    Some(signer) => error.signed_by(&signer.name),
                    None => error,
                },
            )?;
        let (issuer, rules) = self.reporting(claims.issuer.as_deref(), rules)?;
        let signer = issuer.signer(&parts, &header);
        let judged = judge(claims, issuer, rules);
        match signer {
            Ok(_) => judged.map_err(|error| error.signed_by(&issuer.name).into()),
            Err(no_key) => Err(no_key.judged(judged.map(drop))),
        }
    }

    /// Finds the issuer whose key signed a token with a faulty header or faulty claims. The refusal
    /// names this issuer, because its operators must correct the fault. Fetches no keys.
    fn signer_of_flawed<'i, R>(
        &'i self,
        parts: &Parts<'_>,
        header: &str,
        payload: &str,
        rules: impl Fn(&'i LoadedIssuer) -> Option<R>,
    ) -> Option<&'i LoadedIssuer> {
        let header = Header::of_signature(header)?;
        let mut named = Named::default();
        json::read(payload, &mut named).ok()?;
        let (issuer, _) = self.reporting(named.issuer.as_deref(), rules).ok()?;
        issuer.signer(parts, &header).ok().map(|_| issuer)
    }
}

/// The claim `iss` of a token. Other claims are not read.
#[derive(Default)]
struct Named {
    issuer: Option<String>,
}

impl<'a> Members<'a> for Named {
    fn member(&mut self, name: &str, value: Value<'a>) -> Result<(), Flaw> {
        if name == "iss" {
            self.issuer = value.as_str().map(Cow::into_owned);
        }
        Ok(())
    }
}
