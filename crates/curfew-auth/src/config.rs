//! The `[auth]` section.

mod issuer;
mod reports;

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use curfew_model::{Problems, RevocationKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use issuer::{Issuer, LogoutScope, Trust, check_url, found_at};
pub use reports::{EventStream, ReportedSubjects, Signal};

/// More leeway than a minute hides clocks that should be set, and lets expired tokens live on.
const MAX_LEEWAY: Duration = Duration::from_secs(60);

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Fetched more often than every few seconds keys are a load on their issuer.
const MIN_LIFETIME: Duration = Duration::from_secs(2);

/// Some 500 MB of remembered tokens.
const MAX_VERIFIED_TOKENS: usize = 1_000_000;

/// Bounds of `max_token_bytes`. Every token that could be good is read whole before its signature is
/// verified, and remembered with its session.
const TOKEN_BYTES: RangeInclusive<usize> = 1024..=64 * 1024;

/// Room in a request's head beside its token: cookies, trace context, what proxies add.
const HEAD_BESIDE_TOKEN_BYTES: usize = 16 * 1024;

/// Room in an `auth` frame beside its token.
const FRAME_BESIDE_TOKEN_BYTES: usize = 1024;

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
pub struct AuthConfig {
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
    /// 60s. They are judged by the clock of the node that is asked. With the Redis backend a node
    /// whose clock is known to be more than 30 s off Redis' answers 503 or 4503 instead of `expired`
    /// and `not_yet_valid`; up to 30 s nothing changes, and its tokens end early or late by as much.
    /// Default: 5s.
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
    /// How many verified tokens are remembered, so that one that comes again does not cost its signature
    /// again: until it ends, and not beyond a change of keys or configuration. Revocations are looked
    /// for each time. Those of HS256, HS384 and HS512 are verified as quickly as they are looked up, and
    /// not remembered. Default: 10000; 0: none is.
    pub verified_tokens: usize,
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
    /// Whether sessions are closed, as revoked, when the key that verified their token is none of its
    /// issuer's any more, whether it was taken out of a set or replaced in a file: what to set where that is
    /// how access is taken away. Default: `false`, they live until their token expires.
    pub close_on_key_withdrawal: bool,
    /// The claim that names the user; a string that every token must have. Default: sub.
    pub subject_claim: String,
    /// That claim may be an integer as well, as Django's libraries write it: the user is then its
    /// decimal text, in revocations and messages too. Default: `false`, it is refused.
    pub numeric_subjects: bool,
    /// The longest token looked at, in bytes, wherever it comes from; 1024 to 65536. A token in an `auth`
    /// frame may have 1 KiB around it, one in `refresh` what `limits.message_bytes` allows; one in a header or a
    /// URL needs `limits.head_bytes` to be 16 KiB more, and load balancers that let it through. A URL has
    /// 65534 bytes at most.
    /// Default: 16384.
    pub max_token_bytes: usize,
    /// The schemes that a token in the `Authorization` header may have before it; case does not matter. A
    /// token with another scheme, or with none, is refused with what would be right, unless another source
    /// brings one. Default: `["Bearer"]`.
    pub header_schemes: Vec<String>,
    /// Whose tokens are accepted; at least one.
    pub issuers: Vec<Issuer>,
    /// No setting: the claims that other sections ask for, whose values must mean the same to all who
    /// read them.
    #[serde(skip)]
    pub claims_in_use: Vec<String>,
}

impl Default for AuthConfig {
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
            verified_tokens: 10_000,
            login_claim: "sid".to_owned(),
            token_revocation: false,
            tickets: false,
            ticket_lifetime: Duration::from_secs(30),
            close_on_key_withdrawal: false,
            subject_claim: "sub".to_owned(),
            numeric_subjects: false,
            max_token_bytes: 16 * 1024,
            header_schemes: vec!["Bearer".to_owned()],
            issuers: Vec::new(),
            claims_in_use: Vec::new(),
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

impl AuthConfig {
    /// Whether `source` is one a token may come from.
    pub fn accepts(&self, source: Source) -> bool {
        self.token_sources.contains(&source)
    }

    /// As many bytes as the head of a request with a token needs at least.
    pub fn least_head_bytes(&self) -> usize {
        self.max_token_bytes + HEAD_BESIDE_TOKEN_BYTES
    }

    /// The largest `auth` frame, in bytes.
    pub fn auth_frame_bytes(&self) -> usize {
        self.max_token_bytes + FRAME_BESIDE_TOKEN_BYTES
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
        let is_scheme = |scheme: &String| !scheme.is_empty() && scheme.bytes().all(is_token_byte);
        if self.header_schemes.is_empty() || !self.header_schemes.iter().all(is_scheme) {
            problems.report(
                "header_schemes",
                "must list at least one scheme, each without spaces, for example \"Bearer\"",
            );
        }
        if !TOKEN_BYTES.contains(&self.max_token_bytes) {
            problems.report("max_token_bytes", "must be between 1024 and 65536");
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
        if self.verified_tokens > MAX_VERIFIED_TOKENS {
            problems.report("verified_tokens", "must be at most 1000000");
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
        if !RevocationKey::can_be_kind(&self.login_claim) {
            problems.report(
                "login_claim",
                "must name a claim, without \":\" and braces, for example \"sid\"",
            );
        } else if self.login_claim == self.subject_claim {
            problems.report("login_claim", "names the user already: auth.subject_claim");
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
        if !self.issuers.is_empty() && !self.issuers.iter().any(Issuer::opens_sessions) {
            problems.report(
                "issuers",
                "every issuer has reports_on, so no token could open a session",
            );
        }
        let mut names = HashSet::new();
        for (index, issuer) in self.issuers.iter().enumerate() {
            problems.within(format!("issuers[{index}]"), |problems| {
                if !issuer.name.is_empty() && !names.insert(&issuer.name) {
                    problems.report("name", "another issuer has the same name");
                }
                self.check_namesakes(index, problems);
                if several && issuer.issuer.is_none() && issuer.jwks_file.is_none() {
                    problems.report(
                        "issuer",
                        "required beside other issuers, unless all keys are in a file and have a kid to tell their tokens by",
                    );
                }
                issuer.check(problems);
                self.check_reports_on(issuer, problems);
            });
        }
    }

    /// Issuers with the same `iss` are told apart by `aud`.
    fn check_namesakes(&self, index: usize, problems: &mut Problems) {
        let issuer = &self.issuers[index];
        let accepted = issuer.accepted_issuers();
        for other in &self.issuers[..index] {
            let theirs = other.accepted_issuers();
            if !accepted.iter().any(|iss| theirs.contains(iss)) {
                continue;
            }
            match (&issuer.audience, &other.audience) {
                (Some(one), Some(other)) if !one.iter().any(|aud| other.contains(aud)) => {}
                _ => problems.report(
                    "issuer",
                    format!(
                        "{:?} has the same one: give each an audience, and none to both",
                        other.name
                    ),
                ),
            }
            let report = |one: &Issuer| one.backchannel_logout || one.reports();
            if report(issuer) && report(other) {
                problems.report(
                    "issuer",
                    format!(
                        "{:?} has the same one and reports logouts or events already: one of them does for both",
                        other.name
                    ),
                );
            }
        }
    }

    /// Whom an issuer reports on must be one whose tokens open sessions.
    fn check_reports_on(&self, issuer: &Issuer, problems: &mut Problems) {
        if issuer.subjects.session.as_ref() == Some(&self.subject_claim) {
            problems.report(
                "subjects.session",
                "names the user already: auth.subject_claim",
            );
        }
        let Some(name) = &issuer.reports_on else {
            return;
        };
        let mut others = self.issuers.iter().filter(|other| other.name == *name);
        match others.next() {
            None => problems.report("reports_on", format!("there is no issuer called {name:?}")),
            Some(other) if !other.opens_sessions() => problems.report(
                "reports_on",
                format!("{name:?} has reports_on itself: its tokens open no session"),
            ),
            Some(_) => {}
        }
        if !issuer.reports() {
            problems.report(
                "reports_on",
                "reports nothing: set event_stream or global_token_revocation, or leave reports_on out",
            );
        }
    }
}

/// The characters of an HTTP token, which a cookie's name is.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;
