//! The `[auth]` section.

mod issuer;
mod reports;

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use curfew_model::{ANONYMOUS_ISSUER, Problems, RevocationKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::keys::MIN_SECRET_BYTES;
pub use issuer::{Issuer, LogoutScope, Trust, check_url, found_at};
pub use reports::{EventStream, ReportedSubjects, Signal};

/// Maximum of `leeway`. A longer leeway would hide wrong clocks and keep expired tokens valid.
const MAX_LEEWAY: Duration = Duration::from_secs(60);

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Minimum of `jwks_lifetime`. A shorter lifetime would load the issuer with fetches.
const MIN_LIFETIME: Duration = Duration::from_secs(2);

/// Maximum of `verified_tokens`. A million remembered tokens take about 500 MB.
const MAX_VERIFIED_TOKENS: usize = 1_000_000;

/// Bounds of `max_token_bytes`. The bounds protect memory: a token is decoded whole before its
/// signature is verified, and the session keeps the token's claims.
const TOKEN_BYTES: RangeInclusive<usize> = 1024..=64 * 1024;

/// Bytes for the rest of a request head beside the token, such as cookies, trace context and the
/// headers of proxies.
const HEAD_BESIDE_TOKEN_BYTES: usize = 16 * 1024;

/// Bytes for the rest of an `auth` frame beside the token.
const FRAME_BESIDE_TOKEN_BYTES: usize = 1024;

/// Bounds of `jwks_timeout`.
const MIN_TIMEOUT: Duration = Duration::from_millis(100);
const MAX_TIMEOUT: Duration = Duration::from_secs(60);

/// Bounds of `ticket_lifetime`. A ticket travels in a URL, which logs record, so a ticket must be
/// useless a minute later.
const TICKET_LIFETIMES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60);

/// Bounds of `anonymous_lifetime`. Anonymous sessions are not refreshed: the client connects again.
const ANONYMOUS_LIFETIMES: RangeInclusive<Duration> = Duration::from_secs(1)..=DAY;

/// Claims with a fixed meaning, which therefore cannot name the user.
const NOT_SUBJECTS: &[&str] = &["iss", "aud", "exp", "nbf", "iat", "jti", "events", "cnf"];

/// Authentication of connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// The sources from which a connection's token is read. A source that is not listed is ignored.
    /// Default: all but `cookie`, which needs `server.allowed_origins`.
    pub token_sources: Vec<Source>,
    /// The name of the cookie that holds the token, for the source `cookie`. In browsers, no other
    /// host can set a cookie whose name starts with `__Host-`. Default: `__Host-curfew-token`.
    pub cookie_name: String,
    /// The time within which a connection without a token must send its `auth` frame. Default: 5s.
    #[serde(with = "curfew_model::setting::duration")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// The answer to a bad token in the upgrade request: `message` completes the upgrade, sends the
    /// reason and closes with 4401; `http` answers the request with 401. Default: message.
    pub reject: Reject,
    /// The clock error tolerated when `exp`, `nbf` and `iat` are judged, at most 60s. The clock of
    /// the receiving node judges these times. With the Redis backend, a node whose clock differs
    /// from Redis' by more than 30 s answers 503 or 4503 instead of `expired` and `not_yet_valid`.
    /// With a smaller difference, tokens end early or late by that difference. Default: 5s.
    #[serde(with = "curfew_model::setting::duration")]
    #[schemars(with = "String")]
    pub leeway: Duration,
    /// The longest time between a token's `iat` and its `exp`. Tokens with a longer lifetime or
    /// without `iat` are refused. Default: 0s, no limit.
    #[serde(with = "curfew_model::setting::duration")]
    #[schemars(with = "String")]
    pub max_token_lifetime: Duration,
    /// The longest time that fetched keys are used before they are fetched again. The next fetch
    /// starts after at most 80 % of this time. A withdrawn key verifies tokens for at most this
    /// time, if the issuer can be reached. Default: 10m.
    #[serde(with = "curfew_model::setting::duration")]
    #[schemars(with = "String")]
    pub jwks_lifetime: Duration,
    /// The longest time that fetched keys are used while their issuer cannot be reached. Default:
    /// 24h.
    #[serde(with = "curfew_model::setting::duration")]
    #[schemars(with = "String")]
    pub jwks_max_stale: Duration,
    /// The timeout of each fetch, of a key set or of an OpenID configuration. Default: 5s. Takes
    /// effect at start.
    #[serde(with = "curfew_model::setting::duration")]
    #[schemars(with = "String")]
    pub jwks_timeout: Duration,
    /// The number of verified tokens to remember, so that a token that is sent again costs no
    /// second signature check. A token is forgotten when it expires and when keys or configuration
    /// change. Revocations are checked each time. HS256, HS384 and HS512 tokens are not remembered,
    /// because their check costs no more than a look-up. Default: 10000; 0: none.
    pub verified_tokens: usize,
    /// The claim of access tokens that identifies the login (one sign-in of the user at the
    /// issuer), as `sid` does in logout tokens. If tokens lack this claim, the logins of a user
    /// cannot be distinguished. Default: sid.
    pub login_claim: String,
    /// Lets the holder of an access token revoke it, at `POST /revoke` of the public listener
    /// (RFC 7009). Default: `false`.
    pub token_revocation: bool,
    /// Issues tickets for tokens at `POST /v1/tickets` of the public listener: `/ws?ticket=` opens
    /// one session with the token for which the ticket was issued. A ticket can be used once.
    /// Default: `false`, `?ticket=` is ignored.
    pub tickets: bool,
    /// The time within which a ticket can be used; 1s to 60s. Default: 30s.
    #[serde(with = "curfew_model::setting::duration")]
    #[schemars(with = "String")]
    pub ticket_lifetime: Duration,
    /// Closes sessions as revoked when the issuer no longer has the key of their token. An issuer
    /// loses a key when the key is removed from its key set or replaced in its file. Enable it if
    /// you withdraw access by replacing keys. Default: `false`, sessions last until their token
    /// expires.
    pub close_on_key_withdrawal: bool,
    /// The claim that names the user; a string that every token must have. Default: sub.
    pub subject_claim: String,
    /// Accepts an integer as the subject claim, as Django's libraries write it. The user is then
    /// the integer's decimal text, also in revocations and messages. Default: `false`, integers are
    /// refused.
    pub numeric_subjects: bool,
    /// The longest token accepted, in bytes, from any source; 1024 to 65536. An `auth` frame may be
    /// 1 KiB longer than its token, and a `refresh` is bounded by `limits.message_bytes`. For
    /// tokens in a header or a URL, `limits.head_bytes` must be at least 16 KiB larger than this
    /// value, and load balancers must accept such requests. A URL has at most 65534 bytes. Default:
    /// 16384.
    pub max_token_bytes: usize,
    /// The schemes accepted before a token in the `Authorization` header; case does not matter. A
    /// token with another scheme or without a scheme is ignored if another source has a token.
    /// Otherwise it is refused, with a message that shows the right form. Default: `["Bearer"]`.
    pub header_schemes: Vec<String>,
    /// Admits connections without a token as the anonymous user, whose name is empty and who has no
    /// claims. The policy decides on anonymous users as on all others: a rule without `when`
    /// applies to them too, and without such a rule they may do nothing. An anonymous client sends
    /// `auth` without a token, or sends no `auth` if `message` is not a source. Default: `false`, a
    /// token is required.
    pub anonymous: bool,
    /// The lifetime of an anonymous session, which then closes as expired; 1s to 24h. Default: 1h.
    #[serde(with = "curfew_model::setting::duration")]
    #[schemars(with = "String")]
    pub anonymous_lifetime: Duration,
    /// The issuers whose tokens are accepted; at least one.
    pub issuers: Vec<Issuer>,
    /// The claims that other sections of the configuration read. A token is refused if one of these
    /// claims has a value that JSON parsers would read differently. The field is not a setting: the
    /// configuration fills it from those sections.
    #[serde(skip)]
    pub claims_in_use: Vec<String>,
    /// Reads the claims of the Centrifuge protocol: `expire_at` ends a session before `exp`, and a
    /// token with `channel` opens a subscription and no session. The field is not a setting: the
    /// configuration sets it if the protocol is enabled.
    #[serde(skip)]
    pub centrifuge_claims: bool,
    /// Accepts tokens without `exp`, which end after a day, and HMAC secrets of any length. The
    /// field is not a setting: `curfew dev --centrifuge` sets it, on loopback addresses only.
    #[serde(skip)]
    pub development: bool,
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
            anonymous: false,
            anonymous_lifetime: Duration::from_secs(3600),
            issuers: Vec::new(),
            claims_in_use: Vec::new(),
            centrifuge_claims: false,
            development: false,
        }
    }
}

/// A source from which a connection's token is read.
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

/// Answer to a bad token in the upgrade request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Reject {
    /// A frame with the reason and close code 4401, which browsers can read.
    Message,
    /// HTTP 401 instead of the upgrade.
    Http,
}

impl AuthConfig {
    /// Returns true if tokens may come from `source`.
    pub fn accepts(&self, source: Source) -> bool {
        self.token_sources.contains(&source)
    }

    /// The size in bytes of the shortest accepted HMAC secret.
    pub(crate) fn least_secret_bytes(&self) -> usize {
        match self.development {
            true => 1,
            false => MIN_SECRET_BYTES,
        }
    }

    /// The least `limits.head_bytes` that admits a request with the longest token.
    pub fn least_head_bytes(&self) -> usize {
        self.max_token_bytes + HEAD_BESIDE_TOKEN_BYTES
    }

    /// The maximum size of an `auth` frame, in bytes.
    pub fn auth_frame_bytes(&self) -> usize {
        self.max_token_bytes + FRAME_BESIDE_TOKEN_BYTES
    }

    /// Returns true if cookies are a source, which needs `server.allowed_origins`.
    pub fn uses_cookie(&self) -> bool {
        self.accepts(Source::Cookie)
    }

    /// Reports every problem of the section. [`crate::check_files`] reports the problems of key
    /// files.
    pub fn check(&self, problems: &mut Problems) {
        if self.token_sources.is_empty() {
            problems.report(
                "token_sources",
                "lists no source, so no client could connect",
            );
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
        if !ANONYMOUS_LIFETIMES.contains(&self.anonymous_lifetime) {
            problems.report("anonymous_lifetime", "must be between 1s and 24h");
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
                    "{} is a claim with a fixed meaning and cannot name the user",
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
            problems.report(
                "login_claim",
                "must not be the claim in auth.subject_claim, which names the user",
            );
        } else if RevocationKey::is_reserved_kind(&self.login_claim) {
            problems.report(
                "login_claim",
                format!(
                    "{} is the name of a kind of revocation: choose another claim",
                    self.login_claim
                ),
            );
        }
        let logs_out = self.issuers.iter().any(|issuer| issuer.backchannel_logout);
        if logs_out && self.subject_claim != "sub" {
            problems.report(
                "subject_claim",
                "must be \"sub\" if an issuer has backchannel_logout: logout tokens name their user in sub",
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
                if self.anonymous && issuer.name == ANONYMOUS_ISSUER {
                    problems.report(
                        "name",
                        "is the issuer name of sessions without a token (auth.anonymous): choose another name",
                    );
                }
                if !issuer.name.is_empty() && !names.insert(&issuer.name) {
                    problems.report("name", "another issuer has the same name");
                }
                self.check_namesakes(index, problems);
                if several && issuer.issuer.is_none() && issuer.jwks_file.is_none() {
                    problems.report(
                        "issuer",
                        "must be set if there are several issuers. It may be left out if this issuer's keys are in jwks_file and every key has a kid: tokens are then assigned to the issuer by their kid",
                    );
                }
                issuer.check(self.least_secret_bytes(), problems);
                self.check_reports_on(issuer, problems);
            });
        }
    }

    /// Refuses two issuers with the same `iss`, unless both have audiences and no audience in
    /// common. Refuses them too if both report logouts or events.
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
                        "{:?} has the same issuer: set audience for both, without a common value",
                        other.name
                    ),
                ),
            }
            let report = |one: &Issuer| one.backchannel_logout || one.reports();
            if report(issuer) && report(other) {
                problems.report(
                    "issuer",
                    format!(
                        "{:?} has the same issuer and also reports logouts or events: configure reports for only one of the two",
                        other.name
                    ),
                );
            }
        }
    }

    /// Checks that `reports_on` names an issuer whose tokens open sessions, and that
    /// `subjects.session` is not the subject claim.
    fn check_reports_on(&self, issuer: &Issuer, problems: &mut Problems) {
        if issuer.subjects.session.as_ref() == Some(&self.subject_claim) {
            problems.report(
                "subjects.session",
                "must not be the claim in auth.subject_claim, which names the user",
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
                format!("{name:?} has reports_on too, so its tokens open no session: name another issuer"),
            ),
            Some(_) => {}
        }
        if !issuer.reports() {
            problems.report(
                "reports_on",
                "has no effect without event_stream or global_token_revocation: set one of them, or leave reports_on out",
            );
        }
    }
}

/// Returns true if the byte may be in an HTTP token (RFC 9110 §5.6.2), the form of cookie names and
/// of authentication schemes.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;
