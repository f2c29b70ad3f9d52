//! Common steps for the tokens of all reports, logout tokens included: reading, and verification of
//! the signature.

use std::borrow::Cow;

use crate::AuthError;
use crate::ask::NoKey;
use crate::issuers::{Issuers, LoadedIssuer};
use crate::token::json::{self, Flaw, Members, Value};
use crate::token::{Header, Parts, TokenType};

/// The claims of one type of report.
pub(crate) trait ReportClaims: Default + for<'a> Members<'a> {
    /// The refusal of a token whose claims cannot be read.
    const UNREADABLE: &'static str;

    /// The `iss`.
    fn issuer(&self) -> Option<&str>;
}

impl Issuers {
    /// Reads a token, finds its issuer by `iss`, and verifies its signature. `rules` gives the
    /// issuer's rules for such tokens, or `None` if it may send none. `judge` checks the claims. A
    /// refusal by `judge` names the issuer as signer only after the signature is verified. If the
    /// key is missing, the verdict stays secret and the sender should repeat the report, because
    /// the issuer may have a newer key.
    pub(crate) fn signed_report<'i, C: ReportClaims, R, T>(
        &'i self,
        token: &str,
        kind: TokenType,
        rules: impl Fn(&'i LoadedIssuer) -> Option<R>,
        judge: impl FnOnce(C, &LoadedIssuer, R) -> Result<T, AuthError>,
    ) -> Result<T, NoKey> {
        let parts = Parts::of(token, self.max_token_bytes)?;
        let header = parts.header()?;
        let payload = parts.payload()?;
        let mut claims = C::default();
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
        let (issuer, rules) = self.reporting(claims.issuer(), rules)?;
        let signer = issuer.signer(&parts, &header);
        let judged = judge(claims, issuer, rules);
        match signer {
            Ok(_) => judged.map_err(|error| error.signed_by(&issuer.name).into()),
            Err(no_key) => Err(no_key.judged(judged.map(drop))),
        }
    }

    /// Finds the issuer whose good signature a token with a faulty header or faulty claims has.
    /// That issuer is misconfigured, and the refusal names it like for any other fault. Fetches no
    /// keys.
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

/// A reader of `iss` alone.
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
