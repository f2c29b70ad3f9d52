//! Extraction of a request's credential: a token, or a ticket that stands for one.

use std::fmt;

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE};

use crate::{AuthConfig, AuthError, Source, Ticket};
use curfew_model::{AuthFailure, percent_decode};

/// Prefix of a subprotocol that carries a token.
const SUBPROTOCOL_PREFIX: &str = "bearer.";

/// Schemes that proxies and browsers send on their own, and that carry no token.
const OTHER_SCHEMES: &[&str] = &["basic", "digest", "negotiate", "ntlm"];

/// The credential of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A token.
    Bearer(Bearer),
    /// A ticket, which stands for a stored token.
    Ticket(Ticket),
}

impl Credential {
    /// Returns true if the token came in a cookie; the request's `Origin` must then be trusted.
    pub fn from_cookie(&self) -> bool {
        matches!(self, Self::Bearer(bearer) if bearer.sources.contains(&Source::Cookie))
    }
}

/// A token from a request, not verified yet. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Bearer {
    token: String,
    sources: Vec<Source>,
}

impl Bearer {
    /// The token's text.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The token's text, by value.
    pub fn into_token(self) -> String {
        self.token
    }

    /// The sources in which the token was found, each once.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bearer")
            .field("sources", &self.sources)
            .finish_non_exhaustive()
    }
}

/// Finds the credential of an upgrade request. `query` is the part of the URI after `?`.
/// `subprotocols` are the subprotocols that the client offers, in order.
///
/// Sources that are empty or not enabled are ignored. Tickets are ignored unless `auth.tickets` is
/// set. The same token or ticket in several places counts once.
///
/// # Errors
///
/// `ambiguous_token` for two different credentials, in one source or in two. `malformed` for a
/// token that is not ASCII, is badly percent-encoded or exceeds `auth.max_token_bytes`, for an
/// `Authorization` header with a wrong scheme, and for a ticket of the wrong form.
pub fn extract(
    headers: &HeaderMap,
    query: Option<&str>,
    subprotocols: &[String],
    config: &AuthConfig,
) -> Result<Option<Credential>, AuthError> {
    let mut found = from_page(headers, query, subprotocols, config)?;
    if config.accepts(Source::Cookie) {
        from_cookie(headers, &config.cookie_name, &mut found)?;
    }
    found.take()
}

/// Like [`extract`], but ignores cookies: for requests from a page that is not trusted.
///
/// # Errors
///
/// The errors of [`extract`].
pub fn extract_beside_cookies(
    headers: &HeaderMap,
    query: Option<&str>,
    subprotocols: &[String],
    config: &AuthConfig,
) -> Result<Option<Credential>, AuthError> {
    from_page(headers, query, subprotocols, config)?.take()
}

/// Collects the credentials from every source except cookies. A page or a program sets these
/// credentials itself, while browsers add cookies on their own.
fn from_page(
    headers: &HeaderMap,
    query: Option<&str>,
    subprotocols: &[String],
    config: &AuthConfig,
) -> Result<CredentialSearch, AuthError> {
    let mut found = CredentialSearch::new(config);
    if config.accepts(Source::Header) {
        from_header(headers, config, &mut found)?;
    }
    if config.accepts(Source::Subprotocol) {
        for token in subprotocols
            .iter()
            .filter_map(|offered| offered.strip_prefix(SUBPROTOCOL_PREFIX))
        {
            found.add(token.as_bytes(), Source::Subprotocol)?;
        }
    }
    from_query(query.unwrap_or_default(), config, &mut found)?;
    Ok(found)
}

/// Finds the token in the `Authorization` header, for requests that are not upgrades.
/// `auth.token_sources` applies only to upgrades.
///
/// # Errors
///
/// The errors of [`extract`].
pub fn bearer(headers: &HeaderMap, config: &AuthConfig) -> Result<Option<Bearer>, AuthError> {
    let mut found = CredentialSearch::new(config);
    from_header(headers, config, &mut found)?;
    Ok(match found.take()? {
        Some(Credential::Bearer(bearer)) => Some(bearer),
        Some(Credential::Ticket(_)) | None => None,
    })
}

/// A search for the credential of a request, and its findings so far.
struct CredentialSearch {
    /// `auth.max_token_bytes`.
    max_token_bytes: usize,
    /// The only credential found so far.
    credential: Option<Credential>,
    /// The refusal for a wrong scheme, returned only if no other source has a token.
    wrong_scheme: Option<AuthError>,
}

impl CredentialSearch {
    fn new(config: &AuthConfig) -> Self {
        Self {
            max_token_bytes: config.max_token_bytes,
            credential: None,
            wrong_scheme: None,
        }
    }

    fn take(self) -> Result<Option<Credential>, AuthError> {
        match (self.credential, self.wrong_scheme) {
            (None, Some(error)) => Err(error),
            (credential, _) => Ok(credential),
        }
    }

    fn add(&mut self, token: &[u8], source: Source) -> Result<(), AuthError> {
        if token.is_empty() {
            return Ok(());
        }
        if token.len() > self.max_token_bytes {
            return Err(AuthError::too_long(self.max_token_bytes));
        }
        let token = match std::str::from_utf8(token) {
            Ok(token) if token.is_ascii() => token,
            _ => {
                return Err(AuthError::malformed(
                    "the token has characters that are not ASCII",
                ));
            }
        };
        match &mut self.credential {
            None => {
                self.credential = Some(Credential::Bearer(Bearer {
                    token: token.to_owned(),
                    sources: vec![source],
                }));
            }
            Some(Credential::Ticket(_)) => return Err(ambiguous("a ticket and a token were sent")),
            Some(Credential::Bearer(bearer)) if bearer.token != token => {
                return Err(ambiguous("two different tokens were sent"));
            }
            Some(Credential::Bearer(bearer)) if bearer.sources.contains(&source) => {}
            Some(Credential::Bearer(bearer)) => bearer.sources.push(source),
        }
        Ok(())
    }

    fn add_ticket(&mut self, text: &str) -> Result<(), AuthError> {
        if text.is_empty() {
            return Ok(());
        }
        let ticket =
            Ticket::parse(text).map_err(|error| AuthError::malformed(error.to_string()))?;
        match &self.credential {
            None => self.credential = Some(Credential::Ticket(ticket)),
            Some(Credential::Ticket(same)) if *same == ticket => {}
            Some(Credential::Ticket(_)) => {
                return Err(ambiguous("two different tickets were sent"));
            }
            Some(Credential::Bearer(_)) => return Err(ambiguous("a ticket and a token were sent")),
        }
        Ok(())
    }
}

fn ambiguous(message: &'static str) -> AuthError {
    AuthError::new(AuthFailure::AmbiguousToken, message)
}

fn from_header(
    headers: &HeaderMap,
    config: &AuthConfig,
    found: &mut CredentialSearch,
) -> Result<(), AuthError> {
    for value in headers.get_all(AUTHORIZATION) {
        let value = value.as_bytes().trim_ascii();
        let end = value
            .iter()
            .position(|byte| *byte == b' ')
            .unwrap_or(value.len());
        let (scheme, rest) = value.split_at(end);
        let is = |known: &str| scheme.eq_ignore_ascii_case(known.as_bytes());
        if config.header_schemes.iter().any(|known| is(known)) {
            found.add(rest.trim_ascii(), Source::Header)?;
        } else if !value.is_ascii() {
            return Err(AuthError::malformed(
                "the Authorization header has characters that are not ASCII",
            ));
        } else if !value.is_empty() && !OTHER_SCHEMES.iter().any(|known| is(known)) {
            let wrong = match rest.is_empty() {
                true => "has no scheme",
                false => "has a scheme that is not in auth.header_schemes",
            };
            let right = config
                .header_schemes
                .first()
                .map_or("Bearer", String::as_str);
            found.wrong_scheme = Some(AuthError::malformed(format!(
                "the Authorization header {wrong}: send `Authorization: {right} <token>`"
            )));
        }
    }
    Ok(())
}

/// Compares parameter names as written, without decoding them. Redaction of URIs compares them in
/// the same way, so it removes every token that this function reads.
fn from_query(
    query: &str,
    config: &AuthConfig,
    found: &mut CredentialSearch,
) -> Result<(), AuthError> {
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("token" | "access_token", value)) if config.accepts(Source::Query) => {
                let token = percent_decode(value.as_bytes()).ok_or_else(|| {
                    AuthError::malformed("the token in the query is not percent-encoded correctly")
                })?;
                found.add(&token, Source::Query)?;
            }
            // The value is not percent-decoded, because base64url contains nothing that a query
            // would escape.
            Some(("ticket", value)) if config.tickets => found.add_ticket(value)?,
            _ => {}
        }
    }
    Ok(())
}

/// Reads only the cookie of this name, because other cookies may hold any bytes.
fn from_cookie(
    headers: &HeaderMap,
    name: &str,
    found: &mut CredentialSearch,
) -> Result<(), AuthError> {
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

#[cfg(test)]
mod tests;
