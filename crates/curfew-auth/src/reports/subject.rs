//! The subjects of reports: subject identifiers (RFC 9493), complex subjects (Shared Signals
//! Framework 1.0 §3.3), and the revocation keys by which sessions are found.

use std::borrow::Cow;
use std::sync::Arc;

use curfew_model::{ISSUER_TOKEN, ISSUER_USER, RevocationKey, of_issuer};
use serde_json::{Map, Value};

use crate::AuthError;
use crate::issuers::ReportRules;

/// Longest text of a subject, in bytes.
const MAX_TEXT_BYTES: usize = 1024;

/// Maximum number of identifiers of one subject (RFC 9493 §3.2.8).
const MAX_ALIASES: usize = 16;

/// A user, token or login whose access is to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReportSubject {
    /// A user of an issuer.
    User {
        /// The configured name of the user's issuer.
        issuer: Arc<str>,
        /// The user.
        user: String,
    },
    /// A token of an issuer.
    Token {
        /// The configured name of the token's issuer.
        issuer: Arc<str>,
        /// The token's `jti`.
        id: String,
    },
    /// A login: all tokens with this value of the claim.
    Login {
        /// The claim.
        claim: String,
        /// The value of the claim.
        value: String,
    },
    /// All tokens with this value of the claim.
    Claim {
        /// The claim.
        claim: String,
        /// The value of the claim.
        value: String,
    },
}

impl ReportSubject {
    /// The revocation key by which sessions are found. The key of a user or a token id includes the
    /// issuer, because another issuer may have the same user or token id, now or after a reload.
    pub fn key(&self) -> RevocationKey {
        match self {
            Self::User { issuer, user } => {
                RevocationKey::claim(ISSUER_USER, &of_issuer(issuer, user))
            }
            Self::Token { issuer, id } => {
                RevocationKey::claim(ISSUER_TOKEN, &of_issuer(issuer, id))
            }
            Self::Login { claim, value } | Self::Claim { claim, value } => {
                RevocationKey::claim(claim, value)
            }
        }
    }

    /// Returns true if the subject can get new tokens by a new sign-in. A revocation of such a
    /// subject must end only the older tokens. An ended login gets no new tokens, and a single
    /// token has no successor.
    pub fn can_return(&self) -> bool {
        matches!(self, Self::User { .. } | Self::Claim { .. })
    }
}

/// Result of a search for the subjects of a report.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SubjectMatch {
    /// The subjects by which sessions can be found. All of them name the same user, token or login.
    Subjects(Vec<ReportSubject>),
    /// A well-formed subject by which no session can be found. The reason is for operators.
    Nowhere(&'static str),
    /// A user, token or tenant of an issuer on whose users the sender does not report.
    Foreign,
}

impl ReportRules {
    /// Finds the subjects of a report. Only one member of a complex subject is used. If `critical`
    /// names another member of the subject, the result is [`SubjectMatch::Nowhere`].
    ///
    /// # Errors
    ///
    /// The value is not a subject identifier.
    pub(super) fn find(
        &self,
        subject: &Value,
        critical: &[String],
    ) -> Result<SubjectMatch, AuthError> {
        let Some(members) = subject.as_object() else {
            return Err(malformed("the subject is not an object"));
        };
        match format(members).as_deref() {
            // Early drafts of CAEP have complex subjects without a format.
            Some("complex") | None => self.find_complex(members, critical),
            Some("aliases") => self.find_aliases(members),
            Some(format) => self.find_simple(format, members),
        }
    }

    /// Finds the subject of a Global Token Revocation, which must be a single user.
    ///
    /// # Errors
    ///
    /// The value is not a subject identifier, or its format is not one of `iss_sub`, `email` and
    /// `opaque`.
    pub(super) fn find_user(&self, subject: &Value) -> Result<SubjectMatch, AuthError> {
        let members = simple(subject)?;
        match format(members).as_deref() {
            Some(format @ ("iss_sub" | "email" | "opaque")) => self.find_simple(format, members),
            _ => Err(malformed(
                "sub_id must have the format iss_sub, email or opaque",
            )),
        }
    }

    fn find_simple(
        &self,
        format: &str,
        members: &Map<String, Value>,
    ) -> Result<SubjectMatch, AuthError> {
        Ok(match format {
            "iss_sub" => {
                let (iss, user) = (text(members, "iss")?, self.user(members)?);
                if !self.is_ours(iss) {
                    return Ok(SubjectMatch::Foreign);
                }
                let claim = self.subjects.user.as_deref();
                self.named_by(claim.unwrap_or(&self.subject_claim), &user)
            }
            "email" => {
                let email = text(members, "email")?;
                match &self.subjects.email {
                    Some(claim) => self.by_email(claim, email),
                    None => SubjectMatch::Nowhere(
                        "no claim of access tokens is configured for email addresses (subjects.email)",
                    ),
                }
            }
            "opaque" => {
                let id = text(members, "id")?;
                match &self.subjects.opaque {
                    Some(claim) => self.named_by(claim, id),
                    None => SubjectMatch::Nowhere(
                        "no claim of access tokens is configured for opaque subjects (subjects.opaque)",
                    ),
                }
            }
            "jwt_id" => {
                let (iss, id) = (text(members, "iss")?, text(members, "jti")?);
                match self.is_ours(iss) {
                    true => {
                        let token = |issuer: &Arc<str>| ReportSubject::Token {
                            issuer: Arc::clone(issuer),
                            id: id.to_owned(),
                        };
                        SubjectMatch::Subjects(self.issuers().map(token).collect())
                    }
                    false => SubjectMatch::Foreign,
                }
            }
            _ => SubjectMatch::Nowhere("the subject's format is not supported"),
        })
    }

    /// Finds the subjects by the identifiers that are supported here. These suffice, because all
    /// identifiers name the same subject (RFC 9493 §3.2.8).
    fn find_aliases(&self, members: &Map<String, Value>) -> Result<SubjectMatch, AuthError> {
        let identifiers = members.get("identifiers").and_then(Value::as_array);
        let identifiers = identifiers
            .filter(|all| (1..=MAX_ALIASES).contains(&all.len()))
            .ok_or_else(|| malformed("the subject has no list of 1 to 16 identifiers"))?;
        let mut found = Vec::new();
        let mut reason = SubjectMatch::Foreign;
        for identifier in identifiers {
            match self.find_member(identifier)? {
                SubjectMatch::Subjects(subjects) => found.extend(subjects),
                other => reason = other,
            }
        }
        match found.is_empty() {
            true => Ok(reason),
            false => Ok(SubjectMatch::Subjects(found)),
        }
    }

    /// Finds the subjects of a complex subject, whose members describe one principal (§3.3.1). The
    /// member `session` is preferred, because it is the most exact. The member `tenant` is used
    /// only if there is no narrower member, because a tenant contains many users.
    fn find_complex(
        &self,
        members: &Map<String, Value>,
        critical: &[String],
    ) -> Result<SubjectMatch, AuthError> {
        // §3.6: a receiver must understand every critical member, not only the member that it uses.
        let only = |member: &str, found: SubjectMatch| {
            let mut others = critical.iter().filter(|name| **name != *member);
            match others.any(|name| members.contains_key(name)) {
                true => SubjectMatch::Nowhere(
                    "the subject has a critical member that this gateway does not use",
                ),
                false => found,
            }
        };
        if let (Some(session), Some(claim)) = (members.get("session"), &self.subjects.session) {
            let session = simple(session)?;
            if format(session).as_deref() == Some("opaque") {
                let login = ReportSubject::Login {
                    claim: claim.clone(),
                    value: text(session, "id")?.to_owned(),
                };
                return Ok(only("session", SubjectMatch::Subjects(vec![login])));
            }
        }
        if let Some(user) = members.get("user") {
            return Ok(only("user", self.find_member(user)?));
        }
        let narrower = ["session", "device", "application", "group", "org_unit"];
        if narrower.iter().any(|name| members.contains_key(*name)) {
            return Ok(SubjectMatch::Nowhere(
                "the subject's members cannot be used to find sessions",
            ));
        }
        match (members.get("tenant"), &self.subjects.tenant) {
            (Some(tenant), Some(claim)) => {
                let tenant = simple(tenant)?;
                let found = match format(tenant).as_deref() {
                    Some("opaque") => self.named_by(claim, text(tenant, "id")?),
                    Some("iss_sub") if !self.is_ours(text(tenant, "iss")?) => SubjectMatch::Foreign,
                    Some("iss_sub") => self.named_by(claim, text(tenant, "sub")?),
                    _ => SubjectMatch::Nowhere(
                        "the subject's tenant must have the format opaque or iss_sub",
                    ),
                };
                Ok(only("tenant", found))
            }
            (Some(_), None) => Ok(SubjectMatch::Nowhere(
                "no claim of access tokens is configured for tenants (subjects.tenant)",
            )),
            (None, _) => Err(malformed(
                "the subject has no member that names a user, a session or a tenant",
            )),
        }
    }

    /// Finds the subjects of a simple subject, which is a member of a complex subject or one of the
    /// identifiers of an aliases subject.
    fn find_member(&self, member: &Value) -> Result<SubjectMatch, AuthError> {
        let members = simple(member)?;
        match format(members) {
            Some(format) => self.find_simple(&format, members),
            None => Err(malformed("the subject has no format")),
        }
    }

    /// The `sub` of a subject: a text or, with `auth.numeric_subjects`, an integer. Providers that
    /// number their users write integers into tokens too.
    fn user<'a>(&self, members: &'a Map<String, Value>) -> Result<Cow<'a, str>, AuthError> {
        match members.get("sub") {
            Some(Value::Number(number)) if self.numeric_subjects && !number.is_f64() => {
                Ok(Cow::Owned(number.to_string()))
            }
            // JSON parsers read -0 as a floating-point number.
            Some(Value::Number(number))
                if self.numeric_subjects && number.as_f64() == Some(0.0) =>
            {
                Ok(Cow::Borrowed("0"))
            }
            Some(Value::Number(_)) => Err(malformed(
                "the subject's sub is not a string; auth.numeric_subjects allows integers of 64 bits too",
            )),
            _ => text(members, "sub").map(Cow::Borrowed),
        }
    }

    fn is_ours(&self, iss: &str) -> bool {
        self.namespaces.iter().any(|known| known == iss)
    }

    fn named_by(&self, claim: &str, value: &str) -> SubjectMatch {
        SubjectMatch::Subjects(self.subjects(claim, value))
    }

    /// Finds the subjects with an email address as written, and with the address in lower case,
    /// because sessions are indexed under the lower-case address too.
    fn by_email(&self, claim: &str, email: &str) -> SubjectMatch {
        let mut subjects = self.subjects(claim, email);
        let lower = email.to_lowercase();
        if lower != email {
            subjects.extend(self.subjects(claim, &lower));
        }
        SubjectMatch::Subjects(subjects)
    }

    fn subjects(&self, claim: &str, value: &str) -> Vec<ReportSubject> {
        let (claim, value) = (claim.to_owned(), value.to_owned());
        if *claim == *self.subject_claim {
            let user = |issuer: &Arc<str>| ReportSubject::User {
                issuer: Arc::clone(issuer),
                user: value.clone(),
            };
            return self.issuers().map(user).collect();
        }
        vec![match self.subjects.session.as_ref() == Some(&claim) {
            true => ReportSubject::Login { claim, value },
            false => ReportSubject::Claim { claim, value },
        }]
    }

    /// The issuer whose users are reported, and the other issuers with the same `iss`.
    fn issuers(&self) -> impl Iterator<Item = &Arc<str>> {
        [&self.about].into_iter().chain(&self.namesakes)
    }
}

/// The name of a subject's format. Google's events call the member `subject_type`, and write the
/// name with hyphens.
fn format(members: &Map<String, Value>) -> Option<String> {
    let format = members
        .get("format")
        .or_else(|| members.get("subject_type"));
    Some(format?.as_str()?.replace('-', "_"))
}

fn simple(member: &Value) -> Result<&Map<String, Value>, AuthError> {
    let members = member.as_object();
    members.ok_or_else(|| malformed("a member of the subject is not an object"))
}

fn text<'a>(members: &'a Map<String, Value>, name: &str) -> Result<&'a str, AuthError> {
    match members.get(name).and_then(Value::as_str) {
        Some(text) if (1..=MAX_TEXT_BYTES).contains(&text.len()) => Ok(text),
        _ => Err(malformed(format!(
            "the subject has no member {name} with a text of 1 to 1024 bytes"
        ))),
    }
}

fn malformed(message: impl Into<Cow<'static, str>>) -> AuthError {
    AuthError::malformed(message)
}

#[cfg(test)]
mod tests;
