//! Whom a revocation names, and the ways in which its key is written.
//!
//! A value is written as it is, byte for byte, or as its digest: `~` and the base64url SHA-256 of
//! it. The id of a session may be written in upper case as well. All of these are one key, since a
//! key is its kind and its value's digest. The value itself goes with it where it is known.
//!
//! A value that has the form of a digest is taken for one. Where it is a claim's own value, that
//! claim is found by both: by what its text says as a digest, and by the digest of its text.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use crate::SessionId;
use crate::principal::{ISSUER_TOKEN, ISSUER_USER};

/// Curfew itself writes longer values, in bytes, as a digest.
const MAX_PLAIN_BYTES: usize = 200;

/// What a digest begins with.
const DIGEST_MARK: char = '~';

/// Characters of base64url for the 32 bytes of SHA-256.
const DIGEST_CHARS: usize = 43;

/// Kinds that are not names of claims.
const RESERVED_KINDS: [&str; 4] = ["user", "session", "token", "all"];

/// Whom a revocation names. Two keys are equal when they name the same, however they are written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RevocationKey {
    /// Everyone.
    All,
    /// Everyone who has `value` for `kind`: `user`, `session`, `token` or the name of a claim.
    One {
        /// The kind.
        kind: Box<str>,
        /// The value.
        value: Value,
    },
}

/// A value, in whichever way it was written.
#[derive(Debug, Clone)]
pub struct Value {
    digest: [u8; 32],
    /// The value itself; `None` where only the digest is known, or where it cannot be written as it
    /// is: when it is empty or has the form of a digest.
    plain: Option<Box<str>>,
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Value {}

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

/// One way to write a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Spelling {
    /// The value as it is; a session's id in lower case.
    Plain,
    /// A session's id in upper case.
    Upper,
    /// The value's digest.
    Digest,
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

/// Why a key can match nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ineffective {
    /// The kind is neither built in nor in `session.revocable_claims`.
    UnknownKind,
    /// `all` with a value.
    AllWithValue,
    /// There is no value.
    EmptyValue,
    /// `~` and what may have been meant for a digest and is none. As a value it is looked for all
    /// the same.
    WrongDigest,
    /// A session's id partly in upper and partly in lower case.
    MixedCase,
    /// Not the id of a session.
    NotASession,
    /// Not UTF-8, as every claim is.
    NotUtf8,
    /// `revoked` without its braces.
    MissingBraces,
}

impl Ineffective {
    /// Its name in the admin API and the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownKind => "unknown_kind",
            Self::AllWithValue => "all_with_value",
            Self::EmptyValue => "empty_value",
            Self::WrongDigest => "wrong_digest",
            Self::MixedCase => "mixed_case",
            Self::NotASession => "not_a_session",
            Self::NotUtf8 => "not_utf8",
            Self::MissingBraces => "missing_braces",
        }
    }
}

impl Value {
    fn of(text: &str) -> Self {
        let plain = !text.is_empty() && parse_digest(text).is_none();
        Self {
            digest: Sha256::digest(text).into(),
            plain: plain.then(|| text.into()),
        }
    }

    /// A value as it is written in a key.
    fn written(text: &str) -> Self {
        match parse_digest(text) {
            Some(digest) => Self {
                digest,
                plain: None,
            },
            None => Self::of(text),
        }
    }

    fn digest(&self) -> String {
        format!("{DIGEST_MARK}{}", URL_SAFE_NO_PAD.encode(self.digest))
    }
}

/// The bytes of a digest in its written form.
fn parse_digest(text: &str) -> Option<[u8; 32]> {
    let digits = text.strip_prefix(DIGEST_MARK)?;
    if digits.len() != DIGEST_CHARS {
        return None;
    }
    URL_SAFE_NO_PAD.decode(digits).ok()?.try_into().ok()
}

/// Whether a value that is no digest may have been meant for one.
fn looks_like_a_digest(text: &str) -> bool {
    let base64 = |c: char| c.is_ascii_alphanumeric() || "+/-_=".contains(c);
    text.strip_prefix(DIGEST_MARK)
        .is_some_and(|digits| digits.chars().all(base64))
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

    /// Every session whose claim `kind` is `value`.
    pub fn claim(kind: &str, value: &str) -> Self {
        Self::One {
            kind: kind.into(),
            value: Value::of(value),
        }
    }

    /// The keys by which a session is found whose claim `kind` is `value`. It is a second one where
    /// the value has the form of a digest: written as it is, it is taken for one.
    pub(crate) fn of_claim(kind: &str, value: &str) -> impl Iterator<Item = Self> {
        let digest = parse_digest(value).map(|digest| Self::One {
            kind: kind.into(),
            value: Value {
                digest,
                plain: None,
            },
        });
        [Some(Self::claim(kind, value)), digest]
            .into_iter()
            .flatten()
    }

    /// Checks a kind and a value from outside, such as the admin API; the value may be written in
    /// any way. For `all` the value is ignored.
    pub fn parse(
        kind: &str,
        value: &str,
        revocable_claims: &[String],
    ) -> Result<Self, RevocationKeyError> {
        if kind == "all" {
            return Ok(Self::All);
        }
        if !Self::is_kind(kind, revocable_claims) {
            return Err(RevocationKeyError::UnknownKind(
                kind.chars().take(64).collect(),
            ));
        }
        if value.is_empty() {
            return Err(RevocationKeyError::EmptyValue);
        }
        if kind == "session" && parse_digest(value).is_none() {
            let id = value.parse().map_err(|_| RevocationKeyError::NotASession)?;
            return Ok(Self::session(id));
        }
        Ok(Self::One {
            kind: kind.into(),
            value: Value::written(value),
        })
    }

    /// Reads what follows the prefix and `{revoked}:` in a key of Redis.
    ///
    /// # Errors
    ///
    /// The key can match nobody, whatever the kinds are.
    pub fn parse_written(written: &[u8]) -> Result<(Self, Spelling), Ineffective> {
        if written == b"all" {
            return Ok((Self::All, Spelling::Plain));
        }
        let colon = written.iter().position(|byte| *byte == b':');
        let (kind, value) = match colon {
            Some(colon) => (&written[..colon], &written[colon + 1..]),
            None => (written, [].as_slice()),
        };
        let text = |bytes| std::str::from_utf8(bytes).map_err(|_| Ineffective::NotUtf8);
        let (kind, value) = (text(kind)?, text(value)?);
        match kind {
            "" => return Err(Ineffective::UnknownKind),
            "all" => return Err(Ineffective::AllWithValue),
            _ if value.is_empty() => return Err(Ineffective::EmptyValue),
            _ => {}
        }
        let parsed = |value, spelling| {
            let kind = kind.into();
            Ok((Self::One { kind, value }, spelling))
        };
        if parse_digest(value).is_some() {
            return parsed(Value::written(value), Spelling::Digest);
        }
        if kind != "session" {
            return parsed(Value::of(value), Spelling::Plain);
        }
        let id: SessionId = value.parse().map_err(|_| Ineffective::NotASession)?;
        let lower = id.to_string();
        let spelling = if value == lower {
            Spelling::Plain
        } else if value == lower.to_ascii_uppercase() {
            Spelling::Upper
        } else {
            return Err(Ineffective::MixedCase);
        };
        parsed(Value::of(&lower), spelling)
    }

    /// Whether there is such a kind while these claims are revocable.
    pub fn is_kind(kind: &str, revocable_claims: &[String]) -> bool {
        RESERVED_KINDS.contains(&kind) || revocable_claims.iter().any(|claim| claim == kind)
    }

    /// Why this key, written in this way, can match nobody while `is_kind` says of the names of
    /// claims which are kinds.
    pub fn ineffective(
        &self,
        spelling: Spelling,
        is_kind: impl Fn(&str) -> bool,
    ) -> Option<Ineffective> {
        let Self::One { kind, value } = self else {
            return None;
        };
        if !RESERVED_KINDS.contains(&&**kind) && !is_kind(kind) {
            return Some(Ineffective::UnknownKind);
        }
        let plain = value.plain.as_deref()?;
        (spelling == Spelling::Plain && looks_like_a_digest(plain))
            .then_some(Ineffective::WrongDigest)
    }

    /// Whether a session that has `value` for this key's kind is named.
    pub fn names(&self, value: &str) -> bool {
        let Self::One { value: own, .. } = self else {
            return true;
        };
        match &own.plain {
            Some(plain) if **plain == *value => true,
            // Other than what is known to be the value; as a digest it may still be this one's.
            Some(_) => parse_digest(value) == Some(own.digest),
            None => own.digest == *Sha256::digest(value) || parse_digest(value) == Some(own.digest),
        }
    }

    /// The kind: `user`, `session`, `token`, a claim's name, or `all`.
    pub fn kind(&self) -> &str {
        match self {
            Self::All => "all",
            Self::One { kind, .. } => kind,
        }
    }

    /// The value itself; `None` for `all`, and where it is known by its digest only.
    pub fn plain_value(&self) -> Option<&str> {
        match self {
            Self::All => None,
            Self::One { value, .. } => value.plain.as_deref(),
        }
    }

    /// The value as Curfew itself writes it: as its digest beyond 200 bytes or printable ASCII, and
    /// where it begins with `~`. Empty for `all`.
    pub fn value(&self) -> Cow<'_, str> {
        match self {
            Self::All => Cow::Borrowed(""),
            Self::One { value, .. } => match value.plain.as_deref() {
                Some(plain) if is_plain(plain) => Cow::Borrowed(plain),
                _ => Cow::Owned(value.digest()),
            },
        }
    }

    /// How [`RevocationKey::value`] is written.
    pub fn own_spelling(&self) -> Spelling {
        match self {
            Self::One { value, .. } if !value.plain.as_deref().is_some_and(is_plain) => {
                Spelling::Digest
            }
            _ => Spelling::Plain,
        }
    }

    /// Every way in which this key can be written that can be told from what is known of its value.
    pub fn spellings(&self) -> impl Iterator<Item = Spelling> {
        let (plain, upper, digest) = match self {
            Self::All => (true, false, false),
            Self::One { kind, value } => {
                let letters = |id: &str| id.bytes().any(|byte| byte.is_ascii_lowercase());
                let plain = value.plain.as_deref();
                let upper = &**kind == "session" && plain.is_some_and(letters);
                (plain.is_some(), upper, true)
            }
        };
        [
            (plain, Spelling::Plain),
            (upper, Spelling::Upper),
            (digest, Spelling::Digest),
        ]
        .into_iter()
        .filter_map(|(there, spelling)| there.then_some(spelling))
    }

    /// What follows the prefix and `{revoked}:` in the key of Redis that is written in this way,
    /// which must be one of [its own](RevocationKey::spellings).
    pub fn written(&self, spelling: Spelling) -> String {
        let Self::One { kind, value } = self else {
            return "all".to_owned();
        };
        match (spelling, value.plain.as_deref()) {
            (Spelling::Plain, Some(plain)) => format!("{kind}:{plain}"),
            (Spelling::Upper, Some(plain)) => format!("{kind}:{}", plain.to_ascii_uppercase()),
            _ => format!("{kind}:{}", value.digest()),
        }
    }

    /// The key in Redis as Curfew itself writes it, for example `curfew:{revoked}:user:alice`. The
    /// braces are a Redis Cluster hash tag and part of the name.
    pub fn redis_key(&self, prefix: &str) -> String {
        format!("{prefix}{{revoked}}:{self}")
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

fn is_plain(value: &str) -> bool {
    value.len() <= MAX_PLAIN_BYTES
        && !value.starts_with(DIGEST_MARK)
        && value.bytes().all(|b| (0x20..0x7f).contains(&b))
}

impl fmt::Display for RevocationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::One { kind, .. } => write!(f, "{kind}:{}", self.value()),
        }
    }
}

#[cfg(test)]
mod tests;
