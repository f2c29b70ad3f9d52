//! `[server]` and `[admin]`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use curfew_model::{Problems, Secret};
use curfew_ws::OriginPolicy;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Shortest admin key, in bytes: 128 bits even if it is written in hexadecimal.
const MIN_ADMIN_KEY_BYTES: usize = 32;

/// Most that `admin.connections` may be.
const MAX_ADMIN_CONNECTIONS: usize = 65_536;

/// `[server]`: the public listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Address and port of the public listener; port 0 takes a free one. Takes effect at start.
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// Origins that browsers may connect from, each as `scheme://host[:port]`, compared exactly.
    /// Empty: any, which is fine as long as tokens do not come in cookies.
    pub allowed_origins: Vec<String>,
    /// Certificate chain in PEM. With `tls_key_file` the listener speaks TLS. Re-read when it
    /// changes.
    pub tls_cert_file: Option<PathBuf>,
    /// Private key in PEM for `tls_cert_file`. Re-read when it changes.
    pub tls_key_file: Option<PathBuf>,
    /// How long a client may take for each of: the TLS handshake, its first byte, and the whole
    /// head of its request.
    #[serde(with = "curfew_model::setting::duration")]
    #[schemars(with = "String")]
    pub handshake_timeout: Duration,
    /// How long a connection may take from being accepted to the end of its upgrade.
    #[serde(with = "curfew_model::setting::duration")]
    #[schemars(with = "String")]
    pub upgrade_timeout: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 8080)),
            allowed_origins: Vec::new(),
            tls_cert_file: None,
            tls_key_file: None,
            handshake_timeout: Duration::from_secs(5),
            upgrade_timeout: Duration::from_secs(10),
        }
    }
}

impl ServerConfig {
    /// Reports values that make no sense, and TLS files that cannot be used.
    pub fn check(&self, problems: &mut Problems) {
        if let Err(bad) = OriginPolicy::parse(&self.allowed_origins) {
            for (at, message) in bad {
                problems.report(&format!("allowed_origins[{at}]"), message);
            }
        }
        match (&self.tls_cert_file, &self.tls_key_file) {
            (Some(_), None) => {
                problems.report("tls_key_file", "required beside server.tls_cert_file")
            }
            (None, Some(_)) => {
                problems.report("tls_cert_file", "required beside server.tls_key_file")
            }
            (Some(cert), Some(key)) => {
                if let Err(error) = crate::tls::Tls::load(cert, key) {
                    problems.report(error.key(), error.to_string());
                }
            }
            (None, None) => {}
        }
        for (key, value) in [
            ("handshake_timeout", self.handshake_timeout),
            ("upgrade_timeout", self.upgrade_timeout),
        ] {
            if !(Duration::from_millis(100)..=Duration::from_secs(300)).contains(&value) {
                problems.report(key, "must be between 100ms and 5m");
            }
        }
    }
}

/// `[admin]`: the listener for health, metrics and the admin API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Address and port of the admin listener; port 0 takes a free one. Keep it off public
    /// networks: health and metrics need no key. Takes effect at start.
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// The key of the admin API, at least 32 bytes. Without one the API answers 403.
    pub key: Option<Secret>,
    /// File that holds `key`; a line break at its end does not count. Re-read on reload.
    pub key_file: Option<PathBuf>,
    /// Connections the admin listener accepts; those beyond it are answered 503. Takes effect at
    /// start.
    pub connections: usize,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9090)),
            key: None,
            key_file: None,
            connections: 512,
        }
    }
}

impl AdminConfig {
    /// Reports values that make no sense, and a key file that cannot be used.
    pub fn check(&self, problems: &mut Problems) {
        if !(1..=MAX_ADMIN_CONNECTIONS).contains(&self.connections) {
            problems.report("connections", "must be between 1 and 65536");
        }
        if self.key.is_some() && self.key_file.is_some() {
            problems.report("key", "set admin.key or admin.key_file, not both");
            return;
        }
        if let Err((key, message)) = self.read_key() {
            problems.report(key, message);
        }
    }

    /// The key, from the file if there is one. The error names the setting and what is wrong.
    pub fn read_key(&self) -> Result<Option<Secret>, (&'static str, String)> {
        let (name, key) = match (&self.key, &self.key_file) {
            (Some(key), _) => ("key", key.clone()),
            (None, Some(path)) => match std::fs::read_to_string(path) {
                Ok(text) => ("key_file", Secret::new(text.trim_end_matches(['\r', '\n']))),
                Err(error) => return Err(("key_file", format!("{}: {error}", path.display()))),
            },
            (None, None) => return Ok(None),
        };
        if key.expose().len() < MIN_ADMIN_KEY_BYTES {
            return Err((
                name,
                format!("the admin key must have at least {MIN_ADMIN_KEY_BYTES} bytes"),
            ));
        }
        Ok(Some(key))
    }
}
