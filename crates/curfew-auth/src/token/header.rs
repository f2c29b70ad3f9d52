//! A token's header.

use std::borrow::Cow;

use super::json::{self, Flaw, Members, Value};
use crate::{Algorithm, AuthError};

/// Told of a token by an algorithm that no key here can be of, such as ES512.
const UNSUPPORTED: &str = "algorithm not supported: alg is none of HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 and EdDSA";

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
        };
        json::read(text, &mut reading).map_err(|flaw| {
            AuthError::malformed(flaw.unwrap_or(Flaw::Borrowed(
                "the token's header is not a JSON object without repeated names, nested at most 16 deep",
            )))
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

impl<'a> Header<'a> {
    /// Reads what a header says about the signature, and nothing else.
    pub(crate) fn of_signature(text: &'a str) -> Option<Self> {
        let mut signature = Signature::default();
        json::read(text, &mut signature).ok()?;
        Some(Self {
            algorithm: signature.algorithm?,
            kid: signature.kid,
            says_access: false,
        })
    }
}

/// The members of a header that a signature is verified by.
#[derive(Default)]
struct Signature<'a> {
    algorithm: Option<Algorithm>,
    kid: Option<Cow<'a, str>>,
}

impl<'a> Members<'a> for Signature<'a> {
    fn member(&mut self, name: &str, value: Value<'a>) -> Result<(), Flaw> {
        match name {
            "alg" => self.algorithm = value.as_str().and_then(|alg| alg.parse().ok()),
            "kid" => self.kid = value.as_str(),
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Members<'a> for Reading<'a> {
    fn member(&mut self, name: &str, value: Value<'a>) -> Result<(), Flaw> {
        match name {
            "alg" => {
                let alg = value.as_str().and_then(|alg| alg.parse().ok());
                self.algorithm = Some(alg.ok_or(UNSUPPORTED)?);
            }
            "kid" => {
                let kid = value.as_str().filter(|kid| kid.len() <= MAX_KID_BYTES);
                self.kid = Some(kid.ok_or("the token's kid is not a string of at most 256 bytes")?);
            }
            "typ" => {
                self.has_type = true;
                let typ = value.as_str().map(|typ| media_type(&typ));
                let typ = typ.filter(|typ| self.token_type.has(typ));
                let typ = typ.ok_or(self.token_type.others())?;
                self.says_access = typ == "at+jwt";
            }
            "crit" => return Err("critical header parameters (crit) are not supported".into()),
            "zip" => return Err("compressed tokens (zip) are not supported".into()),
            "b64" => return Err("unencoded payloads (b64) are not supported".into()),
            _ => {}
        }
        Ok(())
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
