//! The table of error codes, a public contract defined only here.

use std::fmt;

macro_rules! codes {
    ($(#[$meta:meta])* $name:ident { $($(#[doc = $doc:literal])+ $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[doc = $doc])+ $variant,)+ }

        impl $name {
            /// Every code, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name in frames, logs and metrics.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

impl ErrorCode {
    /// True if the server or a dependency is at fault, as for an HTTP status 5xx.
    pub fn is_ours(self) -> bool {
        matches!(
            self,
            Self::Unavailable | Self::UnknownOutcome | Self::Internal
        )
    }
}

codes! {
    /// The reason for which a command was refused. An error does not close the connection, unless
    /// the table of disconnects says so.
    ErrorCode {
        /// The message is JSON but no command: a member is missing, unknown, repeated or of the
        /// wrong type.
        BadRequest = "bad_request",
        /// `type` is not the name of a command.
        UnknownType = "unknown_type",
        /// No rule and no grant allows the action, or a rule denies it.
        Forbidden = "forbidden",
        /// `unsubscribe` from a channel that the session is not subscribed to.
        NotSubscribed = "not_subscribed",
        /// `subscribe` to a channel that the session is subscribed to.
        AlreadySubscribed = "already_subscribed",
        /// The session has as many subscriptions as `limits.subscriptions` allows.
        LimitExceeded = "limit_exceeded",
        /// The session exceeds `limits.messages_per_second`. The command was not executed.
        RateLimited = "rate_limited",
        /// The publication does not fit into a message to its receivers.
        MessageTooLarge = "message_too_large",
        /// The channel's name is invalid.
        InvalidChannel = "invalid_channel",
        /// The channel has no stream, so it has no history and accepts no idempotency keys.
        NotAvailable = "not_available",
        /// A dependency is down, and the command was not executed. Try again later.
        Unavailable = "unavailable",
        /// The publication may have been delivered or not. Until the lease under which it was
        /// accepted ends, it may still be delivered, and then after newer publications.
        UnknownOutcome = "unknown_outcome",
        /// The server is at fault. The log has the details.
        Internal = "internal",
        /// `refresh` with a token of another user or issuer.
        DifferentUser = "different_user",
        /// `refresh` needs a token.
        MissingToken = "missing_token",
        /// The token is not a JWT in the required form.
        Malformed = "malformed",
        /// The token's signature does not verify.
        BadSignature = "bad_signature",
        /// No configured key fits the token.
        UnknownKey = "unknown_key",
        /// The token has expired.
        Expired = "expired",
        /// The token is not valid yet.
        NotYetValid = "not_yet_valid",
        /// The token's issuer is not configured.
        WrongIssuer = "wrong_issuer",
        /// The token is for another audience.
        WrongAudience = "wrong_audience",
        /// A required claim is missing.
        MissingClaim = "missing_claim",
        /// Two different tokens were sent.
        AmbiguousToken = "ambiguous_token",
        /// A revocation covers the token.
        Revoked = "revoked",
        /// The token is too old. A newer token is needed.
        ReauthRequired = "reauth_required",
    }
}

codes! {
    /// The reason for which a token was refused.
    AuthFailure {
        /// No configured source provided a token.
        MissingToken = "missing_token",
        /// The token is not a JWT in the required form: its parts, encoding, header, claim types or
        /// size are wrong.
        Malformed = "malformed",
        /// The signature does not verify with the key that the token names.
        BadSignature = "bad_signature",
        /// No configured key fits the token's `kid` and algorithm.
        UnknownKey = "unknown_key",
        /// `exp` has passed.
        Expired = "expired",
        /// `nbf` or `iat` is in the future.
        NotYetValid = "not_yet_valid",
        /// `iss` is not a configured issuer.
        WrongIssuer = "wrong_issuer",
        /// `aud` names none of the configured audiences.
        WrongAudience = "wrong_audience",
        /// A required claim is absent.
        MissingClaim = "missing_claim",
        /// Two sources provided different tokens.
        AmbiguousToken = "ambiguous_token",
        /// A revocation covers the token.
        Revoked = "revoked",
        /// The token was issued in the second of a revocation, or before a loss of data.
        ReauthRequired = "reauth_required",
    }
}

impl From<AuthFailure> for ErrorCode {
    fn from(failure: AuthFailure) -> Self {
        match failure {
            AuthFailure::MissingToken => Self::MissingToken,
            AuthFailure::Malformed => Self::Malformed,
            AuthFailure::BadSignature => Self::BadSignature,
            AuthFailure::UnknownKey => Self::UnknownKey,
            AuthFailure::Expired => Self::Expired,
            AuthFailure::NotYetValid => Self::NotYetValid,
            AuthFailure::WrongIssuer => Self::WrongIssuer,
            AuthFailure::WrongAudience => Self::WrongAudience,
            AuthFailure::MissingClaim => Self::MissingClaim,
            AuthFailure::AmbiguousToken => Self::AmbiguousToken,
            AuthFailure::Revoked => Self::Revoked,
            AuthFailure::ReauthRequired => Self::ReauthRequired,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_auth_failure_keeps_its_name_as_an_error_code() {
        for failure in AuthFailure::ALL {
            assert_eq!(ErrorCode::from(*failure).as_str(), failure.as_str());
        }
    }
}
