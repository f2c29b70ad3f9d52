//! Refusals of tokens, in the words sent to the client.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use curfew_model::AuthFailure;

/// Refusal of a token: a reason, which the protocol documents, and one sentence for the client.
/// Neither contains any part of the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthError {
    failure: AuthFailure,
    message: Cow<'static, str>,
    by_clock: bool,
    for_another: bool,
    signer: Option<Arc<str>>,
    detail: Option<Box<str>>,
}

/// Maximum number of `aud` values that a line of the operator's log shows.
const SHOWN_VALUES: usize = 5;

/// Maximum number of characters that the operator's log shows of each `aud` value.
const SHOWN_CHARS: usize = 120;

impl AuthError {
    /// Makes a refusal. `message` must not quote the token or its claims.
    pub fn new(failure: AuthFailure, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            failure,
            message: message.into(),
            by_clock: false,
            for_another: false,
            signer: None,
            detail: None,
        }
    }

    /// Like [`AuthError::new`], for refusals that depend on this node's clock.
    pub(crate) fn by_clock(failure: AuthFailure, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            by_clock: true,
            ..Self::new(failure, message)
        }
    }

    /// Refuses a good token that the client sent for another subscription than the one that the
    /// token names. `what` is the part in which the two subscriptions differ: the channel, the user
    /// or the session.
    pub(crate) fn of_another(what: &str) -> Self {
        Self {
            for_another: true,
            ..Self::new(
                AuthFailure::WrongAudience,
                format!("the subscription token is for another {what}"),
            )
        }
    }

    /// The refusal if no token arrived in time, or if a request that needs a token had none.
    pub fn missing_token() -> Self {
        Self::new(AuthFailure::MissingToken, "no token was sent")
    }

    pub(crate) fn malformed(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(AuthFailure::Malformed, message)
    }

    /// Refuses a token longer than `most`, which is `auth.max_token_bytes`.
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

    /// Like [`AuthError::wrong_audience`], for the token of a report (a logout, a security event or
    /// a Global Token Revocation). Adds the received and the expected `aud`, which only operators
    /// see.
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

    /// Records the issuer that signed the refused report.
    #[must_use]
    pub(crate) fn signed_by(self, signer: &Arc<str>) -> Self {
        Self {
            signer: Some(Arc::clone(signer)),
            ..self
        }
    }

    /// Refuses a claim value that `required_claims` does not list. The token is for another client,
    /// tenant or use.
    pub(crate) fn other_claim(name: &str) -> Self {
        Self::new(
            AuthFailure::WrongAudience,
            format!("the token's {name} claim has none of the accepted values"),
        )
    }

    pub(crate) fn missing_claim(name: &str) -> Self {
        Self::new(
            AuthFailure::MissingClaim,
            format!("the token has no {name} claim"),
        )
    }

    /// The reason, as the protocol documents it.
    pub fn failure(&self) -> AuthFailure {
        self.failure
    }

    /// Returns true if the refusal depends on this node's clock. By another clock, the token may be
    /// accepted.
    pub fn is_by_clock(&self) -> bool {
        self.by_clock
    }

    /// Returns true if the refused token is good, but for another subscription.
    pub fn is_for_another(&self) -> bool {
        self.for_another
    }

    /// Returns true if the token is too old or too new. The client then needs another token, but no
    /// further rights.
    pub fn is_of_time(&self) -> bool {
        matches!(
            self.failure,
            AuthFailure::Expired | AuthFailure::NotYetValid
        )
    }

    /// The configured name of the issuer that signed the refused report; `None` for every other
    /// refusal. The issuer did sign the report, so the report is not forged. Usually the issuer or
    /// this gateway is configured wrongly.
    pub fn signer(&self) -> Option<&Arc<str>> {
        self.signer.as_ref()
    }

    /// The received and the expected `aud` of a report, for operators; `None` if `aud` is not the
    /// reason.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// One sentence for the client.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The value of `WWW-Authenticate` (RFC 6750 §3) for a refused request. For a missing token,
    /// the value names no error. For two different tokens, the error is `invalid_request`.
    pub fn www_authenticate(&self) -> String {
        let error = match self.failure {
            AuthFailure::MissingToken => return "Bearer".to_owned(),
            AuthFailure::AmbiguousToken => "invalid_request",
            _ => "invalid_token",
        };
        // RFC 6750 §3 allows only printable ASCII without quotes and backslashes.
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

/// Formats values for a log line: the first [`SHOWN_VALUES`], each cut to [`SHOWN_CHARS`].
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
