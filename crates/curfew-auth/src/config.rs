//! The `[auth]` section.

use std::collections::HashSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use curfew_model::{Problems, RevocationKey, Secret};
use http::Uri;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Algorithm;
use crate::issuers::LogoutRules;
use crate::keys::MIN_SECRET_BYTES;

/// More leeway than a minute hides clocks that should be set, and lets expired tokens live on.
const MAX_LEEWAY: Duration = Duration::from_secs(60);

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Fetched more often than every few seconds keys are a load on their issuer.
const MIN_LIFETIME: Duration = Duration::from_secs(2);

/// Bounds of `jwks_timeout`.
const MIN_TIMEOUT: Duration = Duration::from_millis(100);
const MAX_TIMEOUT: Duration = Duration::from_secs(60);

/// A ticket is in a URL: it must not be worth reading out of a log a minute later.
const TICKET_LIFETIMES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60);

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
    /// How long fetched keys are used until they are fetched again, at most; it is done at 80 % of
    /// this. A key that its issuer withdraws verifies no token for longer, while the issuer can be
    /// reached. Default: 10m.
    #[serde(with = "curfew_model::setting::duration")]
    #[schemars(with = "String")]
    pub jwks_lifetime: Duration,
    /// How long fetched keys are used while their issuer cannot be reached. Default: 24h.
    #[serde(with = "curfew_model::setting::duration")]
    #[schemars(with = "String")]
    pub jwks_max_stale: Duration,
    /// How long a fetch of keys, or of the OpenID configuration before it, may take. Default: 5s.
    /// Takes effect at start.
    #[serde(with = "curfew_model::setting::duration")]
    #[schemars(with = "String")]
    pub jwks_timeout: Duration,
    /// The claim of access tokens that names the login they belong to, as `sid` in logout tokens
    /// does. Where the tokens have none, a login cannot be told from the user's others. Default: sid.
    pub login_claim: String,
    /// Whether whoever holds an access token may have it revoked, at `POST /revoke` of the public
    /// listener (RFC 7009). Default: `false`.
    pub token_revocation: bool,
    /// Whether `POST /v1/tickets` of the public listener gives tickets for tokens: `/ws?ticket=` opens
    /// one session with the token behind it, once. Default: `false`, and `?ticket=` means nothing.
    pub tickets: bool,
    /// How long a ticket can be used; 1s to 60s. Default: 30s.
    #[serde(with = "curfew_model::setting::duration")]
    #[schemars(with = "String")]
    pub ticket_lifetime: Duration,
    /// Whether sessions are closed, as revoked, when the key that verified their token, by its `kid`,
    /// is not in its issuer's key set any more: what to set where taking a key out of a set is how access is
    /// taken away. Default: `false`, they live until their token expires.
    pub close_on_key_withdrawal: bool,
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
            jwks_lifetime: Duration::from_secs(600),
            jwks_max_stale: Duration::from_secs(24 * 3600),
            jwks_timeout: Duration::from_secs(5),
            login_claim: "sid".to_owned(),
            token_revocation: false,
            tickets: false,
            ticket_lifetime: Duration::from_secs(30),
            close_on_key_withdrawal: false,
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

/// What a logout token that names a login ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogoutScope {
    /// That login's sessions.
    #[default]
    Login,
    /// All of the user's that began before.
    User,
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
    /// single issuer, and beside others for one whose keys are in a file and all have a `kid`.
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
    /// The URL of a JSON Web Key Set: https, or http on this machine. Fetched at start and then
    /// regularly, see `auth.jwks_lifetime`; redirects are not followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// Whether to find the key set through `issuer`, which is then a URL, and OpenID Connect
    /// discovery: `<issuer>/.well-known/openid-configuration`. Default: false.
    pub discovery: bool,
    /// Whether this issuer may end sessions by OpenID Connect Back-Channel Logout, at
    /// `POST /logout/backchannel` of the public listener. Needs `issuer`. Default: `false`.
    pub backchannel_logout: bool,
    /// What a logout token that names a login (`sid`) ends. `login`: the sessions of that login, for
    /// which every access token of this issuer must have the claim `auth.login_claim`. `user`: all
    /// sessions of the user that began before; for issuers whose access tokens name no login.
    /// Sessions can be logged out that open, or refresh, after this was configured; their tokens
    /// must have an `iat`. Default: `login`.
    pub logout_scope: LogoutScope,
    /// What the `aud` of its logout tokens must be, or hold, one of: the id of a client that is
    /// registered there. Absent: `audience`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logout_audience: Option<Vec<String>>,
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
        for (key, value, least, most) in [
            ("jwks_lifetime", self.jwks_lifetime, MIN_LIFETIME, DAY),
            (
                "jwks_max_stale",
                self.jwks_max_stale,
                self.jwks_lifetime,
                7 * DAY,
            ),
            ("jwks_timeout", self.jwks_timeout, MIN_TIMEOUT, MAX_TIMEOUT),
        ] {
            if !(least..=most).contains(&value) {
                let (least, most) = (least.as_secs_f64(), most.as_secs());
                problems.report(key, format!("must be between {least}s and {most}s"));
            }
        }
        if !TICKET_LIFETIMES.contains(&self.ticket_lifetime) {
            problems.report("ticket_lifetime", "must be between 1s and 60s");
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
        if self.login_claim.is_empty() {
            problems.report("login_claim", "must name a claim, for example \"sid\"");
        } else if RevocationKey::is_reserved_kind(&self.login_claim) {
            problems.report(
                "login_claim",
                format!("{} is a kind of revocation already", self.login_claim),
            );
        }
        let logs_out = self.issuers.iter().any(|issuer| issuer.backchannel_logout);
        if logs_out && self.subject_claim != "sub" {
            problems.report(
                "subject_claim",
                "must be \"sub\" beside backchannel_logout: logout tokens name users by it",
            );
        }
        self.check_issuers(problems);
    }

    fn check_issuers(&self, problems: &mut Problems) {
        if self.issuers.is_empty() {
            problems.report(
                "issuers",
                "no issuer is configured, so no token could be accepted: add [[auth.issuers]] with a name and one of secret_file, public_key_file, jwks_file, jwks_url or discovery",
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
                        "required beside other issuers, unless all keys are in a file and have a kid to tell their tokens by",
                    );
                }
                issuer.check(problems);
            });
        }
    }
}

impl Issuer {
    /// Whether its keys come in a set, in which a token's `kid` names one.
    pub(crate) fn has_key_set(&self) -> bool {
        self.jwks_file.is_some() || self.jwks_url.is_some() || self.discovery
    }

    /// The rules of its logout tokens, where they are accepted.
    pub(crate) fn logout_rules(&self) -> Option<LogoutRules> {
        let audience = self.logout_audience.as_ref().or(self.audience.as_ref());
        let audience = audience.filter(|_| self.backchannel_logout)?;
        Some(LogoutRules {
            audience: audience.clone(),
            scope: self.logout_scope,
        })
    }

    fn check(&self, problems: &mut Problems) {
        if self.backchannel_logout && self.issuer.is_none() {
            problems.report("issuer", "required for backchannel_logout");
        }
        if self.backchannel_logout
            && self
                .logout_rules()
                .is_none_or(|rules| rules.audience.is_empty())
        {
            problems.report(
                "logout_audience",
                "required for backchannel_logout where there is no audience: the client id at the issuer",
            );
        }
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
                "has no key: give one of secret, secret_file, public_key_file, jwks_file, jwks_url or discovery",
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
        if let Some(Err(error)) = self.jwks_url.as_deref().map(check_url) {
            problems.report("jwks_url", error);
        }
        if self.discovery {
            match self.issuer.as_deref().map(check_url) {
                None => problems.report("issuer", "required for discovery, as a URL"),
                Some(Err(error)) => {
                    problems.report("issuer", format!("for discovery it {error}"));
                }
                Some(Ok(_)) => {}
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
        let public = self.public_key_file.is_some() || self.has_key_set();
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

/// Whether keys may be fetched from a URL, or what is wrong with it: it must be https, or http on
/// this machine. No part of it comes from a token, so a template is a mistake.
///
/// # Errors
///
/// What it must be, to follow "it" or the setting's name.
pub fn check_url(url: &str) -> Result<Uri, &'static str> {
    const FORM: &str =
        "must be a URL with https, or with http on this machine, without user, fragment or braces";
    if url.contains(['#', '{', '}']) {
        return Err(FORM);
    }
    let uri: Uri = url.parse().map_err(|_| FORM)?;
    let authority = uri.authority().ok_or(FORM)?;
    if authority.as_str().contains('@') || authority.host().is_empty() {
        return Err(FORM);
    }
    match uri.scheme_str() {
        Some("https") => Ok(uri),
        Some("http") if is_loopback(authority.host()) => Ok(uri),
        _ => Err(FORM),
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// The characters of an HTTP token, which a cookie's name is.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;
