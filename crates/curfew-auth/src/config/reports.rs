//! Reports that an issuer may send, and the claims by which they name users: `event_stream`,
//! `global_token_revocation` and `subjects` of `[[auth.issuers]]`.

use std::path::PathBuf;

use curfew_model::{Problems, RevocationKey, Secret};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::AuthConfig;

/// Minimum size of a stream's `Authorization` value. A shorter value could be guessed.
const MIN_AUTHORIZATION_BYTES: usize = 16;

/// The claims of access tokens by which reports name users and logins (RFC 9493, Shared Signals
/// Framework 1.0 §3). Every access token must have each configured claim, because reports could not
/// find the token's session otherwise. Reports find only sessions that open or refresh after the
/// claim is configured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReportedSubjects {
    /// The claim that holds the `sub` of an `iss_sub` subject. Absent: `auth.subject_claim`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The claim that holds the address of an `email` subject. Case is ignored, unless the
    /// claim is `auth.subject_claim`. Absent: such subjects are not found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// The claim that holds the `id` of an `opaque` subject, whose meaning the reporter defines.
    /// Absent: such subjects are not found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opaque: Option<String>,
    /// The claim that holds the `id` of the `session` of a complex subject. Absent: an event with
    /// such a subject ends all earlier sessions of the user instead, if it names the user too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The claim that holds the `id` of the `tenant` of a complex subject that names nothing else.
    /// Absent: such subjects are not found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

/// The stream of security events that an issuer pushes to `POST /events/<name of the issuer>` of
/// the public listener (RFC 8935; Shared Signals Framework 1.0, CAEP 1.0, RISC 1.0).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EventStream {
    /// The accepted audiences of the stream's events: `aud` must be one of these, or a list that
    /// contains one of these.
    pub audience: Vec<String>,
    /// The required value of each request's `Authorization` header, with its scheme, such as
    /// `Bearer`. The transmitter gets it as `authorization_header`. Absent: any value is accepted,
    /// and only the signature identifies the sender.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorization: Option<Secret>,
    /// A file with the value of `authorization`. One line break at its end is ignored. The file is
    /// read for each request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorization_file: Option<PathBuf>,
    /// Further events that end access, beside revoked sessions, changed passwords and PINs, and
    /// disabled and purged accounts. Default: none.
    pub revoke_on: Vec<Signal>,
    /// The members of a complex subject that the transmitter declares critical. An event with a
    /// critical member that is not supported here is acknowledged without effect.
    pub critical_members: Vec<String>,
    /// The expected `state` of verification events. A verification event with another state is
    /// refused; one without a state is always accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verification_state: Option<String>,
    /// Also accepts requests without `Content-Type`, or with `application/jwt`. Default: `false`.
    pub lenient: bool,
}

/// An event that ends access if configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Signal {
    /// A credential other than a password or PIN was revoked, updated, deleted or compromised.
    AnyCredential,
    /// The assurance level of the user's authentication decreased.
    AssuranceDecrease,
    /// A device of the user is no longer compliant.
    DeviceNotCompliant,
    /// The user's risk level became high.
    HighRisk,
}

impl ReportedSubjects {
    /// The configured claims.
    pub(crate) fn claims(&self) -> impl Iterator<Item = &str> {
        let all = [
            &self.user,
            &self.email,
            &self.opaque,
            &self.session,
            &self.tenant,
        ];
        all.into_iter().filter_map(|claim| claim.as_deref())
    }

    pub(super) fn check(&self, problems: &mut Problems) {
        for (key, claim) in [
            ("user", &self.user),
            ("email", &self.email),
            ("opaque", &self.opaque),
            ("session", &self.session),
            ("tenant", &self.tenant),
        ] {
            match claim.as_deref() {
                Some(claim) if !RevocationKey::can_be_kind(claim) => {
                    problems.report(key, "must name a claim, without \":\" and braces");
                }
                Some(claim) if RevocationKey::is_reserved_kind(claim) => problems.report(
                    key,
                    format!("{claim} is the name of a kind of revocation: choose another claim"),
                ),
                _ => {}
            }
        }
    }
}

impl EventStream {
    pub(super) fn check(&self, problems: &mut Problems) {
        if self.audience.is_empty() || self.audience.iter().any(String::is_empty) {
            problems.report(
                "audience",
                "must list at least one audience and none that is empty: the aud of the transmitter's event tokens",
            );
        }
        if self.authorization.is_some() && self.authorization_file.is_some() {
            problems.report(
                "authorization",
                "set authorization or authorization_file, not both",
            );
        }
        if let Some(authorization) = &self.authorization
            && authorization.expose().len() < MIN_AUTHORIZATION_BYTES
        {
            problems.report("authorization", "must have at least 16 bytes");
        }
        if self.verification_state.as_deref() == Some("") {
            problems.report("verification_state", "must not be empty");
        }
    }

    /// Reports an `authorization_file` that cannot be used.
    pub(crate) fn check_file(&self, problems: &mut Problems) {
        let Some(path) = &self.authorization_file else {
            return;
        };
        if let Err(error) = self.expected_authorization() {
            problems.report("authorization_file", format!("{}: {error}", path.display()));
        }
    }

    /// The required value of each request's `Authorization` header; `None` accepts any value.
    /// Blocks on reading a file.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or has fewer than 16 bytes.
    pub fn expected_authorization(&self) -> std::io::Result<Option<Secret>> {
        match &self.authorization_file {
            None => Ok(self.authorization.clone()),
            Some(path) => {
                let text = std::fs::read_to_string(path)?;
                let text = without_line_break(&text);
                // A file that is being replaced may be empty for a moment. An empty value must not
                // open the endpoint to everyone.
                match text.len() >= MIN_AUTHORIZATION_BYTES {
                    true => Ok(Some(Secret::new(text))),
                    false => Err(std::io::Error::other("must have at least 16 bytes")),
                }
            }
        }
    }
}

fn without_line_break(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

impl AuthConfig {
    /// Returns true if some issuer may report users, by a logout, an event or a revocation.
    pub fn reports_users(&self) -> bool {
        let mut issuers = self.issuers.iter();
        issuers.any(|issuer| issuer.backchannel_logout || issuer.reports())
    }

    /// The claims by which reports name users and logins, except `auth.subject_claim`. Sessions
    /// must be found by each of these claims.
    pub fn reported_claims(&self) -> Vec<&str> {
        let mut claims = Vec::new();
        for issuer in &self.issuers {
            let login = Some(self.login_claim.as_str()).filter(|_| issuer.backchannel_logout);
            let subjects = issuer.subjects.claims().filter(|_| issuer.reports());
            for claim in login.into_iter().chain(subjects) {
                if claim != self.subject_claim && !claims.contains(&claim) {
                    claims.push(claim);
                }
            }
        }
        claims
    }
}
