//! Minting of tokens, for development and tests: `curfew token`, `curfew dev`.
//!
//! In production, the identity provider makes the tokens.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{AlgorithmFamily, EncodingKey};
use serde_json::{Map, Value, json};

use crate::Algorithm;
use crate::keys::{MIN_SECRET_BYTES, PROVIDER, secret_in_file};

/// A signing key. `Debug` does not show it.
#[derive(Clone)]
pub enum MintKey {
    /// A shared secret of at least 32 bytes, for HS256, HS384 and HS512.
    Secret(Vec<u8>),
    /// A shared secret of any length, for a node that accepts secrets of any length.
    AnySecret(Vec<u8>),
    /// A private key as PEM text, PKCS #8 or, for RSA, PKCS #1.
    PrivateKey(String),
}

/// Reason why no token could be made. Contains no part of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// The HMAC secret is under 32 bytes.
    #[error("the secret is shorter than 32 bytes")]
    ShortSecret,
    /// The key does not fit the algorithm.
    #[error(
        "not a private key for {0}: RS*, PS*, ES256, ES384 and EdDSA need a PEM private key of the matching type that begins with \"-----BEGIN PRIVATE KEY-----\" (`openssl pkcs8 -topk8 -nocrypt` converts other forms), HS* need a secret"
    )]
    WrongKey(Algorithm),
}

impl MintKey {
    /// Reads the content of a key file: a secret for HS* (read like `secret_file`), and PEM for
    /// every other algorithm.
    ///
    /// # Errors
    ///
    /// The secret is too short, or the file is not text.
    pub fn from_file_content(content: &[u8], algorithm: Algorithm) -> Result<Self, MintError> {
        if !algorithm.is_hmac() {
            return String::from_utf8(content.to_vec())
                .map(Self::PrivateKey)
                .map_err(|_| MintError::WrongKey(algorithm));
        }
        let secret = secret_in_file(content);
        if secret.len() < MIN_SECRET_BYTES {
            return Err(MintError::ShortSecret);
        }
        Ok(Self::Secret(secret.to_vec()))
    }

    fn encoding_key(&self, algorithm: Algorithm) -> Result<EncodingKey, MintError> {
        match (self, algorithm.library().family()) {
            (Self::Secret(secret), AlgorithmFamily::Hmac) => {
                if secret.len() < MIN_SECRET_BYTES {
                    return Err(MintError::ShortSecret);
                }
                return Ok(EncodingKey::from_secret(secret));
            }
            (Self::AnySecret(secret), AlgorithmFamily::Hmac) => {
                return Ok(EncodingKey::from_secret(secret));
            }
            (Self::PrivateKey(pem), AlgorithmFamily::Rsa) => {
                EncodingKey::from_rsa_pem(pem.as_bytes())
            }
            (Self::PrivateKey(pem), AlgorithmFamily::Ec) => {
                EncodingKey::from_ec_pem(pem.as_bytes())
            }
            (Self::PrivateKey(pem), AlgorithmFamily::Ed) => {
                EncodingKey::from_ed_pem(pem.as_bytes())
            }
            _ => return Err(MintError::WrongKey(algorithm)),
        }
        .map_err(|_| MintError::WrongKey(algorithm))
    }
}

impl fmt::Debug for MintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "Secret([redacted])",
            Self::AnySecret(_) => "AnySecret([redacted])",
            Self::PrivateKey(_) => "PrivateKey([redacted])",
        })
    }
}

/// Signs exactly these claims: nothing is added or checked.
///
/// # Errors
///
/// The key does not fit the algorithm.
pub fn mint(
    claims: &Map<String, Value>,
    kid: Option<&str>,
    algorithm: Algorithm,
    key: &MintKey,
) -> Result<String, MintError> {
    let mut header = json!({"alg": algorithm.as_str(), "typ": "JWT"});
    if let Some(kid) = kid {
        header["kid"] = kid.into();
    }
    let claims = Value::Object(claims.clone()).to_string();
    mint_text(&header.to_string(), claims.as_bytes(), algorithm, key)
}

/// Signs any header and any payload, well-formed or not, for tests of refusals.
///
/// # Errors
///
/// The key does not fit the algorithm.
pub fn mint_text(
    header: &str,
    payload: &[u8],
    algorithm: Algorithm,
    key: &MintKey,
) -> Result<String, MintError> {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let signed = format!("{}.{}", encode(header.as_bytes()), encode(payload));
    let key = key.encoding_key(algorithm)?;
    let signature = (PROVIDER.signer_factory)(&algorithm.library(), &key)
        .ok()
        .and_then(|signer| signer.try_sign(signed.as_bytes()).ok())
        .ok_or(MintError::WrongKey(algorithm))?;
    Ok(format!("{signed}.{}", encode(&signature)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_another_kind_makes_no_token() {
        let secret = MintKey::Secret(vec![7; 32]);
        let short = MintKey::Secret(vec![7; 31]);
        let pem = |text: &str| MintKey::PrivateKey(text.to_owned());
        let rsa = pem(include_str!("../tests/keys/rsa.key.pem"));
        let rsa_public = pem(include_str!("../tests/keys/rsa.pub.pem"));
        let p256 = pem(include_str!("../tests/keys/p256.key.pem"));
        let sec1 = pem(include_str!("../tests/keys/p256-sec1.key.pem"));
        let cases = [
            (Algorithm::RS256, &secret),
            (Algorithm::ES256, &secret),
            (Algorithm::HS256, &rsa),
            (Algorithm::ES256, &rsa),
            (Algorithm::EdDSA, &p256),
            (Algorithm::RS256, &p256),
            (Algorithm::ES384, &p256),
            (Algorithm::ES256, &sec1),
            (Algorithm::RS256, &rsa_public),
            (Algorithm::EdDSA, &pem("no PEM")),
        ];
        for (algorithm, key) in cases {
            let result = mint(&Map::new(), None, algorithm, key);
            assert_eq!(result, Err(MintError::WrongKey(algorithm)), "{key:?}");
        }
        let result = mint(&Map::new(), None, Algorithm::HS256, &short);
        assert_eq!(result, Err(MintError::ShortSecret));
    }

    #[test]
    fn a_key_file_is_read_as_the_configuration_reads_it() {
        let file = b"0123456789abcdef0123456789abcdef\n";
        let key = MintKey::from_file_content(file, Algorithm::HS256).unwrap();
        assert!(matches!(&key, MintKey::Secret(secret) if secret.len() == 32));
        assert_eq!(format!("{key:?}"), "Secret([redacted])");
        let short = MintKey::from_file_content(&file[..31], Algorithm::HS256);
        assert!(matches!(short, Err(MintError::ShortSecret)));
    }
}
