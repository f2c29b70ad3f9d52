//! Who is connected: the verified content of a token.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::{RevocationKey, SessionId};

/// Kinds of revocation that can be listed among the revocable claims although they are no claims: a
/// user and a token of one issuer, where there are several, which may have others of the same name.
/// See [`of_issuer`].
pub const ISSUER_USER: &str = "issuer_user";
/// See [`ISSUER_USER`].
pub const ISSUER_TOKEN: &str = "issuer_token";

/// The value of [`ISSUER_USER`] and [`ISSUER_TOKEN`]: the issuer's configured name, and the user or
/// token id.
pub fn of_issuer(issuer: &str, name: &str) -> String {
    // With its length, so that no other pair looks the same.
    format!("{}:{issuer}:{name}", issuer.len())
}

/// A token's claims, as the JSON object that was signed. Kept as text, which is the most compact
/// form and the one Redis stores; parsed when a decision needs them.
#[derive(Clone, PartialEq, Eq)]
pub struct Claims(Box<str>);

impl Claims {
    /// Takes the text of a JSON object. The caller has verified and parsed it.
    pub fn from_json(object: impl Into<Box<str>>) -> Self {
        Self(object.into())
    }

    /// The JSON text.
    pub fn as_json(&self) -> &str {
        &self.0
    }

    /// All claims as a JSON value; an empty object should the text not parse.
    pub fn parse(&self) -> serde_json::Map<String, serde_json::Value> {
        serde_json::from_str(&self.0).unwrap_or_default()
    }

    /// The claims as raw JSON, for embedding in other JSON without parsing.
    pub fn to_raw(&self) -> Option<Box<RawValue>> {
        RawValue::from_string(self.0.to_string()).ok()
    }
}

impl fmt::Debug for Claims {
    /// Claim values never reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Claims({} bytes)", self.0.len())
    }
}

/// The fields of a [`Principal`].
#[derive(Debug, Clone)]
pub struct PrincipalParts {
    /// The subject (`sub`, or the configured claim).
    pub user: Box<str>,
    /// The configured issuer's name (`auth.issuers.name`), not the token's `iss`.
    pub issuer: Arc<str>,
    /// What tells the key that verified it from every other; `None` for a principal of another node.
    pub key_id: Option<Arc<str>>,
    /// `jti`.
    pub token_id: Option<Box<str>>,
    /// `iat`, Unix seconds.
    pub issued_at: Option<u64>,
    /// `exp`, Unix seconds.
    pub expires_at: u64,
    /// How long after `exp` the session may go on (`auth.leeway`).
    pub leeway: Duration,
    /// All claims.
    pub claims: Claims,
}

/// What was authenticated: a verified token's content. Immutable; a refresh makes another.
#[derive(Clone)]
pub struct Principal(PrincipalParts);

impl Principal {
    /// Puts a principal together from verified parts.
    pub fn new(parts: PrincipalParts) -> Self {
        Self(parts)
    }

    /// The user: the token's subject.
    pub fn user(&self) -> &str {
        &self.0.user
    }

    /// The configured issuer's name.
    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// What tells the key that verified it from every other, where it was verified here.
    pub fn key_id(&self) -> Option<&str> {
        self.0.key_id.as_deref()
    }

    /// The token's id (`jti`), when it has one.
    pub fn token_id(&self) -> Option<&str> {
        self.0.token_id.as_deref()
    }

    /// When the token was issued, in Unix seconds, when it says so.
    pub fn issued_at(&self) -> Option<u64> {
        self.0.issued_at
    }

    /// The token's `exp`, in Unix seconds.
    pub fn expires_at(&self) -> u64 {
        self.0.expires_at
    }

    /// The instant (since the Unix epoch) from which nothing is delivered to or accepted from the
    /// session: `exp` plus leeway.
    pub fn ends_at(&self) -> Duration {
        Duration::from_secs(self.0.expires_at).saturating_add(self.0.leeway)
    }

    /// All claims.
    pub fn claims(&self) -> &Claims {
        &self.0.claims
    }

    /// Whether `other` is the same user of the same issuer.
    pub fn same_user(&self, other: &Self) -> bool {
        self.0.user == other.0.user && self.0.issuer == other.0.issuer
    }

    /// Every revocation key that names this principal's session: `all`, user, session, token and
    /// each of the claims named in `revocable_claims` (`session.revocable_claims`). A claim that is
    /// an array gives one key an element; objects and `null` give none. What looks like an email
    /// address and is not in lower case gives one in lower case as well: whoever reports it may write
    /// it otherwise. [`ISSUER_USER`] and [`ISSUER_TOKEN`] may be among the claims. What has the form of
    /// a digest gives one key more.
    pub fn revocation_keys(
        &self,
        session: SessionId,
        revocable_claims: &[String],
    ) -> Vec<RevocationKey> {
        let mut keys = Vec::with_capacity(4);
        keys.push(RevocationKey::All);
        keys.extend(RevocationKey::of_claim("user", self.user()));
        keys.push(RevocationKey::session(session));
        if let Some(token_id) = self.token_id() {
            keys.extend(RevocationKey::of_claim("token", token_id));
        }
        self.add_claims(&mut keys, revocable_claims);
        keys
    }

    /// The keys of [`revocation_keys`](Self::revocation_keys) that are of this one claim.
    pub fn claim_keys(&self, claim: &str) -> Vec<RevocationKey> {
        let mut keys = Vec::new();
        self.add_claims(&mut keys, &[claim.to_owned()]);
        keys
    }

    fn add_claims(&self, keys: &mut Vec<RevocationKey>, revocable_claims: &[String]) {
        if revocable_claims.is_empty() {
            return;
        }
        let claims = self.claims().parse();
        for name in revocable_claims {
            let own = match name.as_str() {
                ISSUER_USER => Some(self.user()),
                ISSUER_TOKEN => self.token_id(),
                _ => None,
            };
            if let Some(own) = own {
                let value = of_issuer(self.issuer(), own);
                keys.push(RevocationKey::claim(name, &value));
                continue;
            }
            match claims.get(name) {
                Some(serde_json::Value::Array(values)) => {
                    for value in values {
                        add_claim(keys, name, value);
                    }
                }
                Some(value) => add_claim(keys, name, value),
                None => {}
            }
        }
    }
}

fn add_claim(keys: &mut Vec<RevocationKey>, name: &str, value: &serde_json::Value) {
    let text = match value {
        serde_json::Value::String(text) => Cow::Borrowed(text.as_str()),
        serde_json::Value::Number(number) => Cow::Owned(number.to_string()),
        serde_json::Value::Bool(flag) => Cow::Owned(flag.to_string()),
        _ => return,
    };
    keys.extend(RevocationKey::of_claim(name, &text));
    if text.contains('@') {
        let lower = text.to_lowercase();
        if lower != text {
            keys.push(RevocationKey::claim(name, &lower));
        }
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Principal")
            .field("issuer", &self.0.issuer)
            .field("expires_at", &self.0.expires_at)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(claims: &str) -> Principal {
        Principal::new(PrincipalParts {
            user: "alice".into(),
            issuer: "main".into(),
            key_id: None,
            token_id: Some("t1".into()),
            issued_at: Some(1),
            expires_at: 2,
            leeway: Duration::from_secs(5),
            claims: Claims::from_json(claims),
        })
    }

    #[test]
    fn keys_name_user_session_token_and_configured_claims() {
        let session = SessionId::new();
        let principal =
            principal(r#"{"tenant":"acme","groups":["a",7,null],"deep":{},"email":"A@b"}"#);
        let names = ["tenant", "groups", "deep", "absent", "email"].map(str::to_owned);
        let keys: Vec<String> = principal
            .revocation_keys(session, &names)
            .iter()
            .map(ToString::to_string)
            .collect();
        let session = format!("session:{session}");
        assert_eq!(
            keys,
            [
                "all",
                "user:alice",
                &session,
                "token:t1",
                "tenant:acme",
                "groups:a",
                "groups:7",
                "email:A@b",
                "email:a@b"
            ]
        );
    }

    #[test]
    fn debug_shows_no_claim_and_no_user() {
        let text = format!("{:?}", principal(r#"{"email":"canary"}"#));
        assert!(
            !text.contains("canary") && !text.contains("alice"),
            "{text}"
        );
    }
}
