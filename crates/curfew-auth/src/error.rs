//! Why a token was refused, in the words the client gets.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use curfew_model::AuthFailure;

/// Why a token was refused: the reason of the public contract and one sentence for the client.
/// Neither holds any part of the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthError {
    failure: AuthFailure,
    message: Cow<'static, str>,
    by_clock: bool,
    signer: Option<Arc<str>>,
    detail: Option<Box<str>>,
}

/// An `aud` is shown up to this many values, in the operator's log.
const SHOWN_VALUES: usize = 5;

/// A value of it is shown up to this many characters.
const SHOWN_CHARS: usize = 120;

impl AuthError {
    /// A refusal with a message of the caller's, which must not quote the token or its claims.
    pub fn new(failure: AuthFailure, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            failure,
            message: message.into(),
            by_clock: false,
            signer: None,
            detail: None,
        }
    }

    /// As [`AuthError::new`], where this node's clock has decided it.
    pub(crate) fn by_clock(failure: AuthFailure, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            by_clock: true,
            ..Self::new(failure, message)
        }
    }

    /// No token came in time, or none came with a request that needs one.
    pub fn missing_token() -> Self {
        Self::new(AuthFailure::MissingToken, "no token was sent")
    }

    pub(crate) fn malformed(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(AuthFailure::Malformed, message)
    }

    /// `most` is `auth.max_token_bytes`.
    pub(crate) fn too_long(most: usize) -> Self {
        Self::malformed(format!(
            "the token is over {most} bytes (auth.max_token_bytes)"
        ))
    }

    pub(crate) fn bad_signature() -> Self {
        Self::new(
            AuthFailure::BadSignature,
            "the token's signature does not verify",
        )
    }

    pub(crate) fn wrong_issuer() -> Self {
        Self::new(
            AuthFailure::WrongIssuer,
            "the token's issuer is not accepted",
        )
    }

    pub(crate) fn wrong_audience() -> Self {
        Self::new(
            AuthFailure::WrongAudience,
            "the token is for another audience",
        )
    }

    /// As [`AuthError::wrong_audience`], of a report: what its `aud` is and what it has to be is for
    /// operators.
    pub(crate) fn other_audience(received: &[String], expected: &[String]) -> Self {
        let detail = format!(
            "aud is {}, and one of {} is expected",
            shown(received),
            shown(expected)
        );
        Self {
            detail: Some(detail.into()),
            ..Self::wrong_audience()
        }
    }

    /// The same, of a report that the issuer called `signer` has signed.
    #[must_use]
    pub(crate) fn signed_by(self, signer: &Arc<str>) -> Self {
        Self {
            signer: Some(Arc::clone(signer)),
            ..self
        }
    }

    /// `auth.issuers.required_claims`: the token is for another client, tenant or use.
    pub(crate) fn other_claim(name: &str) -> Self {
        Self::new(
            AuthFailure::WrongAudience,
            format!("the token's {name} claim is none of those accepted here"),
        )
    }

    pub(crate) fn missing_claim(name: &str) -> Self {
        Self::new(
            AuthFailure::MissingClaim,
            format!("the token has no {name} claim"),
        )
    }

    /// The reason's name.
    pub fn failure(&self) -> AuthFailure {
        self.failure
    }

    /// Whether this node's clock has decided it: by another clock the token may be good.
    pub fn is_by_clock(&self) -> bool {
        self.by_clock
    }

    /// The configured name of the issuer that has signed what is refused, where that is a report: it
    /// is not a stranger's, so its configuration or ours is wrong.
    pub fn signer(&self) -> Option<&Arc<str>> {
        self.signer.as_ref()
    }

    /// The values received and expected, for operators.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// One sentence for the client.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The value of `WWW-Authenticate` (RFC 6750 §3) for a refused request. Without a token there
    /// is no error to name; two different tokens are the request's fault, not the token's.
    pub fn www_authenticate(&self) -> String {
        let error = match self.failure {
            AuthFailure::MissingToken => return "Bearer".to_owned(),
            AuthFailure::AmbiguousToken => "invalid_request",
            _ => "invalid_token",
        };
        // RFC 6750 §3 allows no quote, no backslash and nothing but printable ASCII here.
        let description: String = self
            .message
            .chars()
            .map(|c| match c {
                '"' | '\\' => '\'',
                ' '..='~' => c,
                _ => '?',
            })
            .collect();
        format!("Bearer error=\"{error}\", error_description=\"{description}\"")
    }
}

/// Some values, cut to a length that a log line can have.
fn shown(values: &[String]) -> String {
    let cut = |value: &String| value.chars().take(SHOWN_CHARS).collect::<String>();
    let first: Vec<String> = values.iter().take(SHOWN_VALUES).map(cut).collect();
    match values.len().checked_sub(SHOWN_VALUES) {
        Some(more @ 1..) => format!("{first:?} and {more} more"),
        _ => format!("{first:?}"),
    }
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.failure, self.message)
    }
}

impl std::error::Error for AuthError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn www_authenticate_follows_rfc_6750() {
        let cases = [
            (AuthError::missing_token(), "Bearer"),
            (
                AuthError::new(AuthFailure::Expired, "the token expired 3 s ago"),
                r#"Bearer error="invalid_token", error_description="the token expired 3 s ago""#,
            ),
            (
                AuthError::new(AuthFailure::AmbiguousToken, "a\"b\\c\né"),
                r#"Bearer error="invalid_request", error_description="a'b'c??""#,
            ),
        ];
        for (error, expected) in cases {
            assert_eq!(error.www_authenticate(), expected);
        }
    }
}
