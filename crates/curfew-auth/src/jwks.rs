//! Public keys from a JSON Web Key Set (RFC 7517).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use curfew_model::json::object_text;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::keys::{Key, names};
use crate::{Algorithm, KeyError};

const MAX_KEYS: usize = 100;

/// The keys read from a key set.
#[derive(Debug)]
pub(crate) struct KeySet {
    /// The usable keys, at least one.
    pub(crate) keys: Vec<Key>,
    /// The skipped keys, each with a reason.
    pub(crate) skipped: Vec<SkippedKey>,
}

/// An unusable key of a set.
#[derive(Debug)]
pub(crate) struct SkippedKey {
    /// The key's index in the set, from 0.
    index: usize,
    kid: Option<String>,
    reason: String,
}

impl fmt::Display for SkippedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {}", self.index)?;
        if let Some(kid) = &self.kid {
            write!(f, " (kid {kid:?})")?;
        }
        write!(f, ": {}", self.reason)
    }
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

/// The members of a key that are used. RFC 7517 §4 demands that unknown members are ignored.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    /// `d` to `oth` are the private members of RSA, EC and OKP keys.
    d: Option<IgnoredAny>,
    p: Option<IgnoredAny>,
    q: Option<IgnoredAny>,
    dp: Option<IgnoredAny>,
    dq: Option<IgnoredAny>,
    qi: Option<IgnoredAny>,
    oth: Option<IgnoredAny>,
    /// The value of a symmetric key.
    k: Option<IgnoredAny>,
}

/// Reads a key set. Skips keys that cannot be used, and fails if no key can be used.
pub(crate) fn key_set(content: &[u8], allowed: Option<&[Algorithm]>) -> Result<KeySet, KeyError> {
    let document: Document<'_> = object_text(content)
        .and_then(|text| serde_json::from_str(text).ok())
        .ok_or(KeyError::NotKeySet)?;
    if document.keys.len() > MAX_KEYS {
        return Err(KeyError::TooManyKeys);
    }
    let mut set = KeySet {
        keys: Vec::new(),
        skipped: Vec::new(),
    };
    for (index, raw) in document.keys.iter().enumerate() {
        let jwk = object_text(raw.get().as_bytes());
        let jwk = jwk.and_then(|text| serde_json::from_str::<Jwk>(text).ok());
        let (kid, key) = match jwk {
            Some(jwk) => (jwk.kid.clone(), jwk.to_key(allowed)),
            None => (None, Err("is not a JSON Web Key".to_owned())),
        };
        let key = key.and_then(
            |key| match set.keys.iter().any(|other| clashes(other, &key)) {
                true => Err("an earlier key has the same kid and algorithm".to_owned()),
                false => Ok(key),
            },
        );
        match key {
            Ok(key) => set.keys.push(key),
            Err(reason) => set.skipped.push(SkippedKey { index, kid, reason }),
        }
    }
    if set.keys.is_empty() {
        let reasons: Vec<String> = set.skipped.iter().map(ToString::to_string).collect();
        return Err(KeyError::NoUsableKey(match reasons.as_slice() {
            [] => "the set is empty".to_owned(),
            reasons => reasons.join("; "),
        }));
    }
    Ok(set)
}

/// Returns true if the keys share a `kid` and an algorithm.
fn clashes(one: &Key, other: &Key) -> bool {
    one.kid().is_some()
        && one.kid() == other.kid()
        && one
            .algorithms()
            .iter()
            .any(|algorithm| other.algorithms().contains(algorithm))
}

impl Jwk {
    fn to_key(&self, allowed: Option<&[Algorithm]>) -> Result<Key, String> {
        if self.kty == "oct" || self.k.is_some() {
            return Err("is a shared secret, which belongs in secret_file".to_owned());
        }
        if self.has_private_member() {
            return Err("has private members: a key set holds public keys only".to_owned());
        }
        if self.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return Err("its use is not sig".to_owned());
        }
        if let Some(operations) = &self.key_ops
            && !operations.iter().any(|operation| operation == "verify")
        {
            return Err("its key_ops lack verify".to_owned());
        }
        let key = self.material().map_err(|error| error.to_string())?;
        let key = match &self.alg {
            None => key,
            Some(alg) => {
                let alg: Algorithm = alg.parse().map_err(|_| "its alg is not supported")?;
                let made_for = names(key.algorithms());
                key.only(Some(&[alg]))
                    .map_err(|_| format!("its alg does not fit the key, which is for {made_for}"))?
            }
        };
        let key = key.only(allowed).map_err(|error| error.to_string())?;
        Ok(key.with_kid(self.kid.as_deref()))
    }

    fn material(&self) -> Result<Key, KeyError> {
        match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => Key::from_rsa(&bytes("n", &self.n)?, &bytes("e", &self.e)?),
            ("EC", Some("P-256")) => self.ec_key(32),
            ("EC", Some("P-384")) => self.ec_key(48),
            ("OKP", Some("Ed25519")) => Key::from_ed25519(&bytes("x", &self.x)?),
            _ => Err(KeyError::Unsupported),
        }
    }

    /// Builds an EC key. Each coordinate must have `size` bytes: RFC 7518 §6.2.1.2 demands leading
    /// zeros.
    fn ec_key(&self, size: usize) -> Result<Key, KeyError> {
        let (x, y) = (bytes("x", &self.x)?, bytes("y", &self.y)?);
        if x.len() != size || y.len() != size {
            return Err(KeyError::Unsupported);
        }
        Key::from_ec_point(&[&[4], x.as_slice(), y.as_slice()].concat())
    }

    fn has_private_member(&self) -> bool {
        [
            &self.d, &self.p, &self.q, &self.dp, &self.dq, &self.qi, &self.oth,
        ]
        .iter()
        .any(|member| member.is_some())
    }
}

fn bytes(name: &'static str, member: &Option<String>) -> Result<Vec<u8>, KeyError> {
    let text = member.as_ref().ok_or(KeyError::NoMember(name))?;
    let foreign = |byte: &u8| !byte.is_ascii_alphanumeric() && !b"-_".contains(byte);
    match text.bytes().find(foreign) {
        Some(b'=') => Err(KeyError::Padded(name)),
        Some(b'+' | b'/') => Err(KeyError::OtherAlphabet(name)),
        Some(_) => Err(KeyError::NotBase64(name)),
        None => URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| KeyError::NotBase64(name)),
    }
}

#[cfg(test)]
pub(crate) mod tests;
