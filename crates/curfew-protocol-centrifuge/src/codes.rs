//! Numbers of errors and closes, with their texts.

use curfew_model::{AuthFailure, Disconnect, ErrorCode};

/// An error of the protocol, as a client receives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Error {
    pub(crate) code: u32,
    /// The message to send if the failed command gives no message of its own.
    pub(crate) message: &'static str,
    /// True if the client tries again by itself.
    pub(crate) is_temporary: bool,
}

const fn lasting(code: u32, message: &'static str) -> Error {
    Error {
        code,
        message,
        is_temporary: false,
    }
}

const fn temporary(code: u32, message: &'static str) -> Error {
    Error {
        code,
        message,
        is_temporary: true,
    }
}

const INTERNAL: Error = temporary(100, "internal server error");
const UNAUTHORIZED: Error = lasting(101, "unauthorized");
const PERMISSION_DENIED: Error = lasting(103, "permission denied");
const ALREADY_SUBSCRIBED: Error = lasting(105, "already subscribed");
const LIMIT_EXCEEDED: Error = lasting(106, "limit exceeded");
const BAD_REQUEST: Error = lasting(107, "bad request");
const NOT_AVAILABLE: Error = lasting(108, "not available");
pub(crate) const TOKEN_EXPIRED: Error = lasting(109, "token expired");
/// This error is temporary, because a lasting error would end a session whose current token is
/// still valid.
const NEWER_TOKEN_EXPIRED: Error = temporary(109, "token expired");
const TOO_MANY_REQUESTS: Error = temporary(111, "too many requests");
pub(crate) const UNRECOVERABLE: Error = lasting(112, "unrecoverable position");
/// The error of a publication that may or may not have been delivered. Clients must not repeat the
/// publication by themselves, so the error is lasting. 400 is the lowest code for errors of an
/// application.
const UNKNOWN_OUTCOME: Error = lasting(400, "unknown outcome");

/// The error that answers a command that failed with `code`.
pub(crate) fn error(code: ErrorCode) -> Error {
    match code {
        ErrorCode::BadRequest
        | ErrorCode::UnknownType
        | ErrorCode::InvalidChannel
        | ErrorCode::MessageTooLarge
        | ErrorCode::MissingToken => BAD_REQUEST,
        ErrorCode::Forbidden
        | ErrorCode::NotSubscribed
        | ErrorCode::DifferentUser
        | ErrorCode::Malformed
        | ErrorCode::BadSignature
        | ErrorCode::UnknownKey
        | ErrorCode::WrongIssuer
        | ErrorCode::WrongAudience
        | ErrorCode::MissingClaim
        | ErrorCode::AmbiguousToken
        | ErrorCode::Revoked => PERMISSION_DENIED,
        ErrorCode::AlreadySubscribed => ALREADY_SUBSCRIBED,
        ErrorCode::LimitExceeded => LIMIT_EXCEEDED,
        ErrorCode::RateLimited => TOO_MANY_REQUESTS,
        ErrorCode::NotAvailable => NOT_AVAILABLE,
        ErrorCode::Unavailable | ErrorCode::Internal => INTERNAL,
        ErrorCode::UnknownOutcome => UNKNOWN_OUTCOME,
        ErrorCode::Expired | ErrorCode::NotYetValid | ErrorCode::ReauthRequired => {
            NEWER_TOKEN_EXPIRED
        }
    }
}

/// The error of `connect` for a token that opens no session; `None` if only the close states the
/// reason.
pub(crate) fn auth_failure(failure: AuthFailure) -> Option<Error> {
    match failure {
        AuthFailure::Expired | AuthFailure::NotYetValid | AuthFailure::ReauthRequired => {
            Some(TOKEN_EXPIRED)
        }
        AuthFailure::MissingToken => Some(UNAUTHORIZED),
        AuthFailure::Malformed
        | AuthFailure::BadSignature
        | AuthFailure::UnknownKey
        | AuthFailure::WrongIssuer
        | AuthFailure::WrongAudience
        | AuthFailure::MissingClaim
        | AuthFailure::AmbiguousToken
        | AuthFailure::Revoked => None,
    }
}

/// The error of `connect` if a session is not opened for a reason other than its token; `None` if
/// only the close states the reason.
pub(crate) fn not_opened(disconnect: &Disconnect) -> Option<Error> {
    if *disconnect == Disconnect::UNAVAILABLE {
        Some(INTERNAL)
    } else if *disconnect == Disconnect::SESSION_LIMIT {
        Some(TOO_MANY_REQUESTS)
    } else {
        None
    }
}

/// The code and reason with which the server ends a subscription after a gap. The client then
/// resumes the subscription.
pub(crate) const INSUFFICIENT_STATE: (u32, &str) = (2500, "insufficient state");

/// The code and reason with which the server ends a subscription for `reason`. Clients resubscribe
/// after codes from 2500 on.
pub(crate) fn unsubscribe(reason: ErrorCode) -> (u32, &'static str) {
    match reason {
        ErrorCode::Expired => (2501, "subscription expired"),
        // The client fetches another token, and gives up its position.
        ErrorCode::ReauthRequired => (2502, "state invalidated"),
        reason => (2000, reason.as_str()),
    }
}

/// Each disconnect, with the code and reason that clients receive. Clients reconnect after codes
/// from 3000 to 3499. They do not reconnect after codes from 3500 to 3999, unless the reason is
/// empty or JSON.
const CLOSES: &[(Disconnect, u16, &str)] = &[
    (Disconnect::BAD_REQUEST, 3501, "bad request"),
    (Disconnect::AUTH_FAILED, 3500, "invalid token"),
    (Disconnect::REAUTH_REQUIRED, 3014, "state invalidated"),
    (Disconnect::REVOKED, 3503, "revoked"),
    (Disconnect::DISCONNECTED, 3011, "force reconnect"),
    // If this code made clients reconnect, two clients would replace each other for ever.
    (Disconnect::REPLACED, 3504, "connection limit"),
    (Disconnect::AUTH_TIMEOUT, 3502, "stale"),
    (Disconnect::SESSION_LIMIT, 3013, "too many requests"),
    (Disconnect::EXPIRED, 3005, "connection expired"),
    (Disconnect::RATE_LIMITED, 3013, "too many requests"),
    (Disconnect::UNAVAILABLE, 3004, "internal server error"),
    (Disconnect::SLOW_CONSUMER, 3008, "slow"),
    (Disconnect::NO_PONG, 3012, "no pong"),
    (Disconnect::PROTOCOL_ERROR, 3501, "bad request"),
    (Disconnect::INVALID_UTF8, 3501, "bad request"),
    (Disconnect::POLICY, 3501, "bad request"),
    // After the code 1009, some clients would reconnect for ever.
    (Disconnect::MESSAGE_TOO_LARGE, 3501, "message too large"),
    (Disconnect::INTERNAL, 3004, "internal server error"),
    (Disconnect::DRAINING, 3001, "shutdown"),
    (Disconnect::INSUFFICIENT_STATE, 3010, "insufficient state"),
    (Disconnect::CHANNEL_LIMIT, 3505, "channel limit"),
];

/// The code and reason with which the server closes a connection for `disconnect`.
pub(crate) fn close(disconnect: &Disconnect) -> (u16, &'static str) {
    let known = CLOSES.iter().find(|(known, ..)| known == disconnect);
    match known {
        Some((_, code, reason)) => (*code, reason),
        None if disconnect.advice.reconnect() => (3000, "connection closed"),
        None => (3503, "force disconnect"),
    }
}

#[cfg(test)]
mod tests {
    use curfew_model::{Advice, DISCONNECTS};

    use super::*;

    #[test]
    fn every_close_has_a_code_that_clients_understand() {
        for disconnect in DISCONNECTS.iter().chain([&Disconnect::REAUTH_REQUIRED]) {
            assert!(CLOSES.iter().any(|(known, ..)| known == disconnect));
            let (code, reason) = close(disconnect);
            assert!((3000..=3999).contains(&code), "{disconnect:?}: {code}");
            assert!((1..=123).contains(&reason.len()), "{disconnect:?}");
            assert!(serde_json::from_str::<serde_json::Value>(reason).is_err());
        }
    }

    #[test]
    fn clients_reconnect_where_the_advice_is_to() {
        // After `AUTH_FAILED` a client needs a new token, which no client fetches after a close.
        // After `AUTH_TIMEOUT`, a client would reconnect without a token again.
        let differ = [Disconnect::AUTH_FAILED, Disconnect::AUTH_TIMEOUT];
        for disconnect in DISCONNECTS.iter().chain([&Disconnect::REAUTH_REQUIRED]) {
            let reconnects = close(disconnect).0 < 3500;
            let advice = disconnect.advice.reconnect() && !differ.contains(disconnect);
            assert_eq!(reconnects, advice, "{disconnect:?}");
        }
    }

    #[test]
    fn an_unknown_close_follows_its_advice() {
        for (advice, expect) in [
            (Advice::Yes, (3000, "connection closed")),
            (Advice::No, (3503, "force disconnect")),
        ] {
            let disconnect = Disconnect {
                code: 4999,
                reason: "",
                message: "",
                advice,
            };
            assert_eq!(close(&disconnect), expect);
        }
    }

    #[test]
    fn only_what_may_pass_is_temporary() {
        for code in ErrorCode::ALL {
            let Error {
                code: number,
                message,
                is_temporary,
            } = error(*code);
            assert!((100..=400).contains(&number) && !message.is_empty());
            // A lasting error 109 ends an open session.
            assert_eq!(is_temporary, [100, 109, 111].contains(&number), "{code}");
        }
    }
}
