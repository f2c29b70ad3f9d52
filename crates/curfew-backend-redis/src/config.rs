//! The settings of the backend: `[backend.redis]`, and the settings of `[backend]` that the backend
//! uses.

mod redis_url;

use std::path::PathBuf;
use std::time::Duration;

use curfew_model::{Problems, Secret};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::connect;

pub use redis_url::{RedisAddress, RedisServer, RedisTarget, RedisUrl, RedisUrlError};

/// Longest `backend.redis.prefix`, in bytes. The prefix is part of every key.
const MAX_PREFIX_BYTES: usize = 64;

/// Shortest and longest `backend.redis.timeout` and `backend.redis.connect_timeout`. With a shorter
/// timeout, a busy server would count as dead. With a longer timeout, the node would wait too long
/// for a dead server.
const TIMEOUT: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(60)];

/// The settings of `[backend]` that this backend uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisBackendConfig {
    /// `backend.lease`. Default 3 s.
    pub lease: Duration,
    /// `backend.grace`. Default 30 s.
    pub grace: Duration,
    /// `backend.on_data_loss`.
    pub on_data_loss: OnDataLoss,
    /// `[backend.redis]`.
    pub redis: RedisConfig,
}

/// The reaction to a backend that returns without its data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnDataLoss {
    /// Live nodes write back the revocations they know.
    #[default]
    Reassert,
    /// Like `reassert`, and every token issued before the loss must be renewed.
    Reauth,
}

/// The Redis server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RedisConfig {
    /// URL of Redis. One server: `redis://[user:password@]host:port[/database]`. Sentinels:
    /// `redis+sentinel://[user:password@]host:port,host:port/primary[/database]`, with the
    /// sentinels and the name that they use for the primary. A Unix socket:
    /// `redis+unix://[user:password@]/path`. A cluster:
    /// `redis+cluster://[user:password@]host:port,host:port`, with some nodes of the cluster.
    /// `rediss` instead of `redis` means TLS. Default `redis://127.0.0.1:6379`. The URL is shown
    /// without user and password.
    pub url: RedisUrl,
    /// User name (an ACL user) for Redis, instead of the user name in the URL. Default: the user
    /// name in the URL, else `default`.
    pub username: Option<String>,
    /// Password for Redis, instead of the password in the URL.
    pub password: Option<Secret>,
    /// File that holds the password, instead of `password`. It is read for every connection, so
    /// that a changed password needs no restart.
    pub password_file: Option<PathBuf>,
    /// User name for the sentinels. Default: none.
    pub sentinel_username: Option<String>,
    /// Password for the sentinels.
    pub sentinel_password: Option<Secret>,
    /// File that holds the sentinels' password, instead of `sentinel_password`.
    pub sentinel_password_file: Option<PathBuf>,
    /// Certificates (PEM) of the authorities that may have signed Redis' certificate, for TLS.
    /// Default: the system's authorities.
    pub ca_file: Option<PathBuf>,
    /// This node's certificate (PEM), for a Redis server that asks for a client's certificate.
    /// Needs `key_file`.
    pub cert_file: Option<PathBuf>,
    /// Private key (PEM) of `cert_file`.
    pub key_file: Option<PathBuf>,
    /// Maximum time for an answer of Redis. A heartbeat that takes longer ends the node's lease. 50
    /// ms to 60 s; default `1s`.
    #[serde(with = "curfew_model::setting::duration")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// Maximum time for making a connection to Redis. 50 ms to 60 s; default `1s`.
    #[serde(with = "curfew_model::setting::duration")]
    #[schemars(with = "String")]
    pub connect_timeout: Duration,
    /// Start of the name of every key and pub/sub channel, and of the keys in receipts on any
    /// backend: 1 to 64 printable ASCII characters other than spaces, braces and `*?[]\`. Default
    /// `curfew:`.
    pub prefix: String,
}

impl Default for RedisBackendConfig {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(3),
            grace: Duration::from_secs(30),
            on_data_loss: OnDataLoss::default(),
            redis: RedisConfig::default(),
        }
    }
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            url: RedisUrl::new("redis://127.0.0.1:6379"),
            username: None,
            password: None,
            password_file: None,
            sentinel_username: None,
            sentinel_password: None,
            sentinel_password_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(1),
            prefix: "curfew:".to_owned(),
        }
    }
}

impl RedisConfig {
    /// Reports every file of the section that cannot be read, and every password file that is not
    /// UTF-8.
    pub fn check_files(&self, problems: &mut Problems) {
        for (key, file, is_secret) in [
            ("password_file", &self.password_file, true),
            ("sentinel_password_file", &self.sentinel_password_file, true),
            ("ca_file", &self.ca_file, false),
            ("cert_file", &self.cert_file, false),
            ("key_file", &self.key_file, false),
        ] {
            let Some(path) = file else { continue };
            let read = match is_secret {
                true => connect::read_secret(path).map(drop),
                false => connect::read(path).map(drop),
            };
            if let Err(fault) = read {
                problems.report(key, fault.to_string());
            }
        }
    }

    /// Reports every problem of the section, except for problems with the files that it names.
    pub fn check(&self, problems: &mut Problems) {
        if let Err(error) = self.url.parse() {
            problems.report("url", error.to_string());
        }
        for (key, both) in [
            (
                "password",
                self.password.is_some() && self.password_file.is_some(),
            ),
            (
                "sentinel_password",
                self.sentinel_password.is_some() && self.sentinel_password_file.is_some(),
            ),
        ] {
            if both {
                problems.report(key, format!("set {key} or {key}_file, not both"));
            }
        }
        if self.cert_file.is_some() != self.key_file.is_some() {
            problems.report("cert_file", "set both cert_file and key_file, or neither");
        }
        let [shortest, longest] = TIMEOUT;
        for (key, value) in [
            ("timeout", self.timeout),
            ("connect_timeout", self.connect_timeout),
        ] {
            if !(shortest..=longest).contains(&value) {
                problems.report(key, "must be from 50ms to 60s");
            }
        }
        let allowed = |byte: u8| byte.is_ascii_graphic() && !b"{}*?[]\\".contains(&byte);
        if !(1..=MAX_PREFIX_BYTES).contains(&self.prefix.len()) || !self.prefix.bytes().all(allowed)
        {
            problems.report(
                "prefix",
                "must be 1 to 64 printable ASCII characters, none of them a space or one of {}*?[]\\",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(config: &RedisConfig) -> Vec<String> {
        let mut problems = Problems::new();
        problems.within("backend.redis", |problems| config.check(problems));
        problems.into_vec().into_iter().map(|p| p.key).collect()
    }

    #[test]
    fn each_problem_is_reported_with_its_key() {
        assert_eq!(problems(&RedisConfig::default()), [""; 0]);
        let config = RedisConfig {
            url: RedisUrl::new("http://x"),
            prefix: String::new(),
            password: Some(Secret::new("x")),
            password_file: Some("x".into()),
            cert_file: Some("x".into()),
            timeout: Duration::ZERO,
            ..RedisConfig::default()
        };
        let expect = [
            "backend.redis.url",
            "backend.redis.password",
            "backend.redis.cert_file",
            "backend.redis.timeout",
            "backend.redis.prefix",
        ];
        assert_eq!(problems(&config), expect);
    }

    #[test]
    fn prefixes_are_plain() {
        let long = "x".repeat(65);
        for (prefix, good) in [
            ("curfew:", true),
            ("a/b-c_1", true),
            ("", false),
            (long.as_str(), false),
            ("a b", false),
            ("a{b}", false),
            ("a*", false),
            ("é", false),
            ("a\n", false),
        ] {
            let mut config = RedisConfig::default();
            prefix.clone_into(&mut config.prefix);
            assert_eq!(problems(&config).is_empty(), good, "{prefix:?}");
        }
    }
}
