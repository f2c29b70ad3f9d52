//! The table of disconnects, a public contract defined only here.

/// The advice to a client whose connection the server closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Do not reconnect: the connection of an unchanged client would be closed for the same reason.
    No,
    /// Reconnect, with backoff.
    Yes,
    /// Reconnect with a new token.
    WithNewToken,
    /// Reconnect only after the user has signed in again.
    AfterSigningIn,
}

impl Advice {
    /// True if the client may reconnect without asking its user. The `closing` frame contains this
    /// value as `reconnect`.
    pub fn reconnect(self) -> bool {
        matches!(self, Self::Yes | Self::WithNewToken)
    }

    /// The advice in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Yes => "yes",
            Self::WithNewToken => "with a new token",
            Self::AfterSigningIn => "after signing in again",
        }
    }
}

/// The reason why the server ends a connection: a close code with its name and advice. Two
/// disconnects are equal if they have the same code and name, even if their messages differ.
#[derive(Debug, Clone, Copy)]
pub struct Disconnect {
    /// The WebSocket close code.
    pub code: u16,
    /// The name in the `closing` frame, logs and metrics.
    pub reason: &'static str,
    /// One sentence for display, of at most 123 bytes, as a close frame allows (RFC 6455 §5.5).
    pub message: &'static str,
    /// The advice to the client.
    pub advice: Advice,
}

macro_rules! disconnects {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal $reason:literal $message:literal $advice:ident;)+) => {
        impl Disconnect {
            $($(#[doc = $doc])+ pub const $name: Self = Self {
                code: $code, reason: $reason, message: $message, advice: Advice::$advice,
            };)+
        }

        /// Every disconnect, in the order of the documentation.
        pub const DISCONNECTS: &[Disconnect] = &[$(Disconnect::$name),+];
    };
}

disconnects! {
    /// The message is not JSON or is binary, or the client sent more malformed messages than
    /// `limits.bad_frames` allows.
    BAD_REQUEST = 4400 "bad_request" "the client does not speak the protocol" No;
    /// The token was refused; the `auth_failed` frame before the close names the reason.
    AUTH_FAILED = 4401 "auth_failed" "the token was refused" WithNewToken;
    /// A revocation covers the session.
    REVOKED = 4403 "revoked" "access was revoked" AfterSigningIn;
    /// An operator closed this session.
    DISCONNECTED = 4404 "disconnected" "an operator closed this session" Yes;
    /// A newer session of the user replaced this session (`session.over_limit = "close_oldest"`).
    REPLACED = 4407 "replaced" "a newer session of the user replaced this session" No;
    /// No token arrived within `auth.timeout`.
    AUTH_TIMEOUT = 4408 "auth_timeout" "no token was sent in time" Yes;
    /// The user has `session.max_per_user` other sessions that may be alive, or the address of a
    /// client without a user already has `limits.anonymous_per_address` sessions.
    SESSION_LIMIT = 4409 "session_limit" "the user has as many sessions as are allowed" Yes;
    /// The token's `exp` plus leeway passed without a refresh.
    EXPIRED = 4410 "expired" "the token has expired" WithNewToken;
    /// The client exceeded `limits.messages_per_second` for ten seconds without a pause.
    RATE_LIMITED = 4429 "rate_limited" "too many messages for too long" Yes;
    /// The backend is unavailable.
    UNAVAILABLE = 4503 "unavailable" "the service is temporarily unavailable" Yes;
    /// The outbound queue overflowed.
    SLOW_CONSUMER = 4508 "slow_consumer" "the client reads more slowly than messages arrive" Yes;
    /// No pong arrived within `session.pong_timeout`.
    NO_PONG = 4510 "no_pong" "no pong was received in time" Yes;
    /// The bytes are not WebSocket frames (RFC 6455 §7.4.1).
    PROTOCOL_ERROR = 1002 "protocol_error" "the client broke the WebSocket protocol" No;
    /// A text message is not UTF-8 (RFC 6455 §8.1).
    INVALID_UTF8 = 1007 "invalid_utf8" "a text message is not valid UTF-8" No;
    /// The client sent too many control frames, or did not complete a fragmented message.
    POLICY = 1008 "policy_violation" "too many control frames or an unfinished message" No;
    /// A message exceeds `limits.message_bytes`, or has too many fragments.
    MESSAGE_TOO_LARGE = 1009 "message_too_large" "a message is larger than allowed" No;
    /// The server is at fault. The log has the details.
    INTERNAL = 1011 "internal" "an internal error" Yes;
    /// The node leaves service.
    DRAINING = 1012 "draining" "the node is leaving service" Yes;
}

impl PartialEq for Disconnect {
    fn eq(&self, other: &Self) -> bool {
        (self.code, self.reason) == (other.code, other.reason)
    }
}

impl Eq for Disconnect {}

impl Disconnect {
    /// A copy with this `message`, which states the cause more exactly.
    pub const fn because(self, message: &'static str) -> Self {
        Self { message, ..self }
    }

    /// The token was issued in the same second as a revocation that covers it, or before the
    /// backend lost its data while `backend.on_data_loss` is `reauth`. The code is 4401, as for any
    /// token that does not open a session; the name differs.
    pub const REAUTH_REQUIRED: Self = Self {
        code: Self::AUTH_FAILED.code,
        reason: "reauth_required",
        message: "every token issued so far must be renewed",
        advice: Advice::WithNewToken,
    };

    /// The server has subscribed the session to a channel whose publications may be missing, or the
    /// session has lost access to a channel and frames of the channel can no longer be dropped. The
    /// client resumes its subscriptions over a new connection. The code is that of the Centrifuge
    /// protocol. In the native protocol, part of such a frame is already written, so the connection
    /// is reset without a close frame.
    pub const INSUFFICIENT_STATE: Self = Self {
        code: 3010,
        reason: "insufficient state",
        message: "publications may be missing; connect again to recover them",
        advice: Advice::Yes,
    };

    /// The server would subscribe the session to more channels than `limits.subscriptions` allows.
    /// Only the Centrifuge protocol closes for this reason, with its own code.
    pub const CHANNEL_LIMIT: Self = Self {
        code: 3505,
        reason: "channel limit",
        message: "more channels than limits.subscriptions allows",
        advice: Advice::No,
    };

    /// True if the session's access has ended or is not covered by a lease. No more data may then
    /// be sent to the client.
    pub fn withdraws_access(self) -> bool {
        [
            Self::REVOKED,
            Self::REAUTH_REQUIRED,
            Self::EXPIRED,
            Self::UNAVAILABLE,
        ]
        .contains(&self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_messages_fit_a_close_frame() {
        for (at, disconnect) in DISCONNECTS.iter().enumerate() {
            assert!(disconnect.message.len() <= 123, "{disconnect:?}");
            assert!(
                DISCONNECTS[..at]
                    .iter()
                    .all(|other| other.code != disconnect.code)
            );
        }
    }
}
