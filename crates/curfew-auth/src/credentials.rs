//! Finding the token of a request.

use std::fmt;

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE};

use crate::token::MAX_TOKEN_BYTES;
use crate::{AuthError, Config, Source};
use curfew_model::AuthFailure;

/// What a subprotocol that carries a token starts with.
const SUBPROTOCOL_PREFIX: &str = "bearer.";

/// A token a request brought, not verified yet. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    token: String,
    sources: Vec<Source>,
}

impl Credential {
    /// The token's text.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Where it was found: each source once.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// Whether a cookie brought it, so that the request's `Origin` must be a trusted one.
    pub fn from_cookie(&self) -> bool {
        self.sources.contains(&Source::Cookie)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("sources", &self.sources)
            .finish_non_exhaustive()
    }
}

/// Finds the token in an upgrade request. `query` is the part of the URI after `?`, `subprotocols`
/// the offered ones in order.
///
/// A source that is not enabled, or empty, is as if absent. The same token twice is one token.
///
/// # Errors
///
/// `ambiguous_token` for two different tokens, in one source or in two; `malformed` for one that
/// is not ASCII, is badly percent-encoded or is over 8 KiB.
pub fn extract(
    headers: &HeaderMap,
    query: Option<&str>,
    subprotocols: &[String],
    config: &Config,
) -> Result<Option<Credential>, AuthError> {
    let mut found = Found(None);
    if config.accepts(Source::Header) {
        from_header(headers, &mut found)?;
    }
    if config.accepts(Source::Subprotocol) {
        for token in subprotocols
            .iter()
            .filter_map(|offered| offered.strip_prefix(SUBPROTOCOL_PREFIX))
        {
            found.add(token.as_bytes(), Source::Subprotocol)?;
        }
    }
    if config.accepts(Source::Query) {
        from_query(query.unwrap_or_default(), &mut found)?;
    }
    if config.accepts(Source::Cookie) {
        from_cookie(headers, &config.cookie_name, &mut found)?;
    }
    Ok(found.0)
}

/// The one token found so far.
struct Found(Option<Credential>);

impl Found {
    fn add(&mut self, token: &[u8], source: Source) -> Result<(), AuthError> {
        if token.is_empty() {
            return Ok(());
        }
        if token.len() > MAX_TOKEN_BYTES {
            return Err(AuthError::malformed("the token is over 8 KiB"));
        }
        let token = match std::str::from_utf8(token) {
            Ok(token) if token.is_ascii() => token,
            _ => {
                return Err(AuthError::malformed(
                    "the token has characters that no token has",
                ));
            }
        };
        match &mut self.0 {
            None => {
                self.0 = Some(Credential {
                    token: token.to_owned(),
                    sources: vec![source],
                });
            }
            Some(credential) if credential.token != token => {
                return Err(AuthError::new(
                    AuthFailure::AmbiguousToken,
                    "two different tokens were sent",
                ));
            }
            Some(credential) if credential.sources.contains(&source) => {}
            Some(credential) => credential.sources.push(source),
        }
        Ok(())
    }
}

fn from_header(headers: &HeaderMap, found: &mut Found) -> Result<(), AuthError> {
    for value in headers.get_all(AUTHORIZATION) {
        let value = value.as_bytes().trim_ascii();
        let end = value
            .iter()
            .position(|byte| *byte == b' ')
            .unwrap_or(value.len());
        let (scheme, token) = value.split_at(end);
        if scheme.eq_ignore_ascii_case(b"bearer") {
            found.add(token.trim_ascii(), Source::Header)?;
        } else if !value.is_ascii() {
            return Err(AuthError::malformed(
                "the Authorization header has characters that are not ASCII",
            ));
        }
    }
    Ok(())
}

/// Names are compared as written, not decoded, so that whoever redacts URIs by name cuts out
/// exactly what is read here.
fn from_query(query: &str, found: &mut Found) -> Result<(), AuthError> {
    for pair in query.split('&') {
        if let Some(("token" | "access_token", value)) = pair.split_once('=') {
            let token = percent_decode(value.as_bytes()).ok_or_else(|| {
                AuthError::malformed("the token in the query is not percent-encoded correctly")
            })?;
            found.add(&token, Source::Query)?;
        }
    }
    Ok(())
}

/// Other cookies may hold any bytes; only the named one is looked at.
fn from_cookie(headers: &HeaderMap, name: &str, found: &mut Found) -> Result<(), AuthError> {
    for value in headers.get_all(COOKIE) {
        for cookie in value.as_bytes().split(|byte| *byte == b';') {
            let Some(value) = cookie
                .trim_ascii()
                .strip_prefix(name.as_bytes())
                .and_then(|rest| rest.strip_prefix(b"="))
            else {
                continue;
            };
            let unquoted = value
                .strip_prefix(b"\"")
                .and_then(|value| value.strip_suffix(b"\""));
            found.add(unquoted.unwrap_or(value), Source::Cookie)?;
        }
    }
    Ok(())
}

fn percent_decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        if *byte != b'%' {
            decoded.push(*byte);
            continue;
        }
        let mut digit = || char::from(*rest.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        decoded.push(u8::try_from(high * 16 + low).ok()?);
    }
    Some(decoded)
}

#[cfg(test)]
mod tests;
