//! What the tokens of all reports have in common, logout tokens included: how they are read, and by
//! whose keys they are verified.

use std::borrow::Cow;

use crate::AuthError;
use crate::ask::NoKey;
use crate::issuers::{Issuers, LoadedIssuer};
use crate::token::json::{self, Flaw, Members, Value};
use crate::token::{Header, Parts, TokenType};

/// The claims of one kind of token.
pub(crate) trait ReportClaims: Default + for<'a> Members<'a> {
    /// What is wrong with a token whose claims cannot be read.
    const UNREADABLE: &'static str;

    /// The `iss`.
    fn issuer(&self) -> Option<&str>;
}

impl Issuers {
    /// Reads a token, finds its issuer by its `iss`, and verifies its signature. `rules` are what that
    /// issuer's tokens of this kind must be; `None`: it may send none. `judge` says what a token is good for
    /// but for its key; its refusals are told as the issuer's, which has signed. Where the key is not there
    /// nothing of it is told: a report by a key that may be newer than what is known of its issuer is to
    /// be sent again.
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

    /// The issuer that has signed a token whose header or claims are not those of a report: it is
    /// configured wrongly, and hears of it as of any other fault of its reports. Nothing is fetched.
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

/// The `iss` of a token of which nothing else is read.
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
