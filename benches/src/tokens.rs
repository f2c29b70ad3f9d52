//! Tokens for connections, each of another user.

use std::path::Path;

use anyhow::Context as _;
use curfew_auth::{Algorithm, MintKey, mint};
use curfew_model::{Clock as _, SystemClock};
use serde_json::{Map, Value, json};

/// Lifetime of tokens, longer than any run.
const LIFETIME_SECONDS: u64 = 6 * 3600;

/// Signs tokens with grants to subscribe to every channel and to publish into every channel, so
/// that the gateway needs no rules.
#[derive(Debug)]
pub(crate) struct Mint {
    key: MintKey,
    algorithm: Algorithm,
    now: u64,
}

impl Mint {
    /// Reads a secret in the form of the gateway's `secret_file`, or a private key as PEM.
    pub(crate) fn from_file(path: &Path, algorithm: Algorithm) -> anyhow::Result<Self> {
        let read = || format!("read {}", path.display());
        let content = std::fs::read(path).with_context(read)?;
        let key = MintKey::from_file_content(&content, algorithm).with_context(read)?;
        Ok(Self {
            key,
            algorithm,
            now: SystemClock.unix(),
        })
    }

    /// A token of the user `bench-<number>`.
    pub(crate) fn token(&self, number: usize) -> anyhow::Result<String> {
        let claims: Map<String, Value> = [
            ("sub", json!(format!("bench-{number}"))),
            ("iat", json!(self.now)),
            ("exp", json!(self.now + LIFETIME_SECONDS)),
            ("curfew", json!({"subscribe":["*"],"publish":["*"]})),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect();
        Ok(mint(&claims, None, self.algorithm, &self.key)?)
    }

    /// The tokens of the users from 0 up to, but not including, `count`. They are made before the
    /// measurement begins.
    pub(crate) fn tokens(&self, count: usize) -> anyhow::Result<Vec<String>> {
        (0..count).map(|number| self.token(number)).collect()
    }
}
