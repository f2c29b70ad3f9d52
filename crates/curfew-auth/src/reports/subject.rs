//! Whom a report is about: subject identifiers (RFC 9493), complex subjects (Shared Signals
//! Framework 1.0 §3.3), and what sessions are found by.

use std::borrow::Cow;
use std::sync::Arc;

use curfew_model::{ISSUER_TOKEN, ISSUER_USER, RevocationKey, of_issuer};
use serde_json::{Map, Value};

use crate::AuthError;
use crate::issuers::ReportRules;

/// Longest text of a subject, in bytes.
const MAX_TEXT_BYTES: usize = 1024;

/// Most identifiers of one subject (RFC 9493 §3.2.8).
const MAX_ALIASES: usize = 16;

/// Whose access is to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A user of an issuer, by its configured name.
    User {
        /// Of whom.
        issuer: Arc<str>,
        /// The user.
        user: String,
    },
    /// A token of an issuer.
    Token {
        /// Of whom.
        issuer: Arc<str>,
        /// Its `jti`.
        id: String,
    },
    /// A login: whoever has this value for the claim.
    Login {
        /// The claim.
        claim: String,
        /// Its value.
        value: String,
    },
    /// Whoever has this value for the claim.
    Claim {
        /// The claim.
        claim: String,
        /// Its value.
        value: String,
    },
}

impl Subject {
    /// What sessions are found by. Users and token ids are told apart by issuer: others may have the
    /// same, now or after the next change of the configuration.
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

    /// Whether it can come back by signing in again, so that only tokens from before are meant. A
    /// login that is over has none that are newer, and a token is itself.
    pub fn can_return(&self) -> bool {
        matches!(self, Self::User { .. } | Self::Claim { .. })
    }
}

/// What a subject comes to here.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Sessions can be found by these, all of which mean the same.
    Subjects(Vec<Subject>),
    /// It may well be somebody, whom nothing here can be found by.
    Nowhere(&'static str),
    /// A user of an issuer on whom this one does not report.
    Foreign,
}

impl ReportRules {
    /// Reads a subject. `critical` are the members of a complex one that must mean something here.
    ///
    /// # Errors
    ///
    /// It is no subject identifier.
    pub(super) fn find(&self, subject: &Value, critical: &[String]) -> Result<Found, AuthError> {
        let Some(members) = subject.as_object() else {
            return Err(malformed("the subject is not an object"));
        };
        match format(members).as_deref() {
            // Early CAEP had no name for it.
            Some("complex") | None => self.find_complex(members, critical),
            Some("aliases") => self.find_aliases(members),
            Some(format) => self.find_simple(format, members),
        }
    }

    /// Reads the subject of a Global Token Revocation, which is a user and nothing wider.
    ///
    /// # Errors
    ///
    /// It is none, or in another format.
    pub(super) fn find_user(&self, subject: &Value) -> Result<Found, AuthError> {
        let members = simple(subject)?;
        match format(members).as_deref() {
            Some(format @ ("iss_sub" | "email" | "opaque")) => self.find_simple(format, members),
            _ => Err(malformed(
                "sub_id is none of the formats iss_sub, email and opaque",
            )),
        }
    }

    fn find_simple(&self, format: &str, members: &Map<String, Value>) -> Result<Found, AuthError> {
        Ok(match format {
            "iss_sub" => {
                let (iss, user) = (text(members, "iss")?, self.user(members)?);
                if !self.is_ours(iss) {
                    return Ok(Found::Foreign);
                }
                let claim = self.subjects.user.as_deref();
                self.named_by(claim.unwrap_or(&self.subject_claim), &user)
            }
            "email" => {
                let email = text(members, "email")?;
                match &self.subjects.email {
                    Some(claim) => self.by_email(claim, email),
                    None => Found::Nowhere("access tokens have no claim with an email address"),
                }
            }
            "opaque" => {
                let id = text(members, "id")?;
                match &self.subjects.opaque {
                    Some(claim) => self.named_by(claim, id),
                    None => Found::Nowhere("access tokens have no claim for opaque subjects"),
                }
            }
            "jwt_id" => {
                let (iss, id) = (text(members, "iss")?, text(members, "jti")?);
                match self.is_ours(iss) {
                    true => {
                        let token = |issuer: &Arc<str>| Subject::Token {
                            issuer: Arc::clone(issuer),
                            id: id.to_owned(),
                        };
                        Found::Subjects(self.issuers().map(token).collect())
                    }
                    false => Found::Foreign,
                }
            }
            _ => Found::Nowhere("subjects of this format are not supported"),
        })
    }

    /// RFC 9493 §3.2.8: all of them name the same, so those that mean something here do.
    fn find_aliases(&self, members: &Map<String, Value>) -> Result<Found, AuthError> {
        let identifiers = members.get("identifiers").and_then(Value::as_array);
        let identifiers = identifiers
            .filter(|all| (1..=MAX_ALIASES).contains(&all.len()))
            .ok_or_else(|| malformed("the subject has no list of 1 to 16 identifiers"))?;
        let mut found = Vec::new();
        let mut reason = Found::Foreign;
        for identifier in identifiers {
            match self.find_member(identifier)? {
                Found::Subjects(subjects) => found.extend(subjects),
                other => reason = other,
            }
        }
        match found.is_empty() {
            true => Ok(reason),
            false => Ok(Found::Subjects(found)),
        }
    }

    /// A complex subject is one principal, of whom its members are attributes (§3.3.1). The session
    /// says most exactly which; a tenant is everybody in it, so it must stand alone.
    fn find_complex(
        &self,
        members: &Map<String, Value>,
        critical: &[String],
    ) -> Result<Found, AuthError> {
        // §3.6: whoever goes by one member must be able to go by every critical one.
        let only = |member: &str, found: Found| {
            let mut others = critical.iter().filter(|name| **name != *member);
            match others.any(|name| members.contains_key(name)) {
                true => Found::Nowhere("a critical member of the subject means nothing here"),
                false => found,
            }
        };
        if let (Some(session), Some(claim)) = (members.get("session"), &self.subjects.session) {
            let session = simple(session)?;
            if format(session).as_deref() == Some("opaque") {
                let login = Subject::Login {
                    claim: claim.clone(),
                    value: text(session, "id")?.to_owned(),
                };
                return Ok(only("session", Found::Subjects(vec![login])));
            }
        }
        if let Some(user) = members.get("user") {
            return Ok(only("user", self.find_member(user)?));
        }
        let narrower = ["session", "device", "application", "group", "org_unit"];
        if narrower.iter().any(|name| members.contains_key(*name)) {
            return Ok(Found::Nowhere(
                "nothing here is found by what the subject names",
            ));
        }
        match (members.get("tenant"), &self.subjects.tenant) {
            (Some(tenant), Some(claim)) => {
                let tenant = simple(tenant)?;
                let found = match format(tenant).as_deref() {
                    Some("opaque") => self.named_by(claim, text(tenant, "id")?),
                    Some("iss_sub") if !self.is_ours(text(tenant, "iss")?) => Found::Foreign,
                    Some("iss_sub") => self.named_by(claim, text(tenant, "sub")?),
                    _ => Found::Nowhere("tenants are found by opaque ids only"),
                };
                Ok(only("tenant", found))
            }
            (Some(_), None) => Ok(Found::Nowhere("access tokens have no claim for tenants")),
            (None, _) => Err(malformed("the subject names nobody")),
        }
    }

    /// A member of a subject, which is a simple one.
    fn find_member(&self, member: &Value) -> Result<Found, AuthError> {
        let members = simple(member)?;
        match format(members) {
            Some(format) => self.find_simple(&format, members),
            None => Err(malformed("the subject has no format")),
        }
    }

    /// The `sub` of a subject: a text or, with `auth.numeric_subjects`, an integer, as in the tokens of a
    /// provider that numbers its users.
    fn user<'a>(&self, members: &'a Map<String, Value>) -> Result<Cow<'a, str>, AuthError> {
        match members.get("sub") {
            Some(Value::Number(number)) if self.numeric_subjects && !number.is_f64() => {
                Ok(Cow::Owned(number.to_string()))
            }
            // -0, which JSON's readers take for a number with a point.
            Some(Value::Number(number))
                if self.numeric_subjects && number.as_f64() == Some(0.0) =>
            {
                Ok(Cow::Borrowed("0"))
            }
            Some(Value::Number(_)) => Err(malformed(
                "the subject's sub is not a string; auth.numeric_subjects takes integers of 64 bits as well",
            )),
            _ => text(members, "sub").map(Cow::Borrowed),
        }
    }

    fn is_ours(&self, iss: &str) -> bool {
        self.namespaces.iter().any(|known| known == iss)
    }

    fn named_by(&self, claim: &str, value: &str) -> Found {
        Found::Subjects(self.subjects(claim, value))
    }

    /// As it was written, and in lower case, which is a key of every session with that address.
    fn by_email(&self, claim: &str, email: &str) -> Found {
        let mut subjects = self.subjects(claim, email);
        let lower = email.to_lowercase();
        if lower != email {
            subjects.extend(self.subjects(claim, &lower));
        }
        Found::Subjects(subjects)
    }

    fn subjects(&self, claim: &str, value: &str) -> Vec<Subject> {
        let (claim, value) = (claim.to_owned(), value.to_owned());
        if *claim == *self.subject_claim {
            let user = |issuer: &Arc<str>| Subject::User {
                issuer: Arc::clone(issuer),
                user: value.clone(),
            };
            return self.issuers().map(user).collect();
        }
        vec![match self.subjects.session.as_ref() == Some(&claim) {
            true => Subject::Login { claim, value },
            false => Subject::Claim { claim, value },
        }]
    }

    /// The issuer that is reported on, and those with the same `iss`.
    fn issuers(&self) -> impl Iterator<Item = &Arc<str>> {
        [&self.about].into_iter().chain(&self.namesakes)
    }
}

/// The name of a subject's format. Google's events still say `subject_type`, with hyphens.
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
            "the subject has no {name}, a text of 1 to 1024 bytes"
        ))),
    }
}

fn malformed(message: impl Into<Cow<'static, str>>) -> AuthError {
    AuthError::malformed(message)
}

#[cfg(test)]
mod tests;
