//! Keys: material that was checked, and the algorithms it may be used with.

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

/// The shortest HMAC secret: the size of SHA-256's output (RFC 7518 §3.2).
pub(crate) const MIN_SECRET_BYTES: usize = 32;

/// The largest key file read.
const MAX_FILE_BYTES: u64 = 256 * 1024;

/// Modulus sizes that are safe (from) and still cheap to verify with (to), in bits.
pub(crate) const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The provider is named instead of looked up: the process-wide default panics as soon as another
/// crate turns on a second one.
pub(crate) static PROVIDER: &CryptoProvider = &DEFAULT_PROVIDER;

/// Why a key cannot be used. Holds nothing of the key.
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
    /// More than one PEM block.
    #[error("holds more than one PEM block: keep one public key, or use jwks_file for several")]
    SeveralPemBlocks,
    /// A private key where a public key belongs.
    #[error(
        "holds a private key, which does not belong on this machine: give the public half, as `openssl pkey -in FILE -pubout` prints it"
    )]
    PrivateKey,
    /// A certificate where a public key belongs.
    #[error(
        "holds a certificate: give its public key, as `openssl x509 -in FILE -noout -pubkey` prints it"
    )]
    Certificate,
    /// The key is of a kind that is not supported, or it is damaged.
    #[error("not a usable key: RSA of 2048 to 8192 bits, P-256, P-384 and Ed25519 are supported")]
    Unsupported,
    /// A JWK lacks what its kind must have.
    #[error("has no {0}")]
    NoMember(&'static str),
    /// A JWK's number is base64 with padding.
    #[error("its {0} is padded: JWKs have base64url without `=` (RFC 7515 §2), leave it out")]
    Padded(&'static str),
    /// A JWK's number is base64 of another alphabet.
    #[error("its {0} is base64: JWKs have base64url, with `-` for `+` and `_` for `/`")]
    OtherAlphabet(&'static str),
    /// A JWK's number is no base64url at all.
    #[error("its {0} is not base64url")]
    NotBase64(&'static str),
    /// RSA outside of 2048 to 8192 bits.
    #[error("the RSA key has {0} bits: 2048 to 8192 are supported")]
    RsaSize(usize),
    /// None of `algorithms` can be used with the key.
    #[error("none of the issuer's algorithms can be used with this key, which is made for {0}")]
    NoAlgorithm(String),
    /// Not a JSON Web Key Set.
    #[error("is not a JSON Web Key Set: an object with the member \"keys\", an array")]
    NotKeySet,
    /// More keys than a set may have.
    #[error("the key set has more than 100 keys")]
    TooManyKeys,
    /// No key of the set can be used.
    #[error("no key of the set can be used: {0}")]
    NoUsableKey(String),
    /// The issuer has no `issuer`, so its tokens are told by `kid`, and a key has none.
    #[error(
        "a key of the set has no kid: beside other issuers, one without `issuer` needs a kid on every key"
    )]
    KidRequired,
    /// Two issuers without `issuer` share a `kid`.
    #[error("a kid is also one of the issuer {0:?}: set `issuer` on one of the two")]
    KidShared(String),
    /// The configuration names no key source this version can load.
    #[error(
        "has no key that can be loaded: give secret, secret_file, public_key_file, jwks_file, jwks_url or discovery"
    )]
    NoSource,
}

/// A verification key with the algorithms it may be used with. Which algorithms those are follows
/// from the material's kind, so that an RSA key can never be taken for an HMAC secret.
#[derive(Clone)]
pub(crate) struct Key {
    kid: Option<Arc<str>>,
    /// Tells it from every other key: a `kid` can be given to another, and some keys have none.
    fingerprint: Arc<str>,
    algorithms: Vec<Algorithm>,
    material: DecodingKey,
}

impl Key {
    /// A shared secret.
    pub(crate) fn from_secret(secret: &[u8]) -> Result<Self, KeyError> {
        if secret.len() < MIN_SECRET_BYTES {
            return Err(KeyError::ShortSecret);
        }
        Ok(Self {
            kid: None,
            fingerprint: fingerprint(secret),
            algorithms: Algorithm::HMAC.to_vec(),
            material: DecodingKey::from_secret(secret),
        })
    }

    /// An RSA public key by its modulus and exponent, big-endian.
    pub(crate) fn from_rsa(n: &[u8], e: &[u8]) -> Result<Self, KeyError> {
        let (n, e) = (strip_zeros(n), strip_zeros(e));
        let bits = n.len() * 8 - n.first().map_or(0, |byte| byte.leading_zeros() as usize);
        if !RSA_BITS.contains(&bits) {
            return Err(KeyError::RsaSize(bits));
        }
        let odd = |number: &[u8]| number.last().is_some_and(|byte| byte % 2 == 1);
        // An exponent of 1 makes every signature good; over 32 bits only slows us down.
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

    /// An elliptic-curve public key by its uncompressed point. The curve is the one the point is on.
    pub(crate) fn from_ec_point(point: &[u8]) -> Result<Self, KeyError> {
        let (curve, algorithm) = match point.len() {
            65 => (&ECDSA_P256_SHA256_FIXED, Algorithm::ES256),
            97 => (&ECDSA_P384_SHA384_FIXED, Algorithm::ES384),
            _ => return Err(KeyError::Unsupported),
        };
        // The JWT library takes any bytes and fails when it verifies; this one knows the curve.
        ParsedPublicKey::new(curve, point).map_err(|_| KeyError::Unsupported)?;
        Ok(Self {
            kid: None,
            fingerprint: fingerprint(point),
            algorithms: vec![algorithm],
            material: DecodingKey::from_ec_der(point),
        })
    }

    /// An Ed25519 public key by its 32 bytes.
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

    /// The same key under a name.
    pub(crate) fn with_kid(mut self, kid: Option<&str>) -> Self {
        self.kid = kid.map(Arc::from);
        self
    }

    /// The same key with those of its algorithms that are in `allowed`; `None` allows all.
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

    /// What tells it from every other key.
    pub(crate) fn fingerprint(&self) -> &Arc<str> {
        &self.fingerprint
    }

    pub(crate) fn algorithms(&self) -> &[Algorithm] {
        &self.algorithms
    }

    /// Whether `signature` is this key's over `signed`. An algorithm that the key is not for never
    /// verifies.
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

/// The algorithms' names, for a message.
pub(crate) fn names(algorithms: &[Algorithm]) -> String {
    let names: Vec<&str> = algorithms.iter().map(|a| a.as_str()).collect();
    names.join(", ")
}

/// Reads a key file whole.
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

/// The secret in a secret file: its content without one line break at the end, which editors and
/// `echo` leave there.
pub(crate) fn secret_in_file(content: &[u8]) -> &[u8] {
    let content = content.strip_suffix(b"\n").unwrap_or(content);
    content.strip_suffix(b"\r").unwrap_or(content)
}

/// The SHA-256 of a key's material. Of a secret nobody can guess it from that: it has 256 bits.
fn fingerprint(material: &[u8]) -> Arc<str> {
    let digest = digest::digest(&digest::SHA256, material);
    URL_SAFE_NO_PAD.encode(digest).into()
}

fn strip_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}
