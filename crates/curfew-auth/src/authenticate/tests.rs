//! Acceptance and refusal of tokens, through [`Authenticator::authenticate`].

mod centrifuge;
mod claim_types;
mod form;
mod keys;
mod reload;
mod values;
mod verified;

use std::sync::atomic::{AtomicU64, Ordering};

use curfew_model::{AuthFailure, Secret};
use serde_json::{Map, Value, json};

use super::*;
use crate::mint::mint_text;
use crate::{Algorithm, MintKey, mint};

const NOW: u64 = 1_800_000_000;
const SECRET: &str = "0123456789abcdef0123456789abcdef";
const OTHER_SECRET: &str = "fedcba9876543210fedcba9876543210";
const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// A clock that moves only when a test sets it.
#[derive(Debug)]
struct StoppedClock(AtomicU64);

impl StoppedClock {
    fn at(seconds: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(seconds * 1000)))
    }

    fn set_millis(&self, millis: u64) {
        self.0.store(millis, Ordering::Relaxed);
    }
}

impl Clock for StoppedClock {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

fn test_key(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "keys", name]
        .iter()
        .collect()
}

fn secret_issuer() -> Issuer {
    Issuer {
        name: "main".to_owned(),
        secret: Some(Secret::new(SECRET)),
        ..Issuer::default()
    }
}

fn pem_issuer(file: &str) -> Issuer {
    Issuer {
        name: "main".to_owned(),
        public_key_file: Some(test_key(file)),
        ..Issuer::default()
    }
}

/// Puts another configuration in force if its keys can be loaded.
fn reload(authenticator: &Authenticator, config: &AuthConfig) -> Result<(), LoadError> {
    authenticator.put_in_force(Authenticator::prepare(config)?);
    Ok(())
}

fn config(issuers: impl IntoIterator<Item = Issuer>) -> AuthConfig {
    AuthConfig {
        issuers: issuers.into_iter().collect(),
        ..AuthConfig::default()
    }
}

fn authenticator(config: &AuthConfig) -> Authenticator {
    Authenticator::new(config, StoppedClock::at(NOW)).unwrap()
}

fn hmac_key() -> MintKey {
    MintKey::Secret(SECRET.as_bytes().to_vec())
}

fn private_key(file: &str) -> MintKey {
    MintKey::PrivateKey(std::fs::read_to_string(test_key(file)).unwrap())
}

/// Good claims, changed by the members of `changes`; `null` removes a claim.
fn claims(changes: Value) -> Map<String, Value> {
    let mut claims = Map::new();
    claims.insert("sub".to_owned(), json!("alice"));
    claims.insert("exp".to_owned(), json!(NOW + 3600));
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.remove(name)),
            value => drop(claims.insert(name.clone(), value.clone())),
        }
    }
    claims
}

/// A token with [`claims`] changed by `changes`, signed with [`SECRET`].
fn token(changes: Value) -> String {
    mint(&claims(changes), None, Algorithm::HS256, &hmac_key()).unwrap()
}

/// A token signed with [`SECRET`], from the texts of header and payload.
fn raw_token(header: &str, payload: &str) -> String {
    mint_text(header, payload.as_bytes(), Algorithm::HS256, &hmac_key()).unwrap()
}

/// The reason why an issuer with [`SECRET`] refuses `token`; `None` if the issuer accepts it.
fn refusal(token: &str) -> Option<AuthFailure> {
    refusal_by(&config([secret_issuer()]), token)
}

fn refusal_by(config: &AuthConfig, token: &str) -> Option<AuthFailure> {
    let result = authenticator(config).authenticate(token);
    result.err().map(|error| error.failure())
}
