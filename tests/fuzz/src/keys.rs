//! Key sets of identity providers: the accepted keys, and their algorithms.

mod curve;

use std::sync::{Arc, LazyLock};

use curfew_auth::{Algorithm, AuthConfig, Authenticator, Issuer, KeyError, RemoteKeys};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::members::Members;
use crate::signed::Fixed;

/// Maximum number of keys in a set.
const MOST_KEYS: usize = 100;

/// Accepted size of a modulus, in bits.
const MODULUS_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The names of the algorithms of RSA keys.
const RSA: &[&str] = &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];

static AUTHENTICATOR: LazyLock<(Authenticator, Arc<RemoteKeys>)> = LazyLock::new(|| {
    let config = AuthConfig {
        issuers: vec![Issuer {
            name: "main".to_owned(),
            issuer: Some("https://id.example".to_owned()),
            jwks_url: Some("https://id.example/keys".to_owned()),
            ..Issuer::default()
        }],
        ..AuthConfig::default()
    };
    let authenticator =
        Authenticator::new(&config, Arc::new(Fixed)).expect("the configuration is valid");
    let remote = authenticator.remotes().remove(0);
    (authenticator, remote)
});

/// An accepted key.
#[derive(Debug, PartialEq, Eq)]
struct Taken {
    kid: Option<String>,
    algorithms: Vec<&'static str>,
}

/// Checks that Curfew accepts the same keys as the independent parser in this file, each for the
/// same algorithms. After a set without usable keys, no key may be in force. After an invalid set,
/// the previous keys must stay in force.
///
/// # Panics
///
/// Curfew and the independent parser in this file disagree.
pub fn check(bytes: &[u8]) -> bool {
    let (authenticator, remote) = &*AUTHENTICATOR;
    let in_force = || {
        let keys = authenticator.issuers().remove(0).keys.into_iter();
        let taken = keys.map(|key| Taken {
            kid: key.kid,
            algorithms: key.algorithms.into_iter().map(Algorithm::as_str).collect(),
        });
        taken.collect::<Vec<_>>()
    };
    let before = in_force();
    let installed = authenticator.install(remote, bytes);
    match (opinion(bytes), &installed) {
        (Some(taken), Ok(count)) => {
            assert_eq!(in_force(), taken);
            assert_eq!(*count, taken.len());
            assert!(!taken.is_empty(), "an accepted set has at least one key");
        }
        (Some(taken), Err(KeyError::NoUsableKey(_))) => {
            assert_eq!(taken, [], "no key is accepted, although keys are usable");
            assert_eq!(
                in_force(),
                [],
                "no key is in force after a set without usable keys"
            );
        }
        (None, Err(KeyError::NotKeySet | KeyError::TooManyKeys)) => {
            assert_eq!(in_force(), before, "an invalid set changes no key in force");
        }
        (opinion, installed) => {
            panic!("the result is {installed:?}, but the independent parser returns {opinion:?}")
        }
    }
    installed.is_ok()
}

/// The keys to accept, by RFC 7517, RFC 7518 and RFC 8037; `None` for an invalid set.
fn opinion(bytes: &[u8]) -> Option<Vec<Taken>> {
    let set = Members::of(bytes)?;
    let keys: Vec<Box<RawValue>> = serde_json::from_str(set.raw("keys")??).ok()?;
    if keys.len() > MOST_KEYS {
        return None;
    }
    let mut taken: Vec<Taken> = Vec::new();
    for key in keys {
        let Some(key) = Members::of(key.get().as_bytes()).and_then(|key| read(&key)) else {
            continue;
        };
        let clashes = |other: &Taken| {
            let mut same = other.algorithms.iter();
            key.kid.is_some()
                && key.kid == other.kid
                && same.any(|algorithm| key.algorithms.contains(algorithm))
        };
        if !taken.iter().any(clashes) {
            taken.push(key);
        }
    }
    Some(taken)
}

fn read(key: &Members) -> Option<Taken> {
    let text = |name: &str| match key.value(name)? {
        Value::String(text) => Some(Some(text)),
        Value::Null => Some(None),
        _ => None,
    };
    for name in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
        // A key with a member of a private key or of a shared key is not accepted.
        if key.raw(name)?.is_some_and(|raw| raw != "null") {
            return None;
        }
    }
    let (kty, kid, usage, curve) = (text("kty")??, text("kid")?, text("use")?, text("crv")?);
    let numbers = [text("n")?, text("e")?, text("x")?, text("y")?];
    let numbers = numbers.map(|text| text.as_deref().and_then(base64url));
    let [n, e, x, y] = numbers.each_ref().map(Option::as_deref);
    let for_verifying = match key.value("key_ops")? {
        Value::Null => true,
        Value::Array(all) => {
            all.iter().all(Value::is_string) && all.iter().any(|one| one == "verify")
        }
        _ => false,
    };
    if !for_verifying || usage.is_some_and(|usage| usage != "sig") {
        return None;
    }
    let made_for: &[&'static str] = match (kty.as_str(), curve.as_deref()) {
        ("RSA", _) if is_rsa(n?, e?) => RSA,
        ("EC", Some("P-256")) if curve::P256.has(x?, y?) => &["ES256"],
        ("EC", Some("P-384")) if curve::P384.has(x?, y?) => &["ES384"],
        ("OKP", Some("Ed25519")) if x?.len() == 32 => &["EdDSA"],
        _ => return None,
    };
    let alg = text("alg")?.map(|alg| match alg.as_str() {
        "Ed25519" => "EdDSA".to_owned(),
        _ => alg,
    });
    let is_meant = |name: &&'static str| alg.as_deref().is_none_or(|alg| alg == *name);
    let algorithms: Vec<_> = made_for.iter().copied().filter(is_meant).collect();
    (!algorithms.is_empty()).then_some(Taken { kid, algorithms })
}

/// True for an odd modulus of a safe size with a valid exponent.
fn is_rsa(n: &[u8], e: &[u8]) -> bool {
    let bits = |number: &[u8]| {
        let bits = number
            .iter()
            .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
        bits.skip_while(|bit| *bit == 0).count()
    };
    let is_odd = |number: &[u8]| number.last().is_some_and(|byte| byte & 1 == 1);
    MODULUS_BITS.contains(&bits(n)) && is_odd(n) && is_odd(e) && (2..=32).contains(&bits(e))
}

/// Decodes base64url (RFC 4648 §5) without padding, bit by bit. Leftover bits must be zero.
fn base64url(text: &str) -> Option<Vec<u8>> {
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (mut bytes, mut held, mut bits) = (Vec::new(), 0_u32, 0);
    for digit in text.chars() {
        held = held << 6 | u32::try_from(alphabet.find(digit)?).ok()?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits & 0xff).ok()?);
        }
        held &= (1 << bits) - 1;
    }
    (bits < 6 && held == 0).then_some(bytes)
}
