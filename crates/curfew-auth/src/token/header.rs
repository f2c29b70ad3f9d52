//! A token's header.

use std::borrow::Cow;

use serde::de::{Error, MapAccess};

use super::json::{self, Members, Skip, Text};
use crate::{Algorithm, AuthError};

/// Longer key ids name no key.
const MAX_KID_BYTES: usize = 256;

/// What a header says about the signature. `jwk`, `jku`, `x5u` and `x5c` are never read.
pub(crate) struct Header<'a> {
    /// What the token claims to be signed with; the key decides whether that may be.
    pub(crate) algorithm: Algorithm,
    /// The key's id. A mere name to look up.
    pub(crate) kid: Option<Cow<'a, str>>,
    /// Whether it says by its `typ` that it is an access token (RFC 9068 §2.1).
    pub(crate) says_access: bool,
}

/// What a token is used as. Its `typ`, where it has one, must be no other's (RFC 8725 §3.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenType {
    /// To open a session.
    Access,
    /// To report a logout.
    Logout,
    /// To report a security event.
    Event,
    /// To authenticate a Global Token Revocation.
    Revocation,
}

struct Reading<'a> {
    token_type: TokenType,
    algorithm: Option<Algorithm>,
    kid: Option<Cow<'a, str>>,
    has_type: bool,
    says_access: bool,
    flaw: Option<&'static str>,
}

impl<'a> Header<'a> {
    /// Reads the header's JSON text.
    pub(crate) fn parse(text: &'a str, token_type: TokenType) -> Result<Self, AuthError> {
        let mut reading = Reading {
            token_type,
            algorithm: None,
            kid: None,
            has_type: false,
            says_access: false,
            flaw: None,
        };
        json::read(text, &mut reading).map_err(|()| {
            AuthError::malformed(reading.flaw.unwrap_or(
                "the token's header is not a JSON object without repeated names, nested at most 16 deep",
            ))
        })?;
        if token_type == TokenType::Event && !reading.has_type {
            return Err(AuthError::malformed(token_type.others()));
        }
        let algorithm = reading
            .algorithm
            .ok_or_else(|| AuthError::malformed("the token's header has no alg"))?;
        Ok(Self {
            algorithm,
            kid: reading.kid,
            says_access: reading.says_access,
        })
    }
}

impl<'de> Members<'de> for Reading<'de> {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        // Named first: it is what the client is told should reading the value fail.
        match name {
            "alg" => {
                self.flaw = Some("the token's alg is not the name of a supported algorithm");
                let alg = map.next_value_seed(Text)?;
                self.algorithm = Some(alg.parse().map_err(A::Error::custom)?);
            }
            "kid" => {
                self.flaw = Some("the token's kid is not a string of at most 256 bytes");
                let kid = map.next_value_seed(Text)?;
                if kid.len() > MAX_KID_BYTES {
                    return Err(A::Error::custom("kid too long"));
                }
                self.kid = Some(kid);
            }
            "typ" => {
                self.flaw = Some(self.token_type.others());
                self.has_type = true;
                let typ = media_type(&map.next_value_seed(Text)?);
                if !self.token_type.has(&typ) {
                    return Err(A::Error::custom("typ"));
                }
                self.says_access = typ == "at+jwt";
            }
            "crit" => return self.refuse("critical header parameters (crit) are not supported"),
            "zip" => return self.refuse("compressed tokens (zip) are not supported"),
            "b64" => return self.refuse("unencoded payloads (b64) are not supported"),
            _ => map.next_value_seed(Skip::MEMBER)?,
        }
        self.flaw = None;
        Ok(())
    }
}

impl Reading<'_> {
    fn refuse<E: Error>(&mut self, flaw: &'static str) -> Result<(), E> {
        self.flaw = Some(flaw);
        Err(E::custom(flaw))
    }
}

impl TokenType {
    /// RFC 7519 §5.1, RFC 9068 §2.1, Back-Channel Logout 1.0 §2.4, Shared Signals Framework 1.0 §4.1.1
    /// (which knows no event without it).
    fn has(self, typ: &str) -> bool {
        match self {
            Self::Access => matches!(typ, "jwt" | "at+jwt"),
            Self::Logout => matches!(typ, "jwt" | "logout+jwt"),
            Self::Event => typ == "secevent+jwt",
            // The draft names none; this is Okta's.
            Self::Revocation => matches!(typ, "jwt" | "global-token-revocation+jwt"),
        }
    }

    /// What a token with any other `typ` is told.
    fn others(self) -> &'static str {
        match self {
            Self::Access => "the token's typ is neither JWT nor at+jwt",
            Self::Logout => "the token's typ is neither JWT nor logout+jwt",
            Self::Event => "the token's typ is not secevent+jwt",
            Self::Revocation => "the token's typ is neither JWT nor global-token-revocation+jwt",
        }
    }
}

/// A `typ` is a media type: case does not matter, and `application/` may be left out (RFC 7515 §4.1.9).
fn media_type(typ: &str) -> String {
    let typ = typ.to_ascii_lowercase();
    match typ.strip_prefix("application/") {
        Some(rest) => rest.to_owned(),
        None => typ,
    }
}
