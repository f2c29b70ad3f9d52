//! Revocation keys: the sessions that a revocation names, and the spellings of a key in Redis.
//!
//! A value is written plainly, byte for byte, or as its digest: `~` and the value's SHA-256 in
//! base64url. A session's id may also be written in upper case. All spellings of a value give the
//! same key, because keys are compared by their kind and the digest of their value. The key also
//! stores the plain value if the plain value is known.
//!
//! In a written key, a value that has the form of a digest is read as a digest. If a claim's value
//! has this form, the claim has two keys: one with the digest that the text denotes, and one with
//! the digest of the text itself.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use crate::SessionId;
use crate::principal::{ISSUER_TOKEN, ISSUER_USER};

/// Longest value that Curfew itself writes plainly, in bytes. A longer value is written as its
/// digest.
const MAX_PLAIN_BYTES: usize = 200;

/// First character of a digest.
const DIGEST_MARK: char = '~';

/// Length of SHA-256's 32 bytes in base64url, in characters.
const DIGEST_CHARS: usize = 43;

/// The built-in kinds. They are not names of claims.
const RESERVED_KINDS: [&str; 5] = ["user", "session", "token", "anonymous", "all"];

/// The sessions that a revocation names. Two keys are equal if they name the same sessions, however
/// they are written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RevocationKey {
    /// Every session.
    All,
    /// Every session without a user.
    Anonymous,
    /// The sessions that have `value` for `kind`. The kind is `user`, `session`, `token` or a name
    /// listed in `session.revocable_claims`.
    One {
        /// The kind.
        kind: Box<str>,
        /// The value.
        value: Value,
    },
}

/// The value of a key, read from any spelling.
#[derive(Debug, Clone)]
pub struct Value {
    /// SHA-256 of the value.
    digest: [u8; 32],
    /// The plain value. `None` if only the digest is known, or if the value cannot be written
    /// plainly, because it is empty or has the form of a digest.
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

/// A spelling of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Spelling {
    /// The plain value; a session's id in lower case.
    Plain,
    /// A session's id in upper case.
    Upper,
    /// The value's digest.
    Digest,
}

/// The reason why a kind and a value make no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevocationKeyError {
    /// The kind is neither built in nor in `session.revocable_claims`.
    #[error(
        "unknown kind {0:?}: use user, session, token, anonymous, all or a claim listed in session.revocable_claims"
    )]
    UnknownKind(String),
    /// The value is empty, so it names no session.
    #[error("the value must not be empty")]
    EmptyValue,
    /// The value is not a session id.
    #[error("the value is not a session id")]
    NotASession,
}

/// The reason why a key matches no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ineffective {
    /// The kind is neither built in nor in `session.revocable_claims`.
    UnknownKind,
    /// The kind is `all`, and there is a value.
    AllWithValue,
    /// The kind is `anonymous`, and there is a value.
    AnonymousWithValue,
    /// The value is empty.
    EmptyValue,
    /// The value begins with `~` and looks like a digest, but is not one. It is still matched as a
    /// plain value.
    WrongDigest,
    /// A session's id is partly in upper and partly in lower case.
    MixedCase,
    /// The value is not a session id.
    NotASession,
    /// The key is not UTF-8, so it equals no claim.
    NotUtf8,
    /// `{revoked}` is written without its braces.
    MissingBraces,
}

impl Ineffective {
    /// The reason's name in the admin API and the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownKind => "unknown_kind",
            Self::AllWithValue => "all_with_value",
            Self::AnonymousWithValue => "anonymous_with_value",
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
    /// Creates the value whose plain text is `text`.
    fn of(text: &str) -> Self {
        let plain = !text.is_empty() && parse_digest(text).is_none();
        Self {
            digest: Sha256::digest(text).into(),
            plain: plain.then(|| text.into()),
        }
    }

    /// Reads a value that is written plainly or as a digest.
    fn written(text: &str) -> Self {
        match parse_digest(text) {
            Some(digest) => Self {
                digest,
                plain: None,
            },
            None => Self::of(text),
        }
    }

    /// The written form of the digest.
    fn digest(&self) -> String {
        format!("{DIGEST_MARK}{}", URL_SAFE_NO_PAD.encode(self.digest))
    }
}

/// Decodes a digest from its written form.
fn parse_digest(text: &str) -> Option<[u8; 32]> {
    let digits = text.strip_prefix(DIGEST_MARK)?;
    if digits.len() != DIGEST_CHARS {
        return None;
    }
    URL_SAFE_NO_PAD.decode(digits).ok()?.try_into().ok()
}

/// True if `text` is `~` followed only by characters of base64. If such a text is not a digest, it
/// is probably a miswritten one.
fn looks_like_a_digest(text: &str) -> bool {
    let base64 = |c: char| c.is_ascii_alphanumeric() || "+/-_=".contains(c);
    text.strip_prefix(DIGEST_MARK)
        .is_some_and(|digits| digits.chars().all(base64))
}

impl RevocationKey {
    /// The key of every session of a user.
    pub fn user(user: &str) -> Self {
        Self::claim("user", user)
    }

    /// The key of one session.
    pub fn session(id: SessionId) -> Self {
        Self::claim("session", &id.to_string())
    }

    /// The key of every session opened or refreshed with the token of this `jti`.
    pub fn token(token_id: &str) -> Self {
        Self::claim("token", token_id)
    }

    /// The key of every session whose claim `kind` is `value`.
    pub fn claim(kind: &str, value: &str) -> Self {
        Self::One {
            kind: kind.into(),
            value: Value::of(value),
        }
    }

    /// The keys that name a session whose claim `kind` is `value`. There are two if the value has
    /// the form of a digest, because such a value in a written key is read as a digest.
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

    /// Checks a kind and a value that come from outside, for example from the admin API. The value
    /// may have any spelling. It is ignored for `all` and `anonymous`.
    pub fn parse(
        kind: &str,
        value: &str,
        revocable_claims: &[String],
    ) -> Result<Self, RevocationKeyError> {
        match kind {
            "all" => return Ok(Self::All),
            "anonymous" => return Ok(Self::Anonymous),
            _ => {}
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

    /// Parses the part of a Redis key after the prefix and `{revoked}:`.
    ///
    /// # Errors
    ///
    /// If the key can match no session under any settings.
    pub fn parse_written(written: &[u8]) -> Result<(Self, Spelling), Ineffective> {
        match written {
            b"all" => return Ok((Self::All, Spelling::Plain)),
            b"anonymous" => return Ok((Self::Anonymous, Spelling::Plain)),
            _ => {}
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
            "anonymous" => return Err(Ineffective::AnonymousWithValue),
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
            // Only a session's id has the spelling in upper case.
            return parsed(Value::of(value), Spelling::Plain);
        }
        let id: SessionId = value.parse().map_err(|_| Ineffective::NotASession)?;
        let lower = id.to_string();
        let spelling = if value == lower {
            Spelling::Plain
        } else if value == lower.to_ascii_uppercase() {
            Spelling::Upper
        } else {
            // Nodes look up an id in lower case and in upper case, but not in mixed case.
            return Err(Ineffective::MixedCase);
        };
        parsed(Value::of(&lower), spelling)
    }

    /// True if `kind` is built in or is listed in `revocable_claims`.
    pub fn is_kind(kind: &str, revocable_claims: &[String]) -> bool {
        RESERVED_KINDS.contains(&kind) || revocable_claims.iter().any(|claim| claim == kind)
    }

    /// The reason why this key in this spelling matches no session; `None` if it can match a
    /// session. `is_kind` must return true for each name listed in `session.revocable_claims`.
    pub fn ineffective(
        &self,
        spelling: Spelling,
        is_kind: impl Fn(&str) -> bool,
    ) -> Option<Ineffective> {
        let Self::One { kind, value } = self else {
            return None;
        };
        if !RESERVED_KINDS.contains(&&**kind) && !is_kind(kind) {
            // No kind has this name at present. A reload may make the claim a kind.
            return Some(Ineffective::UnknownKind);
        }
        let plain = value.plain.as_deref()?;
        (spelling == Spelling::Plain && looks_like_a_digest(plain))
            .then_some(Ineffective::WrongDigest)
    }

    /// True if the key names a session that has `value` for the key's kind. `all` and `anonymous`
    /// have no value, so for them the result is always true.
    pub fn names(&self, value: &str) -> bool {
        let Self::One { value: own, .. } = self else {
            return true;
        };
        match &own.plain {
            Some(plain) if **plain == *value => true,
            // The plain value differs, but `value` may be the written digest of this key's value.
            Some(_) => parse_digest(value) == Some(own.digest),
            None => own.digest == *Sha256::digest(value) || parse_digest(value) == Some(own.digest),
        }
    }

    /// The kind: `user`, `session`, `token`, the name of a claim, `anonymous` or `all`.
    pub fn kind(&self) -> &str {
        match self {
            Self::All => "all",
            Self::Anonymous => "anonymous",
            Self::One { kind, .. } => kind,
        }
    }

    /// The plain value; `None` for a kind without a value, and if only the digest is known.
    pub fn plain_value(&self) -> Option<&str> {
        match self {
            Self::All | Self::Anonymous => None,
            Self::One { value, .. } => value.plain.as_deref(),
        }
    }

    /// The value in Curfew's own spelling. It is a digest if the plain value is not known, has more
    /// than 200 bytes, begins with `~` or is not printable ASCII. It is empty for a kind without a
    /// value.
    pub fn value(&self) -> Cow<'_, str> {
        match self {
            Self::All | Self::Anonymous => Cow::Borrowed(""),
            Self::One { value, .. } => match value.plain.as_deref() {
                Some(plain) if is_plain(plain) => Cow::Borrowed(plain),
                _ => Cow::Owned(value.digest()),
            },
        }
    }

    /// The spelling of [`RevocationKey::value`].
    pub fn own_spelling(&self) -> Spelling {
        match self {
            Self::One { value, .. } if !value.plain.as_deref().is_some_and(is_plain) => {
                Spelling::Digest
            }
            _ => Spelling::Plain,
        }
    }

    /// The spellings in which this key can be written. A key made from a digest has no plain
    /// spelling.
    pub fn spellings(&self) -> impl Iterator<Item = Spelling> {
        let (plain, upper, digest) = match self {
            Self::All | Self::Anonymous => (true, false, false),
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

    /// The part of the Redis key after the prefix and `{revoked}:` in this spelling, which must be
    /// one of [`spellings`](RevocationKey::spellings).
    pub fn written(&self, spelling: Spelling) -> String {
        let Self::One { kind, value } = self else {
            return self.kind().to_owned();
        };
        match (spelling, value.plain.as_deref()) {
            (Spelling::Plain, Some(plain)) => format!("{kind}:{plain}"),
            (Spelling::Upper, Some(plain)) => format!("{kind}:{}", plain.to_ascii_uppercase()),
            _ => format!("{kind}:{}", value.digest()),
        }
    }

    /// The Redis key in Curfew's own spelling, for example `curfew:{revoked}:user:alice`. The
    /// braces are a Redis Cluster hash tag and part of the name.
    pub fn redis_key(&self, prefix: &str) -> String {
        format!("{prefix}{{revoked}}:{self}")
    }

    /// True if a claim of this name can be a kind. A `:` in the name would end the kind too early
    /// in a written key, and braces would change the hash tag.
    pub fn can_be_kind(claim: &str) -> bool {
        !claim.is_empty() && !claim.contains([':', '{', '}'])
    }

    /// True if `kind` is reserved, so that it is never the name of a claim.
    pub fn is_reserved_kind(kind: &str) -> bool {
        RESERVED_KINDS.contains(&kind) || [ISSUER_USER, ISSUER_TOKEN].contains(&kind)
    }
}

/// True if Curfew itself writes the value plainly.
fn is_plain(value: &str) -> bool {
    value.len() <= MAX_PLAIN_BYTES
        && !value.starts_with(DIGEST_MARK)
        && value.bytes().all(|b| (0x20..0x7f).contains(&b))
}

impl fmt::Display for RevocationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All | Self::Anonymous => f.write_str(self.kind()),
            Self::One { kind, .. } => write!(f, "{kind}:{}", self.value()),
        }
    }
}

#[cfg(test)]
mod tests;
