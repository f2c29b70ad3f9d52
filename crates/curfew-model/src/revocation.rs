//! Revocations, which cover tokens by their time of issue. A [`RevocationKey`] names the sessions
//! that a revocation applies to.

use serde::Deserialize;

use crate::json::object_text;
use crate::{Disconnect, RevocationKey, TraceContext};

/// The reason of the revocation that is set after a loss of data. This revocation covers every
/// token issued before the loss. See [`Revocation::reauth`].
const REAUTH: &str = "reauth_required";

/// The message for a session whose token was issued in the same second as the revocation. The token
/// may be older or newer than the revocation.
const AS_OLD: &str = "the token was issued in the second in which access was revoked: get a token that is issued later";

/// A revocation, stored under a [`RevocationKey`]. The key names sessions; the revocation states
/// which tokens of these sessions are covered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revocation {
    /// The latest covered `iat`, in Unix seconds. Tokens without `iat` are covered as well. `None`
    /// covers every token.
    pub before: Option<u64>,
    /// The reason, for the operator. Clients do not see it.
    pub reason: Option<Box<str>>,
    /// The end of the revocation, in Unix seconds; `None` if it lasts until an operator lifts it.
    pub expires_at: Option<u64>,
    /// The span that wrote the revocation, if that span is recorded.
    pub trace: Option<Box<TraceContext>>,
}

impl Revocation {
    /// True if a token issued at `issued_at` (Unix seconds) is covered.
    pub fn covers(&self, issued_at: Option<u64>) -> bool {
        match (self.before, issued_at) {
            (None, _) | (_, None) => true,
            (Some(before), Some(issued_at)) => issued_at <= before,
        }
    }

    /// A revocation of every token issued at or before `before`. It is needed if revocations that
    /// were written up to that time may be lost.
    pub fn reauth(before: u64) -> Self {
        Self {
            before: Some(before),
            reason: Some(REAUTH.into()),
            ..Self::default()
        }
    }

    /// True if this revocation of `key` is the one that is set after a loss of data
    /// ([`Revocation::reauth`]). It is called the floor.
    pub fn is_floor(&self, key: &RevocationKey) -> bool {
        *key == RevocationKey::All && self.reason.as_deref() == Some(REAUTH)
    }

    /// The disconnect of a session that this revocation of `key` covers. The session's token was
    /// issued at `issued_at`.
    pub fn disconnect(&self, key: &RevocationKey, issued_at: Option<u64>) -> Disconnect {
        // Times are in whole seconds, so a token that was issued in the second of the revocation
        // may be older or newer than the revocation.
        let is_as_old = self.before.is_some() && self.before == issued_at;
        match (self.is_floor(key), is_as_old) {
            (true, _) => Disconnect::REAUTH_REQUIRED,
            (false, true) => Disconnect::REAUTH_REQUIRED.because(AS_OLD),
            (false, false) => Disconnect::REVOKED,
        }
    }

    /// Merges this revocation with a later one of the same key. The result has the later `before`
    /// and the later `expires_at` of the two, where `None` counts as the latest.
    pub fn merge(&self, later: Self) -> Self {
        let highest = |a: Option<u64>, b: Option<u64>| Some(a?.max(b?));
        Self {
            before: highest(self.before, later.before),
            reason: later.reason.or_else(|| self.reason.clone()),
            expires_at: highest(self.expires_at, later.expires_at),
            trace: later.trace,
        }
    }

    /// True if this revocation covers every token that `other` covers, and does not end earlier.
    pub fn covers_as_much_as(&self, other: &Self) -> bool {
        let wider = self.merge(other.clone());
        (wider.before, wider.expires_at) == (self.before, self.expires_at)
    }

    /// Parses the value of a revocation key in Redis. It fails closed: a value that holds no time
    /// covers every token.
    ///
    /// A time is written as 10 or 11 digits (seconds), or as 13 or 14 digits (milliseconds).
    /// Milliseconds are rounded up to the second, so that no covered token escapes. The value may
    /// also be a JSON object whose member `before` is the time. This number may have a fraction.
    pub fn parse(value: &[u8]) -> Self {
        if let Some(before) = parse_time(value) {
            return Self {
                before: Some(before),
                ..Self::default()
            };
        }
        /// The members that are read from a JSON object.
        #[derive(Deserialize)]
        struct RevocationValue {
            before: Option<serde_json::Value>,
            reason: Option<serde_json::Value>,
            trace: Option<serde_json::Value>,
            tracestate: Option<serde_json::Value>,
        }
        let written = object_text(value).map(serde_json::from_str::<RevocationValue>);
        let Some(Ok(written)) = written else {
            // The value is neither a time nor a valid object, so it covers every token.
            return Self::default();
        };
        Self {
            before: written.before.and_then(|before| {
                let up = before.as_f64()?.ceil() as u64;
                parse_time(up.to_string().as_bytes())
            }),
            reason: written
                .reason
                .and_then(|reason| reason.as_str().map(Into::into)),
            expires_at: None,
            trace: written
                .trace
                .and_then(|trace| TraceContext::parse(trace.as_str()?))
                .filter(TraceContext::is_sampled)
                .map(|trace| {
                    let state = written.tracestate.as_ref().and_then(|state| state.as_str());
                    Box::new(trace.with_state(state.unwrap_or_default()))
                }),
        }
    }
}

/// Parses a time in digits: seconds, or milliseconds rounded up.
fn parse_time(text: &[u8]) -> Option<u64> {
    if !text.iter().all(u8::is_ascii_digit) {
        // `parse` alone would accept a sign.
        return None;
    }
    let number: u64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    match text.len() {
        10 | 11 => Some(number),
        13 | 14 => Some(number.div_ceil(1000)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fail_closed() {
        let cutoff = |before| Revocation {
            before: Some(before),
            ..Revocation::default()
        };
        for (value, expect) in [
            ("1764000000", cutoff(1_764_000_000)),
            ("1764000000000", cutoff(1_764_000_000)),
            ("1764000000001", cutoff(1_764_000_001)),
            ("1", Revocation::default()),
            ("", Revocation::default()),
            ("0", Revocation::default()),
            ("-1", Revocation::default()),
            ("yes", Revocation::default()),
            ("{", Revocation::default()),
            ("{}", Revocation::default()),
            ("[1764000000]", Revocation::default()),
            ("[1764000000,null,null]", Revocation::default()),
            (r#"{"before":1764000000}"#, cutoff(1_764_000_000)),
            (r#"{"before":"soon"}"#, Revocation::default()),
            (r#"{"before":-1.5}"#, Revocation::default()),
            (r#"{"before":1764000000.25}"#, cutoff(1_764_000_001)),
            (
                r#"{"before":1764000000,"reason":"left","by":"ops"}"#,
                Revocation {
                    reason: Some("left".into()),
                    ..cutoff(1_764_000_000)
                },
            ),
        ] {
            assert_eq!(Revocation::parse(value.as_bytes()), expect, "{value}");
        }
        let not_text = b"{\"before\":1764000000,\"by\":\"\xff\"}";
        assert_eq!(Revocation::parse(not_text), Revocation::default());
    }

    #[test]
    fn a_cutoff_covers_tokens_issued_at_or_before_it_and_tokens_without_iat() {
        let cutoff = Revocation {
            before: Some(100),
            ..Revocation::default()
        };
        assert!(cutoff.covers(Some(99)) && cutoff.covers(Some(100)) && cutoff.covers(None));
        assert!(!cutoff.covers(Some(101)));
        assert!(Revocation::default().covers(Some(u64::MAX)));
    }

    #[test]
    fn lost_data_ends_sessions_in_its_own_way() {
        let lost = Revocation::reauth(1_764_000_000);
        let (all, user) = (RevocationKey::All, RevocationKey::user("a"));
        let old = Some(1_763_999_999);
        assert_eq!(lost.disconnect(&all, old), Disconnect::REAUTH_REQUIRED);
        assert_eq!(lost.disconnect(&user, old), Disconnect::REVOKED);
        let everyone = Revocation::default();
        assert_eq!(everyone.disconnect(&all, old), Disconnect::REVOKED);
    }

    #[test]
    fn a_token_from_the_second_of_the_cutoff_is_to_be_renewed() {
        let user = RevocationKey::user("a");
        let cutoff = Revocation {
            before: Some(100),
            ..Revocation::default()
        };
        for (issued_at, expect) in [
            (Some(99), Disconnect::REVOKED),
            (Some(100), Disconnect::REAUTH_REQUIRED),
            (None, Disconnect::REVOKED),
        ] {
            assert!(cutoff.covers(issued_at));
            assert_eq!(cutoff.disconnect(&user, issued_at), expect);
        }
        let ban = Revocation::default();
        assert_eq!(ban.disconnect(&user, None), Disconnect::REVOKED);
    }
}
