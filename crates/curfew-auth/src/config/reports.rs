//! What an issuer may report, and by what it names people: `event_stream`,
//! `global_token_revocation` and `subjects` of `[[auth.issuers]]`.

use std::path::PathBuf;

use curfew_model::{Problems, RevocationKey, Secret};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::AuthConfig;

/// Shorter than this a value of `Authorization` could be guessed.
const MIN_AUTHORIZATION_BYTES: usize = 16;

/// Which claims of access tokens hold what reports name people and logins by (RFC 9493, Shared
/// Signals Framework 1.0 §3). Each that is given must be in every access token, which would
/// otherwise not be found by it; sessions are found that open, or refresh, after this was configured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReportedSubjects {
    /// The claim that holds the `sub` of an `iss_sub` subject. Absent: `auth.subject_claim`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The claim that holds an `email` subject's address; upper and lower case are the same, unless it
    /// is `auth.subject_claim`. Absent: such subjects are not found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// The claim that holds the `id` of an `opaque` subject, whatever the reporter means by it.
    /// Absent: such subjects are not found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opaque: Option<String>,
    /// The claim that holds the `id` of the `session` of a complex subject. Absent: such events end
    /// all of the user's sessions from before instead, if they name the user as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The claim that holds the `id` of the `tenant` of a complex subject that names nothing else.
    /// Absent: such subjects are not found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

/// The stream of security events that an issuer pushes to `POST /events/<name of the issuer>` of the
/// public listener (RFC 8935; Shared Signals Framework 1.0, CAEP 1.0, RISC 1.0).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EventStream {
    /// What the `aud` of its events must be, or hold, one of.
    pub audience: Vec<String>,
    /// What each request's `Authorization` must be, as it was given to the transmitter as
    /// `authorization_header`; with its scheme, such as `Bearer`. Absent: any, the signature alone
    /// says who sends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorization: Option<Secret>,
    /// A file with that value. One line break at its end does not count. Read for each request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorization_file: Option<PathBuf>,
    /// What else ends access, beside revoked sessions, changed passwords and PINs, disabled and
    /// purged accounts. Default: none.
    pub revoke_on: Vec<Signal>,
    /// The members of a complex subject that the transmitter's configuration calls critical: an event
    /// with one that means nothing here is acknowledged and has no effect.
    pub critical_members: Vec<String>,
    /// The `state` of verification events that were asked for. A verification event with another is
    /// refused; one without is always good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verification_state: Option<String>,
    /// Whether requests without `Content-Type`, or with `application/jwt`, are accepted as well.
    /// Default: `false`.
    pub lenient: bool,
}

/// An event that can be made to end access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Signal {
    /// Any credential, not a password or PIN alone, was revoked, updated or deleted.
    AnyCredential,
    /// The user is authenticated less surely than before.
    AssuranceDecrease,
    /// A device of the user's is not compliant any more.
    DeviceNotCompliant,
    /// The risk has become high.
    HighRisk,
}

impl ReportedSubjects {
    /// Every claim that is named.
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
                    format!("{claim} is a kind of revocation already, and no claim can be one"),
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
                "must list at least one audience and none that is empty: what the transmitter puts into aud",
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

    /// Reports a file that cannot be used.
    pub(crate) fn check_file(&self, problems: &mut Problems) {
        let Some(path) = &self.authorization_file else {
            return;
        };
        if let Err(error) = self.expected_authorization() {
            problems.report("authorization_file", format!("{}: {error}", path.display()));
        }
    }

    /// What each request's `Authorization` must be, if anything. Blocks on reading a file.
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
                // One that is being replaced may be empty: that is no agreement to accept nothing.
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
    /// Whether some issuer may report users, by a logout, an event or a revocation.
    pub fn reports_users(&self) -> bool {
        let mut issuers = self.issuers.iter();
        issuers.any(|issuer| issuer.backchannel_logout || issuer.reports())
    }

    /// Claims that sessions must be found by, since reports name people and logins by them.
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
