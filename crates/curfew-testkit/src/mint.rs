//! Makes valid and invalid tokens.
//!
//! A [`Key`] signs any text as header and claims, so that tests can try duplicate members, wrong
//! types and texts that are not JSON. Every test process makes new asymmetric keys, so no private
//! key is in the repository.

use std::fmt;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::KeyPair;
use serde_json::{Value, json};

use crate::unix_now;

/// The HMAC secret of the tests' default configuration. It has the required 32 bytes.
pub const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A key that signs tokens.
#[derive(Clone)]
pub struct Key {
    algorithm: Algorithm,
    name: &'static str,
    kid: Option<String>,
    private: EncodingKey,
    public: Public,
}

#[derive(Clone)]
enum Public {
    None,
    Raw { pem: String, raw: Vec<u8> },
}

impl Key {
    /// An HMAC key: `HS256`, `HS384` or `HS512`.
    pub fn hmac(algorithm: &'static str, secret: &[u8]) -> Self {
        Self {
            algorithm: algorithm.parse().expect("the algorithm is unknown"),
            name: algorithm,
            kid: None,
            private: EncodingKey::from_secret(secret),
            public: Public::None,
        }
    }

    /// The HMAC key with which the tests' default configuration verifies tokens.
    pub fn default_secret() -> Self {
        Self::hmac("HS256", SECRET.as_bytes())
    }

    /// A new key pair for `RS*`, `PS*`, `ES256`, `ES384` or `EdDSA`.
    pub fn generate(algorithm: &'static str) -> Self {
        let kind = match algorithm {
            "ES256" => &rcgen::PKCS_ECDSA_P256_SHA256,
            "ES384" => &rcgen::PKCS_ECDSA_P384_SHA384,
            "EdDSA" => &rcgen::PKCS_ED25519,
            _ => &rcgen::PKCS_RSA_SHA256,
        };
        let pair = KeyPair::generate_for(kind).expect("no key pair can be generated");
        let pem = pair.serialize_pem();
        let private = match algorithm {
            "ES256" | "ES384" => EncodingKey::from_ec_pem(pem.as_bytes()),
            "EdDSA" => EncodingKey::from_ed_pem(pem.as_bytes()),
            _ => EncodingKey::from_rsa_pem(pem.as_bytes()),
        };
        Self {
            algorithm: algorithm.parse().expect("the algorithm is unknown"),
            name: algorithm,
            kid: None,
            private: private.expect("the generated key cannot be read"),
            public: Public::Raw {
                pem: pair.public_key_pem(),
                raw: pair.public_key_raw().to_vec(),
            },
        }
    }

    /// An RS256 key. The process makes it once, because making an RSA key takes a while.
    pub fn rsa() -> Self {
        static KEY: OnceLock<Key> = OnceLock::new();
        KEY.get_or_init(|| Self::generate("RS256")).clone()
    }

    /// An RS256 key that differs from [`Key::rsa`].
    pub fn other_rsa() -> Self {
        static KEY: OnceLock<Key> = OnceLock::new();
        KEY.get_or_init(|| Self::generate("RS256")).clone()
    }

    /// The same key for another algorithm of its family, such as `PS256` for an RSA key.
    pub fn using(mut self, algorithm: &'static str) -> Self {
        self.algorithm = algorithm.parse().expect("the algorithm is unknown");
        self.name = algorithm;
        self
    }

    /// Sets the key's `kid`, in the header of the key's tokens and in its JWK.
    pub fn with_kid(mut self, kid: &str) -> Self {
        self.kid = Some(kid.to_owned());
        self
    }

    /// The public key in PEM.
    pub fn public_pem(&self) -> &str {
        match &self.public {
            Public::None => panic!("an HMAC key has no public part"),
            Public::Raw { pem, .. } => pem,
        }
    }

    /// The public key as a JWK, with `use`, `alg` and, if it is set, `kid`.
    pub fn jwk(&self) -> Value {
        let Public::Raw { raw, .. } = &self.public else {
            panic!("an HMAC key has no public part");
        };
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match self.name {
            "EdDSA" => json!({"kty":"OKP","crv":"Ed25519","x":encode(raw)}),
            "ES256" | "ES384" => {
                // The bytes are an uncompressed point: 4, x, y.
                let (x, y) = raw[1..].split_at(raw.len() / 2);
                let curve = if self.name == "ES256" {
                    "P-256"
                } else {
                    "P-384"
                };
                json!({"kty":"EC","crv":curve,"x":encode(x),"y":encode(y)})
            }
            _ => {
                let (modulus, exponent) = rsa_numbers(raw);
                json!({"kty":"RSA","n":encode(modulus),"e":encode(exponent)})
            }
        };
        jwk["use"] = "sig".into();
        jwk["alg"] = self.name.into();
        if let Some(kid) = &self.kid {
            jwk["kid"] = kid.as_str().into();
        }
        jwk
    }

    /// The header of this key's tokens, as JSON.
    pub fn header(&self) -> Value {
        let mut header = json!({"alg":self.name,"typ":"JWT"});
        if let Some(kid) = &self.kid {
            header["kid"] = kid.as_str().into();
        }
        header
    }

    /// Signs any text as header and claims.
    pub fn sign(&self, header: &str, claims: &str) -> String {
        self.sign_bytes(header.as_bytes(), claims.as_bytes())
    }

    /// Signs any bytes as header and claims.
    pub fn sign_bytes(&self, header: &[u8], claims: &[u8]) -> String {
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(claims)
        );
        let signature =
            jsonwebtoken::crypto::sign(signed.as_bytes(), &self.private, self.algorithm)
                .expect("the key cannot sign");
        format!("{signed}.{signature}")
    }

    /// A token with these claims.
    pub fn token(&self, claims: &Value) -> String {
        self.sign(&self.header().to_string(), &claims.to_string())
    }

    /// A token with `sub`, `iat` and an `exp` one hour from now.
    pub fn user(&self, user: &str) -> String {
        self.token(&claims(user))
    }

    /// A token with `sub`, `iat`, an `exp` one hour from now, and the members of `more`. A member
    /// of `more` replaces a claim of the same name. A member that is `null` in `more` is left out.
    pub fn user_with(&self, user: &str, more: Value) -> String {
        self.token(&claims_with(user, more))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}, {:?})", self.name, self.kid)
    }
}

/// The claims `sub`, `iat` and an `exp` one hour from now. `iat` is a second ago, so a revocation
/// whose cutoff is the present certainly covers the token.
pub fn claims(user: &str) -> Value {
    let now = unix_now();
    json!({"sub":user,"iat":now - 1,"exp":now + 3600})
}

/// [`claims`] with additional or replaced members. A member that is `null` in `more` is left out.
pub fn claims_with(user: &str, more: Value) -> Value {
    let mut claims = claims(user);
    let Value::Object(more) = more else {
        panic!("the additional claims are not an object");
    };
    for (name, value) in more {
        match value {
            Value::Null => drop(
                claims
                    .as_object_mut()
                    .and_then(|claims| claims.remove(&name)),
            ),
            value => claims[name] = value,
        }
    }
    claims
}

/// A JWK set.
pub fn jwks(keys: &[&Key]) -> String {
    let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
    json!({ "keys": keys }).to_string()
}

/// Encodes a part of a JWT: base64url without padding.
pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The header (0) or the claims (1) of a token, unverified.
pub fn part(token: &str, at: usize) -> Value {
    let part = token
        .split('.')
        .nth(at)
        .expect("the token has too few parts");
    let part = URL_SAFE_NO_PAD
        .decode(part)
        .expect("the token's part is not base64url");
    serde_json::from_slice(&part).expect("the token's part is not JSON")
}

/// Modulus and exponent of an `RSAPublicKey` (RFC 8017 §A.1.1), without leading zeros.
fn rsa_numbers(der: &[u8]) -> (&[u8], &[u8]) {
    fn element(der: &[u8]) -> (&[u8], &[u8]) {
        let (length, head) = match der[1] {
            short @ 0..0x80 => (usize::from(short), 2),
            long => {
                let digits = usize::from(long & 0x7f);
                let length = der[2..2 + digits]
                    .iter()
                    .fold(0, |length, digit| length << 8 | usize::from(*digit));
                (length, 2 + digits)
            }
        };
        (&der[head..head + length], &der[head + length..])
    }
    fn number(bytes: &[u8]) -> &[u8] {
        bytes.strip_prefix(&[0]).unwrap_or(bytes)
    }
    let (sequence, _) = element(der);
    let (modulus, rest) = element(sequence);
    let (exponent, _) = element(rest);
    (number(modulus), number(exponent))
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::jwk::Jwk;
    use jsonwebtoken::{DecodingKey, Validation, decode};

    use super::*;

    #[test]
    fn every_kind_of_key_signs_what_its_public_part_verifies() {
        for (key, algorithm) in [
            (Key::rsa(), Algorithm::RS256),
            (Key::rsa().using("PS384"), Algorithm::PS384),
            (Key::generate("ES256"), Algorithm::ES256),
            (Key::generate("ES384"), Algorithm::ES384),
            (Key::generate("EdDSA"), Algorithm::EdDSA),
        ] {
            let key = key.with_kid("k1");
            let jwk: Jwk = serde_json::from_value(key.jwk()).unwrap();
            let public = DecodingKey::from_jwk(&jwk).unwrap();
            let token = key.user("alice");
            let verified = decode::<Value>(&token, &public, &Validation::new(algorithm)).unwrap();
            assert_eq!(verified.claims["sub"], "alice", "{key:?}");
            assert_eq!(verified.header.kid.as_deref(), Some("k1"));
            assert!(key.public_pem().contains("PUBLIC KEY"));
        }
    }

    #[test]
    fn claims_may_be_any_text() {
        let key = Key::default_secret();
        let token = key.sign(r#"{"alg":"HS256"}"#, r#"{"sub":"a","sub":"b"}"#);
        let parts: Vec<&str> = token.split('.').collect();
        assert_eq!(parts.len(), 3);
        let claims = URL_SAFE_NO_PAD.decode(parts[1]).unwrap();
        assert_eq!(claims, br#"{"sub":"a","sub":"b"}"#);
        let claims = claims_with("alice", json!({"exp":null,"role":"x"}));
        assert!(claims.get("exp").is_none() && claims["role"] == "x");
    }
}
