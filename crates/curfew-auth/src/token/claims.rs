//! A token's claims: types are judged here, values later, once the signature is known to be good.

use std::borrow::Cow;

use serde::de::{Error, MapAccess};

use super::json::{self, Date, Members, Skip, Text, TextOrNone, Texts};
use crate::AuthError;

/// The registered claims. Absent means that the token has no such member; one of the wrong type,
/// `null` included, is refused.
pub(crate) struct Claims<'a> {
    pub(crate) issuer: Option<Cow<'a, str>>,
    pub(crate) subject: Option<Cow<'a, str>>,
    pub(crate) audience: Option<Vec<Cow<'a, str>>>,
    pub(crate) expires_at: Option<u64>,
    pub(crate) not_before: Option<u64>,
    pub(crate) issued_at: Option<u64>,
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
    claims: Claims<'a>,
    subject_claim: &'s str,
    flaw: Option<Cow<'static, str>>,
}

impl<'a> Claims<'a> {
    /// Reads the payload's JSON text; the user is what `subject_claim` says.
    pub(crate) fn parse(text: &'a str, subject_claim: &str) -> Result<Self, AuthError> {
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
            flaw: None,
        };
        match json::read(text, &mut reading) {
            Ok(()) => Ok(reading.claims),
            Err(()) => Err(AuthError::malformed(reading.flaw.unwrap_or(Cow::Borrowed(
                "the token's claims are not a JSON object without repeated names, nested at most 16 deep",
            )))),
        }
    }
}

impl Claims<'_> {
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

impl<'de> Members<'de> for Reading<'de, '_> {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        let claims = &mut self.claims;
        // Named first: it is what the client is told should reading the value fail.
        match name {
            "exp" | "nbf" | "iat" => {
                let (date, flaw) = match name {
                    "exp" => (
                        &mut claims.expires_at,
                        "the exp claim is not a whole number of seconds",
                    ),
                    "nbf" => (
                        &mut claims.not_before,
                        "the nbf claim is not a whole number of seconds",
                    ),
                    _ => (
                        &mut claims.issued_at,
                        "the iat claim is not a whole number of seconds",
                    ),
                };
                self.flaw = Some(Cow::Borrowed(flaw));
                *date = Some(map.next_value_seed(Date)?);
            }
            "iss" => {
                self.flaw = Some(Cow::Borrowed("the iss claim is not a string"));
                claims.issuer = Some(map.next_value_seed(Text)?);
            }
            "aud" => {
                self.flaw = Some(Cow::Borrowed(
                    "the aud claim is neither a string nor an array of strings",
                ));
                claims.audience = Some(map.next_value_seed(Texts)?);
            }
            "jti" => {
                self.flaw = Some(Cow::Borrowed("the jti claim is not a string"));
                claims.token_id = Some(map.next_value_seed(Text)?);
            }
            "events" => {
                let flaw = "tokens that report security events (events) are not access tokens";
                self.flaw = Some(Cow::Borrowed(flaw));
                return Err(A::Error::custom(flaw));
            }
            "cnf" => {
                let flaw = "sender-constrained tokens (cnf) are not supported";
                self.flaw = Some(Cow::Borrowed(flaw));
                return Err(A::Error::custom(flaw));
            }
            name if name == self.subject_claim => {
                self.flaw = Some(match name {
                    "sub" => Cow::Borrowed("the sub claim is not a string"),
                    name => Cow::Owned(format!("the {name} claim is not a string")),
                });
                claims.subject = Some(map.next_value_seed(Text)?);
            }
            "sub" => {
                self.flaw = Some(Cow::Borrowed("the sub claim is not a string"));
                map.next_value_seed(Text)?;
            }
            "typ" => claims.kind.typ = map.next_value_seed(TextOrNone)?,
            "token_use" => claims.kind.token_use = map.next_value_seed(TextOrNone)?,
            "at_hash" | "c_hash" => {
                claims.kind.has_hash = true;
                map.next_value_seed(Skip::MEMBER)?;
            }
            "nonce" => {
                claims.kind.has_nonce = true;
                map.next_value_seed(Skip::MEMBER)?;
            }
            _ => map.next_value_seed(Skip::MEMBER)?,
        }
        self.flaw = None;
        Ok(())
    }
}
