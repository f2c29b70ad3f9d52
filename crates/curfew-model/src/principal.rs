//! Principals: the verified content of tokens.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::{RevocationKey, SessionId};

/// A kind of revocation key that names a user of one issuer. Two issuers may have different users
/// of the same name. Settings list this kind among the revocable claims, although it is not a
/// claim. See [`of_issuer`].
pub const ISSUER_USER: &str = "issuer_user";
/// A kind of revocation key that names a token of one issuer. Settings list this kind in the same
/// way as [`ISSUER_USER`].
pub const ISSUER_TOKEN: &str = "issuer_token";

/// The issuer of principals without a token. A configured issuer must not have this name while such
/// principals are allowed.
pub const ANONYMOUS_ISSUER: &str = "anonymous";

/// The value of a key of kind [`ISSUER_USER`] or [`ISSUER_TOKEN`]: the issuer's configured name,
/// with the user or the token id.
pub fn of_issuer(issuer: &str, name: &str) -> String {
    // The length comes first, so that no other pair of issuer and name gives the same value.
    format!("{}:{issuer}:{name}", issuer.len())
}

/// A token's claims: the JSON object that was signed. They are stored as text, because the text is
/// compact and Redis stores the same text. A decision that needs the claims parses the text.
#[derive(Clone, PartialEq, Eq)]
pub struct Claims(Box<str>);

impl Claims {
    /// Wraps the text of a JSON object that the caller has verified and parsed.
    pub fn from_json(object: impl Into<Box<str>>) -> Self {
        Self(object.into())
    }

    /// The JSON text.
    pub fn as_json(&self) -> &str {
        &self.0
    }

    /// Parses all claims. Returns an empty object if the text does not parse.
    pub fn parse(&self) -> serde_json::Map<String, serde_json::Value> {
        serde_json::from_str(&self.0).unwrap_or_default()
    }

    /// The claims as raw JSON, to embed in other JSON without parsing.
    pub fn to_raw(&self) -> Option<Box<RawValue>> {
        RawValue::from_string(self.0.to_string()).ok()
    }
}

impl fmt::Debug for Claims {
    /// Prints the size only: claim values never reach a log.
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
    /// The fingerprint of the key that verified the token; `None` if another node verified it.
    pub key_id: Option<Arc<str>>,
    /// The token's id (`jti`).
    pub token_id: Option<Box<str>>,
    /// `iat`, Unix seconds.
    pub issued_at: Option<u64>,
    /// `exp`, Unix seconds.
    pub expires_at: u64,
    /// The time after `exp` for which the session may continue (`auth.leeway`).
    pub leeway: Duration,
    /// All claims.
    pub claims: Claims,
}

/// The content of a verified token. It is immutable; a refresh creates another principal.
#[derive(Clone)]
pub struct Principal(PrincipalParts);

impl Principal {
    /// Creates a principal from verified parts.
    pub fn new(parts: PrincipalParts) -> Self {
        Self(parts)
    }

    /// Creates the principal of a session without a token: it has no user, no claims and no leeway.
    /// The times are in Unix seconds.
    pub fn anonymous(issued_at: u64, expires_at: u64) -> Self {
        Self(PrincipalParts {
            user: "".into(),
            issuer: ANONYMOUS_ISSUER.into(),
            key_id: None,
            token_id: None,
            issued_at: Some(issued_at),
            expires_at,
            leeway: Duration::ZERO,
            claims: Claims::from_json("{}"),
        })
    }

    /// True if the principal names no user: it has no token, or its token has no subject.
    pub fn is_anonymous(&self) -> bool {
        self.0.user.is_empty()
    }

    /// The user: the token's subject. Empty for an anonymous principal.
    pub fn user(&self) -> &str {
        &self.0.user
    }

    /// The configured name of the issuer.
    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// The fingerprint of the key that verified the token, if this node verified it.
    pub fn key_id(&self) -> Option<&str> {
        self.0.key_id.as_deref()
    }

    /// The token's id (`jti`), if it has one.
    pub fn token_id(&self) -> Option<&str> {
        self.0.token_id.as_deref()
    }

    /// The time when the token was issued (`iat`), in Unix seconds; `None` if the token does not
    /// state it.
    pub fn issued_at(&self) -> Option<u64> {
        self.0.issued_at
    }

    /// The token's `exp`, in Unix seconds.
    pub fn expires_at(&self) -> u64 {
        self.0.expires_at
    }

    /// The end of the session's access, since the Unix epoch: `exp` plus the leeway. From then on
    /// nothing is delivered to the session or accepted from it.
    pub fn ends_at(&self) -> Duration {
        Duration::from_secs(self.0.expires_at).saturating_add(self.0.leeway)
    }

    /// All claims.
    pub fn claims(&self) -> &Claims {
        &self.0.claims
    }

    /// True if `other` is the same user of the same issuer.
    pub fn same_user(&self, other: &Self) -> bool {
        self.0.user == other.0.user && self.0.issuer == other.0.issuer
    }

    /// Every revocation key that names `session`, which must be a session of this principal. The
    /// keys are `all`, the user (`anonymous` without a user), the session, the token if it has an
    /// id, and each claim listed in `revocable_claims`. The setting `session.revocable_claims` is
    /// this list; it may include [`ISSUER_USER`] and [`ISSUER_TOKEN`].
    ///
    /// - A claim that is an array gives one key for each element; an object or `null` gives none.
    /// - A claim that looks like an email address gives a second key in lower case, because a
    ///   revocation may have the address as written or in lower case.
    /// - A value that has the form of a digest gives a second key, because such a value in a
    ///   written key is read as a digest.
    pub fn revocation_keys(
        &self,
        session: SessionId,
        revocable_claims: &[String],
    ) -> Vec<RevocationKey> {
        let mut keys = Vec::with_capacity(4);
        keys.push(RevocationKey::All);
        match self.is_anonymous() {
            true => keys.push(RevocationKey::Anonymous),
            false => keys.extend(RevocationKey::of_claim("user", self.user())),
        }
        keys.push(RevocationKey::session(session));
        if let Some(token_id) = self.token_id() {
            keys.extend(RevocationKey::of_claim("token", token_id));
        }
        self.add_claims(&mut keys, revocable_claims);
        keys
    }

    /// The keys of [`revocation_keys`](Self::revocation_keys) for one claim alone.
    pub fn claim_keys(&self, claim: &str) -> Vec<RevocationKey> {
        let mut keys = Vec::new();
        self.add_claims(&mut keys, &[claim.to_owned()]);
        keys
    }

    /// Adds the keys of the listed claims.
    fn add_claims(&self, keys: &mut Vec<RevocationKey>, revocable_claims: &[String]) {
        if revocable_claims.is_empty() {
            // Without a listed claim, the claims need not be parsed.
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

/// Adds the keys of one value of the claim `name`. An object, `null` and an array within an array
/// give no keys.
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
    fn an_anonymous_session_is_named_as_that_and_by_no_user() {
        let session = SessionId::new();
        let anonymous = Principal::anonymous(7, 9);
        assert!(anonymous.is_anonymous() && !principal("{}").is_anonymous());
        let keys = anonymous.revocation_keys(session, &["tenant".to_owned()]);
        let session = RevocationKey::session(session);
        assert_eq!(
            keys,
            [RevocationKey::All, RevocationKey::Anonymous, session]
        );
        assert_eq!(anonymous.issued_at(), Some(7));
        assert_eq!(anonymous.ends_at(), Duration::from_secs(9));
        assert!(anonymous.claims().parse().is_empty());
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
