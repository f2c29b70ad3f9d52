//! Keys: checked key material, and the algorithms that may use it.

use std::fmt;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::CryptoProvider;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;

use crate::Algorithm;

/// Minimum size of an HMAC secret, which is the size of SHA-256's output (RFC 7518 §3.2).
pub(crate) const MIN_SECRET_BYTES: usize = 32;

/// Maximum size of a key file.
const MAX_FILE_BYTES: u64 = 256 * 1024;

/// Accepted sizes of an RSA modulus, in bits. A smaller modulus is unsafe. A larger modulus makes
/// verification too expensive.
pub(crate) const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The JWT library's provider of cryptography. It is fixed here, because a look-up of the
/// process-wide default would panic if another crate enabled a second provider.
pub(crate) static PROVIDER: &CryptoProvider = &DEFAULT_PROVIDER;

/// Reason why a key cannot be used. Contains no part of the key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    /// The file is over 256 KiB.
    #[error("is larger than 256 KiB, which no key file is")]
    TooLarge,
    /// The HMAC secret is under 32 bytes.
    #[error(
        "the secret is shorter than 32 bytes: make one with `openssl rand -base64 48` (a line break at the end of a file does not count)"
    )]
    ShortSecret,
    /// There is no PEM block.
    #[error("holds no PEM public key: the file should begin with \"-----BEGIN PUBLIC KEY-----\"")]
    NotPem,
    /// There is more than one PEM block.
    #[error("holds more than one PEM block: keep one public key, or use jwks_file for several")]
    SeveralPemBlocks,
    /// The file has a private key instead of a public key.
    #[error(
        "holds a private key, which does not belong on this machine: give the public half, as `openssl pkey -in FILE -pubout` prints it"
    )]
    PrivateKey,
    /// The file has a certificate instead of a public key.
    #[error(
        "holds a certificate: give its public key, as `openssl x509 -in FILE -noout -pubkey` prints it"
    )]
    Certificate,
    /// The key is of a kind that is not supported, or it is damaged.
    #[error("not a usable key: RSA of 2048 to 8192 bits, P-256, P-384 and Ed25519 are supported")]
    Unsupported,
    /// A JWK lacks a member that its type requires.
    #[error("has no {0}")]
    NoMember(&'static str),
    /// A JWK's number is padded base64url.
    #[error(
        "its {0} is padded: remove the `=`, because JWKs have base64url without padding (RFC 7515 §2)"
    )]
    Padded(&'static str),
    /// A JWK's number is base64 instead of base64url.
    #[error("its {0} is base64: JWKs have base64url, with `-` for `+` and `_` for `/`")]
    OtherAlphabet(&'static str),
    /// A JWK's number is not base64url.
    #[error("its {0} is not base64url")]
    NotBase64(&'static str),
    /// The RSA modulus has fewer than 2048 or more than 8192 bits.
    #[error("the RSA key has {0} bits: 2048 to 8192 are supported")]
    RsaSize(usize),
    /// None of the issuer's `algorithms` can be used with the key.
    #[error("none of the issuer's algorithms can be used with this key, which is made for {0}")]
    NoAlgorithm(String),
    /// The content is not a JSON Web Key Set.
    #[error("is not a JSON Web Key Set: an object with the member \"keys\", an array")]
    NotKeySet,
    /// The set has more than 100 keys.
    #[error("the key set has more than 100 keys")]
    TooManyKeys,
    /// No key of the set can be used.
    #[error("no key of the set can be used: {0}")]
    NoUsableKey(String),
    /// A key of an issuer without `issuer` has no `kid`, although `kid` must identify the issuer's
    /// tokens.
    #[error(
        "a key of the set has no kid: if there are several issuers, an issuer without `issuer` needs a kid on every key"
    )]
    KidRequired,
    /// Two issuers without `issuer` share a `kid`.
    #[error("a kid is also a kid of the issuer {0:?}: set `issuer` for one of the two issuers")]
    KidShared(String),
    /// The configuration names no key source.
    #[error(
        "has no key that can be loaded: give secret, secret_file, public_key_file, jwks_file, jwks_url or discovery"
    )]
    NoSource,
}

/// A verification key with its permitted algorithms. The algorithms follow from the type of the key
/// material, so an RSA key can never serve as an HMAC secret.
#[derive(Clone)]
pub(crate) struct Key {
    kid: Option<Arc<str>>,
    /// Identifies the key. A `kid` does not identify the key, because an issuer can reuse a `kid`,
    /// and some keys have none.
    fingerprint: Arc<str>,
    algorithms: Vec<Algorithm>,
    material: DecodingKey,
}

impl Key {
    /// A shared secret of at least `least_bytes` bytes.
    pub(crate) fn from_secret(secret: &[u8], least_bytes: usize) -> Result<Self, KeyError> {
        if secret.len() < least_bytes {
            return Err(KeyError::ShortSecret);
        }
        Ok(Self {
            kid: None,
            fingerprint: fingerprint(secret),
            algorithms: Algorithm::HMAC.to_vec(),
            material: DecodingKey::from_secret(secret),
        })
    }

    /// An RSA public key from its modulus and exponent, big-endian.
    pub(crate) fn from_rsa(n: &[u8], e: &[u8]) -> Result<Self, KeyError> {
        let (n, e) = (strip_zeros(n), strip_zeros(e));
        let bits = n.len() * 8 - n.first().map_or(0, |byte| byte.leading_zeros() as usize);
        if !RSA_BITS.contains(&bits) {
            return Err(KeyError::RsaSize(bits));
        }
        let odd = |number: &[u8]| number.last().is_some_and(|byte| byte % 2 == 1);
        // With an exponent of 1, signatures can be made without the private key. An exponent over
        // 32 bits only makes verification slower.
        if !odd(n) || !odd(e) || e == [1] || e.len() > 4 {
            return Err(KeyError::Unsupported);
        }
        Ok(Self {
            kid: None,
            fingerprint: fingerprint(&[n, e].concat()),
            algorithms: Algorithm::RSA.to_vec(),
            material: DecodingKey::from_rsa_raw_components(n, e),
        })
    }

    /// An EC public key from its uncompressed point, whose length determines the curve.
    pub(crate) fn from_ec_point(point: &[u8]) -> Result<Self, KeyError> {
        let (curve, algorithm) = match point.len() {
            65 => (&ECDSA_P256_SHA256_FIXED, Algorithm::ES256),
            97 => (&ECDSA_P384_SHA384_FIXED, Algorithm::ES384),
            _ => return Err(KeyError::Unsupported),
        };
        // The JWT library accepts any bytes and fails only when it verifies, so the point is
        // checked here.
        ParsedPublicKey::new(curve, point).map_err(|_| KeyError::Unsupported)?;
        Ok(Self {
            kid: None,
            fingerprint: fingerprint(point),
            algorithms: vec![algorithm],
            material: DecodingKey::from_ec_der(point),
        })
    }

    /// An Ed25519 public key from its 32 bytes.
    pub(crate) fn from_ed25519(bytes: &[u8]) -> Result<Self, KeyError> {
        if bytes.len() != 32 {
            return Err(KeyError::Unsupported);
        }
        Ok(Self {
            kid: None,
            fingerprint: fingerprint(bytes),
            algorithms: vec![Algorithm::EdDSA],
            material: DecodingKey::from_ed_der(bytes),
        })
    }

    /// Sets the key's `kid`.
    pub(crate) fn with_kid(mut self, kid: Option<&str>) -> Self {
        self.kid = kid.map(Arc::from);
        self
    }

    /// Restricts the key to the algorithms in `allowed`; `None` allows all.
    pub(crate) fn only(mut self, allowed: Option<&[Algorithm]>) -> Result<Self, KeyError> {
        let Some(allowed) = allowed else {
            return Ok(self);
        };
        let made_for = names(&self.algorithms);
        self.algorithms
            .retain(|algorithm| allowed.contains(algorithm));
        if self.algorithms.is_empty() {
            return Err(KeyError::NoAlgorithm(made_for));
        }
        Ok(self)
    }

    pub(crate) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The SHA-256 of the key's material, which identifies the key among all keys.
    pub(crate) fn fingerprint(&self) -> &Arc<str> {
        &self.fingerprint
    }

    pub(crate) fn algorithms(&self) -> &[Algorithm] {
        &self.algorithms
    }

    /// Returns true if `signature` over `signed` was made with this key's secret or private key.
    /// Returns false for an algorithm that the key may not use.
    pub(crate) fn verify(&self, algorithm: Algorithm, signed: &[u8], signature: Vec<u8>) -> bool {
        self.algorithms.contains(&algorithm)
            && (PROVIDER.verifier_factory)(&algorithm.library(), &self.material)
                .is_ok_and(|verifier| verifier.verify(signed, &signature).is_ok())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("kid", &self.kid)
            .field("algorithms", &self.algorithms)
            .finish_non_exhaustive()
    }
}

/// The algorithms' names, joined for a message.
pub(crate) fn names(algorithms: &[Algorithm]) -> String {
    let names: Vec<&str> = algorithms.iter().map(|a| a.as_str()).collect();
    names.join(", ")
}

/// Reads a whole key file.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, KeyError> {
    let mut content = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content))
        .map_err(KeyError::Unreadable)?;
    if content.len() as u64 > MAX_FILE_BYTES {
        return Err(KeyError::TooLarge);
    }
    Ok(content)
}

/// The secret in a secret file: the file's content without one trailing line break, because editors
/// and `echo` add one.
pub(crate) fn secret_in_file(content: &[u8]) -> &[u8] {
    let content = content.strip_suffix(b"\n").unwrap_or(content);
    content.strip_suffix(b"\r").unwrap_or(content)
}

/// The SHA-256 of a key's material. It does not reveal a secret of at least 256 bits.
fn fingerprint(material: &[u8]) -> Arc<str> {
    let digest = digest::digest(&digest::SHA256, material);
    URL_SAFE_NO_PAD.encode(digest).into()
}

fn strip_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}
