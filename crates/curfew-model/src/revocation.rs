//! Revocations: whom they name and which tokens they cover.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::principal::{ISSUER_TOKEN, ISSUER_USER};
use crate::{Disconnect, SessionId, TraceContext};

/// Values longer than this, in bytes, are written as a digest.
const MAX_VALUE_BYTES: usize = 200;

/// The reason of a revocation of everyone that stands for data that was lost.
const REAUTH: &str = "reauth_required";

/// Kinds that are not names of claims.
const RESERVED_KINDS: [&str; 4] = ["user", "session", "token", "all"];

/// Whom a revocation names. Two keys are equal exactly when their Redis keys are: long and odd
/// values are kept as their digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RevocationKey {
    /// Everyone.
    All,
    /// Whoever has `value` for `kind`: `user`, `session`, `token` or the name of a claim.
    One {
        /// The kind.
        kind: Box<str>,
        /// The value in its written form (see [`RevocationKey::claim`]).
        value: Box<str>,
    },
}

/// Why kind and value do not make a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevocationKeyError {
    /// The kind is neither built in nor in `session.revocable_claims`.
    #[error(
        "unknown kind {0:?}: use user, session, token, all or a claim listed in session.revocable_claims"
    )]
    UnknownKind(String),
    /// An empty value names nobody.
    #[error("the value must not be empty")]
    EmptyValue,
    /// Not a session id.
    #[error("the value is not a session id")]
    NotASession,
}

impl RevocationKey {
    /// Every session of a user.
    pub fn user(user: &str) -> Self {
        Self::claim("user", user)
    }

    /// One session.
    pub fn session(id: SessionId) -> Self {
        Self::claim("session", &id.to_string())
    }

    /// Every session opened or refreshed with the token of this `jti`.
    pub fn token(token_id: &str) -> Self {
        Self::claim("token", token_id)
    }

    /// Every session whose claim `kind` is `value`. Values over 200 bytes or outside printable
    /// ASCII are kept as `~` and the base64url SHA-256 of the value. A value written that way
    /// already names the same key, so a listed key can be lifted by what the list shows.
    pub fn claim(kind: &str, value: &str) -> Self {
        let plain =
            value.len() <= MAX_VALUE_BYTES && value.bytes().all(|b| (0x20..0x7f).contains(&b));
        let value = if plain {
            value.into()
        } else {
            format!("~{}", URL_SAFE_NO_PAD.encode(Sha256::digest(value))).into()
        };
        Self::One {
            kind: kind.into(),
            value,
        }
    }

    /// Checks a kind and a value from outside, such as the admin API. For `all` the value is
    /// ignored.
    pub fn parse(
        kind: &str,
        value: &str,
        revocable_claims: &[String],
    ) -> Result<Self, RevocationKeyError> {
        if kind == "all" {
            return Ok(Self::All);
        }
        if !RESERVED_KINDS.contains(&kind) && !revocable_claims.iter().any(|claim| claim == kind) {
            return Err(RevocationKeyError::UnknownKind(
                kind.chars().take(64).collect(),
            ));
        }
        if value.is_empty() {
            return Err(RevocationKeyError::EmptyValue);
        }
        if kind == "session" {
            let id = value.parse().map_err(|_| RevocationKeyError::NotASession)?;
            return Ok(Self::session(id));
        }
        Ok(Self::claim(kind, value))
    }

    /// The kind: `user`, `session`, `token`, a claim's name, or `all`.
    pub fn kind(&self) -> &str {
        match self {
            Self::All => "all",
            Self::One { kind, .. } => kind,
        }
    }

    /// The value in its written form; empty for `all`.
    pub fn value(&self) -> &str {
        match self {
            Self::All => "",
            Self::One { value, .. } => value,
        }
    }

    /// The key in Redis, for example `curfew:{revoked}:user:alice`. The braces are a Redis Cluster
    /// hash tag and part of the name.
    pub fn redis_key(&self, prefix: &str) -> String {
        format!("{prefix}{{revoked}}:{self}")
    }

    /// Reads what follows the prefix and `{revoked}:` in a key of Redis; `None` when it names
    /// nobody.
    pub fn parse_written(written: &str) -> Option<Self> {
        if written == "all" {
            return Some(Self::All);
        }
        let (kind, value) = written.split_once(':')?;
        let named = !kind.is_empty() && kind != "all" && !value.is_empty();
        named.then(|| Self::One {
            kind: kind.into(),
            value: value.into(),
        })
    }

    /// Whether a claim of this name can be a kind: what ends a kind in a key, or is part of every key's
    /// hash tag, cannot be in it.
    pub fn can_be_kind(claim: &str) -> bool {
        !claim.is_empty() && !claim.contains([':', '{', '}'])
    }

    /// Whether `kind` may be listed in `session.revocable_claims`.
    pub fn is_reserved_kind(kind: &str) -> bool {
        RESERVED_KINDS.contains(&kind) || [ISSUER_USER, ISSUER_TOKEN].contains(&kind)
    }
}

impl fmt::Display for RevocationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::One { kind, value } => write!(f, "{kind}:{value}"),
        }
    }
}

/// Which tokens of those it names a revocation covers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revocation {
    /// Tokens issued at or before this Unix time in seconds are covered, and tokens without `iat`;
    /// `None`: all.
    pub before: Option<u64>,
    /// Why, for the operator; not told to clients.
    pub reason: Option<Box<str>>,
    /// When it ends by itself, in Unix seconds; `None`: not before it is lifted.
    pub expires_at: Option<u64>,
    /// The span it was written in, where that is recorded.
    pub trace: Option<Box<TraceContext>>,
}

impl Revocation {
    /// Whether a token issued at `issued_at` (Unix seconds) is covered.
    pub fn covers(&self, issued_at: Option<u64>) -> bool {
        match (self.before, issued_at) {
            (None, _) | (_, None) => true,
            (Some(before), Some(issued_at)) => issued_at <= before,
        }
    }

    /// Covers every token issued at or before `before`, because the revocations up to then may be
    /// lost.
    pub fn reauth(before: u64) -> Self {
        Self {
            before: Some(before),
            reason: Some(REAUTH.into()),
            ..Self::default()
        }
    }

    /// How sessions end that this revocation of `key` covers.
    pub fn disconnect(&self, key: &RevocationKey) -> Disconnect {
        if *key == RevocationKey::All && self.reason.as_deref() == Some(REAUTH) {
            Disconnect::REAUTH_REQUIRED
        } else {
            Disconnect::REVOKED
        }
    }

    /// This revocation and a later one of the same key: the wider of the two in every respect. For
    /// `before` and `expires_at`, none is the highest.
    pub fn merge(&self, later: Self) -> Self {
        let highest = |a: Option<u64>, b: Option<u64>| Some(a?.max(b?));
        Self {
            before: highest(self.before, later.before),
            reason: later.reason.or_else(|| self.reason.clone()),
            expires_at: highest(self.expires_at, later.expires_at),
            trace: later.trace,
        }
    }

    /// Whether every token that `other` covers is covered, and for as long.
    pub fn covers_as_much_as(&self, other: &Self) -> bool {
        let wider = self.merge(other.clone());
        (wider.before, wider.expires_at) == (self.before, self.expires_at)
    }

    /// Reads the value of a revocation key in Redis. Fails closed: what is not a time and not JSON
    /// with one covers everyone. 10 or 11 digits are seconds, 13 or 14 are milliseconds, rounded up
    /// to the second so that no covered token escapes.
    pub fn parse(value: &[u8]) -> Self {
        if let Some(before) = parse_time(value) {
            return Self {
                before: Some(before),
                ..Self::default()
            };
        }
        #[derive(Deserialize)]
        struct Written {
            before: Option<serde_json::Value>,
            reason: Option<serde_json::Value>,
            trace: Option<serde_json::Value>,
        }
        let Ok(written) = serde_json::from_slice::<Written>(value) else {
            return Self::default();
        };
        Self {
            before: written
                .before
                .and_then(|before| parse_time(before.to_string().as_bytes())),
            reason: written
                .reason
                .and_then(|reason| reason.as_str().map(Into::into)),
            expires_at: None,
            trace: written
                .trace
                .and_then(|trace| TraceContext::parse(trace.as_str()?))
                .filter(TraceContext::is_sampled)
                .map(Box::new),
        }
    }
}

fn parse_time(text: &[u8]) -> Option<u64> {
    if !text.iter().all(u8::is_ascii_digit) {
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
            (r#"{"before":1764000000}"#, cutoff(1_764_000_000)),
            (r#"{"before":"soon"}"#, Revocation::default()),
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
    fn redis_keys_are_plain_or_digests() {
        let long = "x".repeat(201);
        for (value, expect) in [
            ("alice", "curfew:{revoked}:user:alice"),
            ("a b}c", "curfew:{revoked}:user:a b}c"),
            ("~x", "curfew:{revoked}:user:~x"),
            ("zoë", "curfew:{revoked}:user:~"),
            ("a\nb", "curfew:{revoked}:user:~"),
            (long.as_str(), "curfew:{revoked}:user:~"),
        ] {
            let key = RevocationKey::user(value).redis_key("curfew:");
            assert!(key.starts_with(expect), "{value:?} gave {key}");
            assert_eq!(
                key.len(),
                expect.len() + if expect.ends_with('~') { 43 } else { 0 },
                "{key}"
            );
        }
        assert_eq!(
            RevocationKey::All.redis_key("curfew:"),
            "curfew:{revoked}:all"
        );
    }

    #[test]
    fn a_written_key_is_read_back() {
        for key in [
            RevocationKey::All,
            RevocationKey::user("alice"),
            RevocationKey::user("a:b }{ c"),
            RevocationKey::user("zoë"),
            RevocationKey::token("t1"),
            RevocationKey::claim("tenant", "acme"),
        ] {
            let written = key.redis_key("p:");
            let written = written.strip_prefix("p:{revoked}:").unwrap();
            assert_eq!(RevocationKey::parse_written(written), Some(key));
        }
        for nobody in ["", "epoch", "user", "user:", ":alice", "all:x"] {
            assert_eq!(RevocationKey::parse_written(nobody), None, "{nobody:?}");
        }
    }

    #[test]
    fn lost_data_ends_sessions_in_its_own_way() {
        let lost = Revocation::reauth(1_764_000_000);
        assert_eq!(
            lost.disconnect(&RevocationKey::All),
            Disconnect::REAUTH_REQUIRED
        );
        assert_eq!(
            lost.disconnect(&RevocationKey::user("a")),
            Disconnect::REVOKED
        );
        let all = Revocation::default();
        assert_eq!(all.disconnect(&RevocationKey::All), Disconnect::REVOKED);
    }

    #[test]
    fn kinds_from_outside_are_checked() {
        let claims = ["tenant".to_owned()];
        assert_eq!(
            RevocationKey::parse("tenant", "a", &claims),
            Ok(RevocationKey::claim("tenant", "a"))
        );
        assert_eq!(
            RevocationKey::parse("all", "", &claims),
            Ok(RevocationKey::All)
        );
        assert_eq!(
            RevocationKey::parse("device", "a", &claims),
            Err(RevocationKeyError::UnknownKind("device".into()))
        );
        assert_eq!(
            RevocationKey::parse("user", "", &claims),
            Err(RevocationKeyError::EmptyValue)
        );
        assert_eq!(
            RevocationKey::parse("session", "x", &claims),
            Err(RevocationKeyError::NotASession)
        );
    }
}
