//! One issuer: `[[auth.issuers]]`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use curfew_model::{Problems, Secret};
use http::Uri;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Algorithm;
use crate::issuers::LogoutRules;

use super::{AuthConfig, EventStream, ReportedSubjects};

/// Claims that `required_claims` cannot name, because they have rules of their own.
const NOT_REQUIRED: &[&str] = &[
    "iss", "sub", "aud", "exp", "nbf", "iat", "jti", "events", "cnf",
];

/// One issuer of tokens: the claims its tokens must have, and exactly one source of the keys that
/// verify them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Issuer {
    /// The issuer's unique name in logs, metrics and sessions.
    pub name: String,
    /// The exact `iss` of its tokens. Two issuers may have the same `iss`, for example for people
    /// and for services. A token then belongs to the first issuer whose `audience` is in the
    /// token's `aud`. Only one of the two may send reports, and a report about a user ends the
    /// user's sessions at both issuers. Absent: `iss` is not checked; if there are several issuers,
    /// this issuer then needs a `jwks_file` in which each key has a `kid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The accepted audiences: a token's `aud` must be one of these, or a list that contains one of
    /// these. Absent: `aud` is not checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<Vec<String>>,
    /// Other claims that the issuer's access tokens must have, each with a list of accepted values.
    /// This setting is for issuers that name a token's audience by another claim than `aud`. Each
    /// claim must be one of its accepted values, or a list that contains one of them. A token
    /// without the claim is refused with `missing_claim`, a token with another value with
    /// `wrong_audience`.
    pub required_claims: BTreeMap<String, Vec<String>>,
    /// Accepts the issuer's ID tokens as access tokens. ID tokens are meant for the client that
    /// signed the user in; the access token is the better choice for a server. The setting is
    /// needed for issuers whose access tokens look like ID tokens, such as Dex and authentik.
    /// Default: `false`, tokens that look like ID tokens are refused.
    pub accept_id_tokens: bool,
    /// The algorithms accepted from this issuer; `"EdDSA"` may be written `"Ed25519"`. Absent: all
    /// algorithms that fit the issuer's keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithms: Option<Vec<Algorithm>>,
    /// The shared secret of HS256, HS384 and HS512; at least 32 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// A file with the shared secret of HS256, HS384 and HS512; at least 32 bytes. One line break
    /// at its end is ignored. The file is read again when it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// A PEM file with one public key: RSA of 2048 to 8192 bits, P-256, P-384 or Ed25519. The file
    /// is read again when it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key_file: Option<PathBuf>,
    /// A file with a JSON Web Key Set. Keys that cannot be used are skipped with a warning. The
    /// file is read again when it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_file: Option<PathBuf>,
    /// The URL of a JSON Web Key Set: https, or http on this machine or with `allow_http`. The set
    /// is fetched at start and then regularly, see `auth.jwks_lifetime`. Redirects are not
    /// followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// Finds the key set by OpenID Connect discovery: `<issuer>/.well-known/openid-configuration`.
    /// `issuer` must then be a URL. Default: false.
    pub discovery: bool,
    /// Allows http to other machines for `jwks_url`, and with `discovery` for the OpenID
    /// configuration and the key set that it names. It is meant for a provider in the same cluster,
    /// on a network of your own. An attacker who can answer in the provider's place can then make
    /// tokens of any user. Default: `false`.
    pub allow_http: bool,
    /// A file with PEM certificates, the only ones trusted for this issuer's URLs. The file is read
    /// for each fetch. Absent: the certificates of the system's store, or of the environment's
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The tenants of an `issuer` with `{tenantid}`: a token's `iss` must be `issuer` with one of
    /// these in the place of `{tenantid}`. With `discovery`, `common` replaces `{tenantid}` in the
    /// URL. Default: none.
    pub tenants: Vec<String>,
    /// Requires access tokens to state their type by `typ` (`at+jwt`, RFC 9068), which no ID token
    /// does. Default: `false`, tokens with `typ` `JWT` or without one are accepted too.
    pub require_at_jwt: bool,
    /// Lets this issuer end sessions by OpenID Connect Back-Channel Logout, at
    /// `POST /logout/backchannel` of the public listener. Needs `issuer`. Default: `false`.
    pub backchannel_logout: bool,
    /// The sessions that a logout token ends if its `sid` names a login (one sign-in of the user).
    /// `login`: the sessions of that login. Every access token of this issuer must then have the
    /// claim `auth.login_claim`, and sessions that opened before `backchannel_logout` was set end
    /// only if their tokens name the login. `user`: all sessions of the user that began before the
    /// logout; for issuers whose access tokens name no login. Access tokens must have an `iat`.
    /// Default: `login`.
    pub logout_scope: LogoutScope,
    /// The accepted audiences of the issuer's logout tokens, usually the id of a client registered
    /// there: `aud` must be one of these, or a list that contains one of these. A token whose `aud`
    /// has only these audiences, and none of `audience`, is treated as an ID token. Absent:
    /// `audience`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logout_audience: Option<Vec<String>>,
    /// The stream of security events that the issuer may push to `POST /events/<name>` of the
    /// public listener. Such events end the sessions of their subject. Needs `issuer`. Absent:
    /// none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_stream: Option<EventStream>,
    /// Lets this issuer end all of a user's sessions by Global Token Revocation (Okta's Universal
    /// Logout), at `POST /v1/global-token-revocation` of the public listener. Lists the accepted
    /// `aud` of the token with which the issuer authenticates, usually the URL of that endpoint.
    /// Needs `issuer`. Absent: not allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global_token_revocation: Option<Vec<String>>,
    /// The claims of access tokens by which events and Global Token Revocations name users.
    pub subjects: ReportedSubjects,
    /// The name of another issuer, on whose users this issuer reports; tokens of this issuer then
    /// open no sessions. Absent: the issuer reports on its own users.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reports_on: Option<String>,
}

/// Sessions that a logout token ends if it names a login.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogoutScope {
    /// The sessions of that login.
    #[default]
    Login,
    /// All sessions of the user that began before the logout.
    User,
}

impl Issuer {
    /// Returns true if the issuer's keys come in a set, in which a token's `kid` selects the key.
    pub(crate) fn has_key_set(&self) -> bool {
        self.jwks_file.is_some() || self.jwks_url.is_some() || self.discovery
    }

    /// The accepted values of `iss`. Without `issuer` the list is empty, and every `iss` is
    /// accepted.
    pub(crate) fn accepted_issuers(&self) -> Vec<String> {
        match &self.issuer {
            Some(template) if template.contains(TENANT) => {
                let tenants = self.tenants.iter();
                tenants
                    .map(|tenant| template.replace(TENANT, tenant))
                    .collect()
            }
            Some(issuer) => vec![issuer.clone()],
            None => Vec::new(),
        }
    }

    /// The rules for fetching the issuer's URLs.
    pub(crate) fn trust(&self) -> Trust {
        Trust {
            allow_http: self.allow_http,
            ca_file: self.ca_file.clone(),
        }
    }

    /// Returns true if the issuer's access tokens open sessions.
    pub fn opens_sessions(&self) -> bool {
        self.reports_on.is_none()
    }

    /// Returns true if the issuer may report users, by events or by Global Token Revocation.
    pub fn reports(&self) -> bool {
        self.event_stream.is_some() || self.global_token_revocation.is_some()
    }

    /// The configured name of the issuer on whose users this issuer reports.
    pub(crate) fn reported_issuer(&self) -> &str {
        self.reports_on.as_deref().unwrap_or(&self.name)
    }

    /// The accepted audiences of the issuer's logout tokens; `None` if no audience is configured.
    pub fn accepted_logouts(&self) -> Option<&[String]> {
        let audience = self.logout_audience.as_ref().or(self.audience.as_ref());
        audience.map(Vec::as_slice)
    }

    /// The rules for the issuer's logout tokens; `None` if its logout tokens are not accepted.
    pub(crate) fn logout_rules(&self, config: &AuthConfig) -> Option<LogoutRules> {
        let audience = self
            .accepted_logouts()
            .filter(|_| self.backchannel_logout)?;
        Some(LogoutRules {
            audience: audience.to_vec(),
            scope: self.logout_scope,
            numeric_subjects: config.numeric_subjects,
        })
    }

    pub(super) fn check(&self, least_secret_bytes: usize, problems: &mut Problems) {
        if self.backchannel_logout && self.issuer.is_none() {
            problems.report("issuer", "required for backchannel_logout");
        }
        let logout_audience = self.logout_audience.as_ref().or(self.audience.as_ref());
        if self.backchannel_logout && logout_audience.is_none_or(Vec::is_empty) {
            problems.report(
                "logout_audience",
                "required for backchannel_logout if audience is not set: list this application's client id at the issuer",
            );
        }
        if self.backchannel_logout
            && self.logout_audience.is_none()
            && let Some(audience) = &self.audience
        {
            let message = match audience.iter().all(|one| one.contains("://")) {
                true => {
                    "is not set, and audience lists only URLs: the aud of a logout token is the id of the client that users sign in with, so every logout would be refused"
                }
                false => {
                    "is not set, so audience applies to logout tokens: their aud is the id of the client that users sign in with, and every logout is refused if audience does not list that id; curfew doctor compares the two"
                }
            };
            problems.warn("logout_audience", message);
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
        self.check_tenants(problems);
        for (claim, values) in &self.required_claims {
            if claim.is_empty() || NOT_REQUIRED.contains(&claim.as_str()) {
                problems.report(
                    "required_claims",
                    format!("{claim:?} cannot be required: it is not the name of a claim, or other settings check this claim"),
                );
            }
            if values.is_empty() {
                problems.report(
                    "required_claims",
                    format!("{claim} must list at least one value"),
                );
            }
        }
        self.check_key_source(least_secret_bytes, problems);
        self.check_algorithms(problems);
        self.check_reports(problems);
    }

    fn check_tenants(&self, problems: &mut Problems) {
        let issuer = self.issuer.as_deref().unwrap_or_default();
        let is_template = issuer.contains(TENANT);
        if is_template && self.tenants.is_empty() {
            problems.report(
                "tenants",
                "must list the tenants whose tokens are accepted, because issuer contains {tenantid}: the iss of a token has the id of a tenant instead",
            );
        }
        if !is_template && !self.tenants.is_empty() {
            problems.report(
                "tenants",
                "has an effect only if issuer contains {tenantid}: leave tenants out",
            );
        }
        if issuer.replacen(TENANT, "", 1).contains(['{', '}']) {
            problems.report("issuer", "may contain {tenantid} once, and no other braces");
        }
        let is_name = |tenant: &String| !tenant.is_empty() && tenant.bytes().all(is_path_byte);
        if !self.tenants.iter().all(is_name) {
            problems.report(
                "tenants",
                "must list tenant ids as they appear in the iss of tokens: letters, digits and any of -._~",
            );
        }
    }

    fn check_reports(&self, problems: &mut Problems) {
        if self.reports() && self.issuer.is_none() {
            problems.report(
                "issuer",
                "required for event_stream and global_token_revocation",
            );
        }
        if !self.opens_sessions() && self.backchannel_logout {
            problems.report(
                "backchannel_logout",
                "has no effect with reports_on: the issuer's own tokens open no session that a logout could end",
            );
        }
        if self.event_stream.is_some() && !self.name.bytes().all(is_path_byte) {
            problems.report(
                "name",
                "may have only letters, digits and any of -._~ if event_stream is set, because the name is part of the endpoint's path",
            );
        }
        if let Some(stream) = &self.event_stream {
            problems.within("event_stream", |problems| stream.check(problems));
        }
        if let Some(audience) = &self.global_token_revocation
            && (audience.is_empty() || audience.iter().any(String::is_empty))
        {
            problems.report(
                "global_token_revocation",
                "must list at least one audience and none that is empty, usually the endpoint's URL",
            );
        }
        if let Some(assertions) = &self.global_token_revocation {
            let audiences = [&self.audience, &self.logout_audience];
            let mut shared = audiences.into_iter().flatten().flatten();
            if shared.any(|audience| assertions.contains(audience)) {
                problems.report(
                    "global_token_revocation",
                    "must have no value in common with audience and logout_audience: tokens of other types would be accepted as revocation requests",
                );
            }
            if self.opens_sessions() && self.audience.is_none() {
                problems.report(
                    "audience",
                    "required if global_token_revocation is set and reports_on is not: otherwise the tokens of revocation requests would open sessions",
                );
            }
        }
        if !self.reports() && self.subjects != ReportedSubjects::default() {
            problems.report(
                "subjects",
                "has an effect only with event_stream or global_token_revocation, and neither is set",
            );
        }
        problems.within("subjects", |problems| self.subjects.check(problems));
    }

    fn check_key_source(&self, least_secret_bytes: usize, problems: &mut Problems) {
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
        let check_url = |url: &str| check_url(url, self.allow_http);
        if let Some(Err(error)) = self.jwks_url.as_deref().map(check_url) {
            problems.report("jwks_url", error);
        }
        let fetched = self.jwks_url.is_some() || self.discovery;
        for (key, set) in [
            ("allow_http", self.allow_http),
            ("ca_file", self.ca_file.is_some()),
        ] {
            if set && !fetched {
                problems.report(
                    key,
                    "has an effect only with jwks_url or discovery, and neither is set",
                );
            }
        }
        if self.discovery {
            match self
                .issuer
                .as_deref()
                .map(|issuer| check_url(&found_at(issuer)))
            {
                None => problems.report(
                    "issuer",
                    "required for discovery: set it to the URL of the issuer",
                ),
                Some(Err(error)) => {
                    problems.report("issuer", format!("for discovery it {error}"));
                }
                Some(Ok(_)) => {}
            }
        }
        if let Some(secret) = &self.secret
            && secret.expose().len() < least_secret_bytes
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
                "must list at least one algorithm; leave algorithms out to accept those that the key is made for",
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

/// Placeholder for the tenant in `issuer`, as Entra ID writes it.
pub(crate) const TENANT: &str = "{tenantid}";

/// The base URL of an issuer's OpenID configuration. Entra ID serves one configuration for all
/// tenants, in which `common` replaces the tenant.
pub fn found_at(issuer: &str) -> String {
    issuer.replace(TENANT, "common")
}

/// Rules for fetching an issuer's URLs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// Allows http to other machines.
    pub allow_http: bool,
    /// A file with the only trusted certificates; `None` trusts the system's certificates.
    pub ca_file: Option<PathBuf>,
}

/// Parses a URL to fetch keys from. The scheme must be https, or http on this machine or with
/// `allow_http`. Braces are refused: no part of the URL comes from a token, so a placeholder in it
/// would never be replaced.
///
/// # Errors
///
/// The error describes the required form. It is the predicate of a sentence whose subject is "it"
/// or the setting's name.
pub fn check_url(url: &str, allow_http: bool) -> Result<Uri, &'static str> {
    const FORM: &str = "must be an https URL (or an http URL, on this machine or with allow_http = true) without user, fragment or braces";
    if url.contains(['#', '{', '}']) {
        return Err(FORM);
    }
    let uri: Uri = url.parse().map_err(|_| FORM)?;
    let authority = uri.authority().ok_or(FORM)?;
    if authority.as_str().contains('@') || authority.host().is_empty() {
        return Err(FORM);
    }
    // The parser reads a port that is not a number as absent, which would select the default port.
    if authority.port_u16().is_none() && authority.as_str() != authority.host() {
        return Err("must have a port from 1 to 65535, or none");
    }
    match uri.scheme_str() {
        Some("https") => Ok(uri),
        Some("http") if allow_http || is_loopback(authority.host()) => Ok(uri),
        _ => Err(FORM),
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// Returns true for characters that need no escape in a path (RFC 3986 §2.3).
fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}
