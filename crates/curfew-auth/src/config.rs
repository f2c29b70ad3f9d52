//! The `[auth]` section.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use curfew_model::{Problems, Secret};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Algorithm;
use crate::keys::MIN_SECRET_BYTES;

/// More leeway than a minute hides clocks that should be set, and lets expired tokens live on.
const MAX_LEEWAY: Duration = Duration::from_secs(60);

/// Claims with a meaning of their own, which can therefore not name the user.
const NOT_SUBJECTS: &[&str] = &["iss", "aud", "exp", "nbf", "iat", "jti", "events", "cnf"];

/// How connections prove who they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where a token may come from. A source that is not listed is ignored as if it were empty.
    /// Default: all but `cookie`, which needs `server.allowed_origins`.
    pub token_sources: Vec<Source>,
    /// The name of the cookie that holds the token, for the source `cookie`. Browsers keep a name
    /// that starts with `__Host-` from being set by other hosts. Default: `__Host-curfew-token`.
    pub cookie_name: String,
    /// How long a connection that brought no token has for its `auth` frame. Default: 5s.
    #[serde(with = "curfew_model::setting::duration")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// How a bad token in the upgrade request is answered: `message` completes the upgrade, tells
    /// the client why and closes with 4401; `http` answers the request with 401. Default: message.
    pub reject: Reject,
    /// How far the clocks of issuers may be off when `exp`, `nbf` and `iat` are judged; at most
    /// 60s. Default: 5s.
    #[serde(with = "curfew_model::setting::duration")]
    #[schemars(with = "String")]
    pub leeway: Duration,
    /// The longest time between a token's `iat` and its `exp`; tokens that live longer, or do not
    /// say when they were issued, are refused. Default: 0s, no limit.
    #[serde(with = "curfew_model::setting::duration")]
    #[schemars(with = "String")]
    pub max_token_lifetime: Duration,
    /// The claim that names the user; a string that every token must have. Default: sub.
    pub subject_claim: String,
    /// Whose tokens are accepted; at least one.
    pub issuers: Vec<Issuer>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            token_sources: vec![
                Source::Header,
                Source::Subprotocol,
                Source::Query,
                Source::Message,
            ],
            cookie_name: "__Host-curfew-token".to_owned(),
            timeout: Duration::from_secs(5),
            reject: Reject::Message,
            leeway: Duration::from_secs(5),
            max_token_lifetime: Duration::ZERO,
            subject_claim: "sub".to_owned(),
            issuers: Vec::new(),
        }
    }
}

/// A place a token may come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// `Authorization: Bearer <token>`.
    Header,
    /// `Sec-WebSocket-Protocol: curfew.v1, bearer.<token>`.
    Subprotocol,
    /// `?token=<token>` or `?access_token=<token>`.
    Query,
    /// The first frame, `{"type":"auth","token":"<token>"}`.
    Message,
    /// The cookie named by `auth.cookie_name`.
    Cookie,
}

/// How a bad token in the upgrade request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Reject {
    /// By a frame and close code 4401, which browsers can read.
    Message,
    /// By HTTP 401 instead of the upgrade.
    Http,
}

/// One issuer of tokens: what its tokens must say, and exactly one source of the keys that sign
/// them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Issuer {
    /// What this issuer is called in logs, metrics and sessions. Unique.
    pub name: String,
    /// What a token's `iss` must be, exactly. Absent: `iss` is not checked, which is possible for a
    /// single issuer, and beside others for one whose keys all have a `kid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// What a token's `aud` must be, or hold, one of. Absent: `aud` is not checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<Vec<String>>,
    /// The algorithms accepted from this issuer. Absent: those its keys are made for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithms: Option<Vec<Algorithm>>,
    /// The shared secret of HS256, HS384 and HS512; at least 32 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// A file with that secret. One line break at its end does not count. Re-read when it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// A PEM file with one public key: RSA of 2048 to 8192 bits, P-256, P-384 or Ed25519. Re-read
    /// when it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key_file: Option<PathBuf>,
    /// A file with a JSON Web Key Set. Keys that cannot be used are skipped with a warning. Re-read
    /// when it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_file: Option<PathBuf>,
    /// The address of a JSON Web Key Set. Not available in this version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// Whether to find the key set through `issuer` and OpenID Connect discovery. Not available in
    /// this version. Default: false.
    pub discovery: bool,
}

impl Config {
    /// Whether `source` is one a token may come from.
    pub fn accepts(&self, source: Source) -> bool {
        self.token_sources.contains(&source)
    }

    /// Whether cookies are a source, which needs `server.allowed_origins`.
    pub fn uses_cookie(&self) -> bool {
        self.accepts(Source::Cookie)
    }

    /// Reports everything wrong with the section, key files aside: see [`crate::check_files`].
    pub fn check(&self, problems: &mut Problems) {
        if self.token_sources.is_empty() {
            problems.report("token_sources", "lists no source, so nobody could connect");
        }
        if self.cookie_name.is_empty() || !self.cookie_name.bytes().all(is_token_byte) {
            problems.report(
                "cookie_name",
                "must be a cookie name: letters, digits and any of !#$%&'*+-.^_`|~",
            );
        }
        if self.timeout.is_zero() {
            problems.report("timeout", "must be longer than 0s");
        }
        if self.leeway > MAX_LEEWAY {
            problems.report("leeway", "must be at most 60s");
        }
        if self.subject_claim.is_empty() {
            problems.report("subject_claim", "must name a claim, for example \"sub\"");
        } else if NOT_SUBJECTS.contains(&self.subject_claim.as_str()) {
            problems.report(
                "subject_claim",
                format!(
                    "{} has a meaning of its own and cannot name the user",
                    self.subject_claim
                ),
            );
        }
        self.check_issuers(problems);
    }

    fn check_issuers(&self, problems: &mut Problems) {
        if self.issuers.is_empty() {
            problems.report(
                "issuers",
                "no issuer is configured, so no token could be accepted: add [[auth.issuers]] with a name and one of secret_file, public_key_file or jwks_file",
            );
        }
        let several = self.issuers.len() > 1;
        let mut names = HashSet::new();
        let mut issuers = HashSet::new();
        for (index, issuer) in self.issuers.iter().enumerate() {
            problems.within(format!("issuers[{index}]"), |problems| {
                if !issuer.name.is_empty() && !names.insert(&issuer.name) {
                    problems.report("name", "another issuer has the same name");
                }
                if let Some(iss) = &issuer.issuer
                    && !issuers.insert(iss)
                {
                    problems.report("issuer", "another issuer has the same one");
                }
                if several && issuer.issuer.is_none() && issuer.jwks_file.is_none() {
                    problems.report(
                        "issuer",
                        "required beside other issuers, because this key has no kid to tell its tokens by",
                    );
                }
                issuer.check(problems);
            });
        }
    }
}

impl Issuer {
    fn check(&self, problems: &mut Problems) {
        if self.name.is_empty() {
            problems.report("name", "must not be empty");
        }
        if self.issuer.as_ref().is_some_and(String::is_empty) {
            problems.report(
                "issuer",
                "must not be empty; leave it out to accept any iss",
            );
        }
        if let Some(audience) = &self.audience
            && (audience.is_empty() || audience.iter().any(String::is_empty))
        {
            problems.report(
                "audience",
                "must list at least one audience and none that is empty; leave it out to accept any aud",
            );
        }
        self.check_key_source(problems);
        self.check_algorithms(problems);
    }

    fn check_key_source(&self, problems: &mut Problems) {
        let given: Vec<&str> = [
            ("secret", self.secret.is_some()),
            ("secret_file", self.secret_file.is_some()),
            ("public_key_file", self.public_key_file.is_some()),
            ("jwks_file", self.jwks_file.is_some()),
            ("jwks_url", self.jwks_url.is_some()),
            ("discovery", self.discovery),
        ]
        .into_iter()
        .filter_map(|(key, given)| given.then_some(key))
        .collect();
        match given.as_slice() {
            [] => problems.report(
                "",
                "has no key: give one of secret, secret_file, public_key_file or jwks_file",
            ),
            [_] => {}
            several => problems.report(
                "",
                format!(
                    "has several sources of keys ({}): keep one",
                    several.join(", ")
                ),
            ),
        }
        for key in ["jwks_url", "discovery"] {
            if given.contains(&key) {
                problems.report(
                    key,
                    "key sets by URL are not available in this version; use jwks_file",
                );
            }
        }
        if let Some(secret) = &self.secret
            && secret.expose().len() < MIN_SECRET_BYTES
        {
            problems.report("secret", crate::KeyError::ShortSecret.to_string());
        }
    }

    fn check_algorithms(&self, problems: &mut Problems) {
        let Some(algorithms) = &self.algorithms else {
            return;
        };
        if algorithms.is_empty() {
            problems.report(
                "algorithms",
                "must list at least one; leave it out to accept those the key is made for",
            );
        }
        let secret = self.secret.is_some() || self.secret_file.is_some();
        let public = self.public_key_file.is_some() || self.jwks_file.is_some();
        for algorithm in algorithms {
            if secret && !algorithm.is_hmac() {
                problems.report(
                    "algorithms",
                    format!("{algorithm} needs public_key_file or jwks_file, not a secret"),
                );
            }
            if public && algorithm.is_hmac() {
                problems.report(
                    "algorithms",
                    format!("{algorithm} needs secret or secret_file, not a public key"),
                );
            }
        }
    }
}

/// The characters of an HTTP token, which a cookie's name is.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;
