//! A token's header.

use std::borrow::Cow;

use super::json::{self, Flaw, Members, Value};
use crate::{Algorithm, AuthError};

/// Refusal of an algorithm that is not supported, such as ES512.
const UNSUPPORTED: &str = "algorithm not supported: alg is none of HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 and EdDSA";

/// Maximum size of a `kid`, in bytes.
const MAX_KID_BYTES: usize = 256;

/// The signature parameters of a header. `jwk`, `jku`, `x5u` and `x5c` are never read.
pub(crate) struct Header<'a> {
    /// The algorithm that the token states. The key decides if this algorithm may be used.
    pub(crate) algorithm: Algorithm,
    /// The key's id, used only for look-up.
    pub(crate) kid: Option<Cow<'a, str>>,
    /// True if `typ` states an access token (RFC 9068 §2.1).
    pub(crate) says_access: bool,
}

/// The purpose for which a token is used. The token's `typ`, if present, must not be the `typ` of
/// another purpose (RFC 8725 §3.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenType {
    /// Open a session or a subscription.
    Access,
    /// Report a logout.
    Logout,
    /// Report a security event.
    Event,
    /// Authenticate a Global Token Revocation.
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
                "the token's header is not a JSON object, repeats a name or is nested deeper than 16 levels",
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
    /// Reads only the signature parameters of a header, and ignores `typ`.
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

/// The signature parameters of a header. Other members are not checked.
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
    /// Returns true if `typ` fits this purpose: RFC 7519 §5.1, RFC 9068 §2.1, Back-Channel Logout
    /// 1.0 §2.4, Shared Signals Framework 1.0 §4.1.1 (which requires a `typ`).
    fn has(self, typ: &str) -> bool {
        match self {
            Self::Access => matches!(typ, "jwt" | "at+jwt"),
            Self::Logout => matches!(typ, "jwt" | "logout+jwt"),
            Self::Event => typ == "secevent+jwt",
            // The draft defines no `typ`. Okta sends `global-token-revocation+jwt`.
            Self::Revocation => matches!(typ, "jwt" | "global-token-revocation+jwt"),
        }
    }

    /// The text of the refusal of a token whose `typ` does not fit this purpose.
    fn others(self) -> &'static str {
        match self {
            Self::Access => "the token's typ is neither JWT nor at+jwt",
            Self::Logout => "the token's typ is neither JWT nor logout+jwt",
            Self::Event => "the token's typ is not secevent+jwt",
            Self::Revocation => "the token's typ is neither JWT nor global-token-revocation+jwt",
        }
    }
}

/// Normalises a `typ`: a media type ignores case, and `application/` is optional (RFC 7515 §4.1.9).
fn media_type(typ: &str) -> String {
    let typ = typ.to_ascii_lowercase();
    match typ.strip_prefix("application/") {
        Some(rest) => rest.to_owned(),
        None => typ,
    }
}
