//! A token's claims. Their types are checked here; their values are checked after the signature.

use std::borrow::Cow;

use curfew_model::json::Scanned;

use super::json::{self, Date, Flaw, Members, Value};
use crate::AuthError;

/// The registered claims. `None` means that the token has no such member; a member of the wrong
/// type, `null` included, is refused.
pub(crate) struct TokenClaims<'a> {
    pub(crate) issuer: Option<Cow<'a, str>>,
    pub(crate) subject: Option<Cow<'a, str>>,
    pub(crate) audience: Option<Vec<Cow<'a, str>>>,
    pub(crate) expires_at: Option<Date>,
    pub(crate) not_before: Option<Date>,
    pub(crate) issued_at: Option<Date>,
    pub(crate) token_id: Option<Cow<'a, str>>,
    kind: Kind<'a>,
}

/// Claims that distinguish other types of tokens from access tokens.
#[derive(Default)]
struct Kind<'a> {
    /// True for `at_hash` or `c_hash`, the hashes that ID tokens have of what was issued with them
    /// (OpenID Connect Core 1.0 §3.1.3.6, §3.3.2.11). Dex's access tokens have an `at_hash` too, so
    /// they cannot be told from its ID tokens.
    has_hash: bool,
    /// True for the `nonce` of the request for an ID token (§2). Keycloak's access tokens have it
    /// too before version 25, and later with its mapper for older clients, but say `Bearer`. Dex
    /// and authentik put it in both and do not say which.
    has_nonce: bool,
    /// Keycloak's type: `Bearer`, `ID`, `Refresh`, `Offline`, `Logout`.
    typ: Option<Cow<'a, str>>,
    /// Cognito's type: `access` or `id`.
    token_use: Option<Cow<'a, str>>,
}

/// A type of token that opens no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OtherKind {
    /// An ID token, meant for the client that signed the user in.
    Id,
    /// A token meant for the issuer alone.
    Internal,
}

struct Reading<'a, 's> {
    claims: TokenClaims<'a>,
    subject_claim: &'s str,
    numeric_subjects: bool,
}

impl<'a> TokenClaims<'a> {
    /// Reads the payload's JSON text. `subject_claim` names the user, as a text or, with
    /// `numeric_subjects`, an integer. Claims that are not listed above may have any type.
    pub(crate) fn parse(
        text: &'a str,
        subject_claim: &str,
        numeric_subjects: bool,
    ) -> Result<(Self, Scanned), AuthError> {
        let mut reading = Reading {
            claims: Self {
                issuer: None,
                subject: None,
                audience: None,
                expires_at: None,
                not_before: None,
                issued_at: None,
                token_id: None,
                kind: Kind::default(),
            },
            subject_claim,
            numeric_subjects,
        };
        match json::read(text, &mut reading) {
            Ok(scanned) => Ok((reading.claims, scanned)),
            Err(flaw) => Err(AuthError::malformed(flaw.unwrap_or(Cow::Borrowed(
                "the token's claims are not a JSON object without repeated names, nested at most 16 deep",
            )))),
        }
    }
}

impl TokenClaims<'_> {
    /// The other type of token that this plainly is; `None` for an access token. If the header
    /// states an access token (RFC 9068 §2.1), a `nonce` is allowed.
    pub(crate) fn other_kind(&self, says_access: bool) -> Option<OtherKind> {
        let kind = &self.kind;
        let typ = kind.typ.as_deref();
        if matches!(typ, Some("Refresh" | "Offline" | "Logout")) {
            return Some(OtherKind::Internal);
        }
        let is_id = kind.has_hash
            || typ == Some("ID")
            || kind.token_use.as_deref() == Some("id")
            || kind.has_nonce && !says_access && typ != Some("Bearer");
        is_id.then_some(OtherKind::Id)
    }
}

impl<'a> Members<'a> for Reading<'a, '_> {
    fn member(&mut self, name: &str, value: Value<'a>) -> Result<(), Flaw> {
        let claims = &mut self.claims;
        match name {
            "exp" => claims.expires_at = Some(Date::read(name, value)?),
            "nbf" => claims.not_before = Some(Date::read(name, value)?),
            "iat" => claims.issued_at = Some(Date::read(name, value)?),
            "iss" => claims.issuer = Some(json::text(name, value)?),
            "aud" => claims.audience = Some(json::texts(name, value)?),
            "jti" => claims.token_id = Some(json::text(name, value)?),
            "events" => {
                return Err(
                    "tokens that report security events (events) are not access tokens".into(),
                );
            }
            "cnf" => return Err("sender-constrained tokens (cnf) are not supported".into()),
            name if name == self.subject_claim => {
                claims.subject = Some(json::subject(name, value, self.numeric_subjects)?);
            }
            "sub" => drop(json::subject(name, value, self.numeric_subjects)?),
            "typ" => claims.kind.typ = value.as_str(),
            "token_use" => claims.kind.token_use = value.as_str(),
            "at_hash" | "c_hash" => claims.kind.has_hash = true,
            "nonce" => claims.kind.has_nonce = true,
            _ => {}
        }
        Ok(())
    }
}
