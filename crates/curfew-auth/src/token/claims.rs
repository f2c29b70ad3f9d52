//! A token's claims: types are judged here, values later, once the signature is known to be good.

use std::borrow::Cow;

use curfew_model::json::Scanned;

use super::json::{self, Date, Flaw, Members, Value};
use crate::AuthError;

/// The registered claims. Absent means that the token has no such member; one of the wrong type,
/// `null` included, is refused.
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

/// What tells a token of another kind from an access token.
#[derive(Default)]
struct Kind<'a> {
    /// `at_hash` or `c_hash`, which are defined for ID tokens: the hash of what was issued beside them
    /// (OpenID Connect Core 1.0 §3.1.3.6, §3.3.2.11). Dex makes its access tokens like its ID tokens,
    /// with an `at_hash` too; nothing in them tells the two apart.
    has_hash: bool,
    /// Of the request that asked for an ID token (§2). Keycloak had it in access tokens too before 25,
    /// and still has where its mapper for older clients is set, but says `Bearer`; Dex and authentik
    /// have it in both, and say nothing.
    has_nonce: bool,
    /// Keycloak's: `Bearer`, `ID`, `Refresh`, `Offline`, `Logout`.
    typ: Option<Cow<'a, str>>,
    /// Cognito's: `access` or `id`.
    token_use: Option<Cow<'a, str>>,
}

/// A kind of token that opens no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OtherKind {
    /// For the client that signed the user in, not for us.
    Id,
    /// For the issuer alone.
    Internal,
}

struct Reading<'a, 's> {
    claims: TokenClaims<'a>,
    subject_claim: &'s str,
    numeric_subjects: bool,
}

impl<'a> TokenClaims<'a> {
    /// Reads the payload's JSON text; the user is what `subject_claim` says, as a text or, with
    /// `numeric_subjects`, an integer. What nothing is asked of may be anything.
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
    /// Whether the token is plainly of another kind than an access token. One whose header says that
    /// it is one (RFC 9068 §2.1) may have a `nonce`.
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
