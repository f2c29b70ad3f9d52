//! `[backend]`.

use std::fmt;
use std::time::Duration;

use curfew_model::Problems;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

/// Longest `backend.redis.prefix`, in bytes: it is part of every key.
const MAX_PREFIX_BYTES: usize = 64;

/// Bounds of `backend.lease`: shorter, and a slow round trip stops delivery; longer, and revoked
/// sessions live on for too long behind a broken network.
const LEASE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// Longest `backend.grace`: clients that hear nothing for longer have given up.
const MAX_GRACE: Duration = Duration::from_secs(3600);

/// The schemes that `backend.redis.url` may have.
const SCHEMES: [&str; 4] = [
    "redis://",
    "rediss://",
    "redis+sentinel://",
    "redis+cluster://",
];

/// Where nodes meet: what they share, and what happens when they cannot reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `redis`, shared by all nodes, or `memory`, for one node on its own: its sessions,
    /// revocations and publications end with the process. Default `redis`, which this version does
    /// not have yet.
    pub kind: BackendKind,
    /// For how long a node goes on delivering and accepting after its last proof of having every
    /// revocation: the most that a revoked session can outlive its revocation. 1 s to 60 s; default
    /// `3s`. Has no effect on `memory`.
    #[serde(with = "curfew_model::setting::duration")]
    #[schemars(with = "String")]
    pub lease: Duration,
    /// For how long a node that cannot reach the backend keeps its connections, silent, before it
    /// closes them with 4503. From `backend.lease` to 1 h; default `30s`. Has no effect on `memory`.
    #[serde(with = "curfew_model::setting::duration")]
    #[schemars(with = "String")]
    pub grace: Duration,
    /// What happens when the backend comes back without its data: `reassert`, live nodes write back
    /// the revocations they know, or `reauth`, every token issued before must be renewed as well.
    /// Default `reassert`. Has no effect on `memory`.
    pub on_data_loss: OnDataLoss,
    /// The Redis server.
    pub redis: RedisConfig,
}

/// Which backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BackendKind {
    /// Redis, shared by all nodes.
    #[default]
    Redis,
    /// This process, for one node.
    Memory,
}

/// What happens when the backend comes back without its data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnDataLoss {
    /// Live nodes write back the revocations they know.
    #[default]
    Reassert,
    /// And every token issued before the loss must be renewed.
    Reauth,
}

/// The Redis server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RedisConfig {
    /// Where Redis is: `redis://[user:password@]host:port`, `rediss://` for TLS, `redis+sentinel://`
    /// or `redis+cluster://`. Default `redis://127.0.0.1:6379`. Shown without user and password.
    pub url: RedisUrl,
    /// What every key and pub/sub channel starts with, and the keys in receipts on any backend:
    /// 1 to 64 printable ASCII characters other than spaces, braces and `*?[]\`. Default `curfew:`.
    pub prefix: String,
}

/// A URL that may hold a password. `Debug` and serialization leave out user, password and query.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct RedisUrl(String);

impl Default for Config {
    fn default() -> Self {
        Self {
            kind: BackendKind::default(),
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
            prefix: "curfew:".to_owned(),
        }
    }
}

impl Config {
    /// Reports everything wrong with the section.
    pub fn check(&self, problems: &mut Problems) {
        if self.kind == BackendKind::Redis {
            problems.report(
                "kind",
                "the redis backend is not in this version; set backend.kind = \"memory\" to run one node",
            );
        }
        let [shortest, longest] = LEASE;
        if !(shortest..=longest).contains(&self.lease) {
            problems.report("lease", "must be from 1s to 60s");
        }
        if self.grace < self.lease || self.grace > MAX_GRACE {
            problems.report("grace", "must be from backend.lease to 1h");
        }
        problems.within("redis", |problems| self.redis.check(problems));
    }
}

impl RedisConfig {
    fn check(&self, problems: &mut Problems) {
        if !SCHEMES.iter().any(|scheme| self.url.0.starts_with(scheme)) {
            let schemes = SCHEMES.join(", ");
            problems.report("url", format!("must start with one of {schemes}"));
        }
        let allowed = |byte: u8| byte.is_ascii_graphic() && !b"{}*?[]\\".contains(&byte);
        if !(1..=MAX_PREFIX_BYTES).contains(&self.prefix.len()) || !self.prefix.bytes().all(allowed)
        {
            problems.report(
                "prefix",
                "must be 1 to 64 printable ASCII characters without spaces, braces and *?[]\\",
            );
        }
    }
}

impl RedisUrl {
    /// Wraps a URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The URL with its password; name it only where the connection is made.
    pub fn expose(&self) -> &str {
        &self.0
    }

    fn redacted(&self) -> String {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        let (rest, query) = match rest.split_once('?') {
            Some((rest, _)) => (rest, "?[redacted]"),
            None => (rest, ""),
        };
        // The last @, also where a password holds one unescaped.
        match rest.rsplit_once('@') {
            Some((_, host)) => format!("{scheme}://[redacted]@{host}{query}"),
            None => format!("{scheme}://{rest}{query}"),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

impl Serialize for RedisUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.redacted())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(config: &Config) -> Vec<String> {
        let mut problems = Problems::new();
        problems.within("backend", |problems| config.check(problems));
        problems.into_vec().into_iter().map(|p| p.key).collect()
    }

    fn memory() -> Config {
        Config {
            kind: BackendKind::Memory,
            ..Config::default()
        }
    }

    #[test]
    fn each_problem_is_reported_with_its_key() {
        assert_eq!(problems(&memory()), [""; 0]);
        assert_eq!(problems(&Config::default()), ["backend.kind"]);
        let config = Config {
            lease: Duration::from_millis(999),
            grace: Duration::from_millis(500),
            redis: RedisConfig {
                url: RedisUrl::new("http://x"),
                prefix: String::new(),
            },
            ..Config::default()
        };
        let expect = [
            "backend.kind",
            "backend.lease",
            "backend.grace",
            "backend.redis.url",
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
            let mut config = memory();
            prefix.clone_into(&mut config.redis.prefix);
            assert_eq!(problems(&config).is_empty(), good, "{prefix:?}");
        }
    }

    #[test]
    fn a_url_is_shown_without_its_secrets() {
        for (url, expect) in [
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("rediss://u:canary@h:1/0", "rediss://[redacted]@h:1/0"),
            ("redis://u:can@nary@h", "redis://[redacted]@h"),
            ("redis://h?password=canary", "redis://h?[redacted]"),
            (
                "redis://:canary@h?x=canary",
                "redis://[redacted]@h?[redacted]",
            ),
            ("u:canary@h", "://[redacted]@h"),
        ] {
            assert_eq!(format!("{:?}", RedisUrl::new(url)), expect);
        }
    }
}
