//! A token's claims. Their types are checked here. `verify_claims` and `verify_kind` check their
//! values.

use std::borrow::Cow;
use std::sync::Arc;

use curfew_model::json::Scanned;

use super::json::{self, Date, Flaw, Members, Value};
use crate::{AuthConfig, AuthError};

/// The claims that are read from a token. `None` means that the token has no such member; a member
/// of the wrong type, `null` included, is refused.
pub(crate) struct TokenClaims<'a> {
    pub(crate) issuer: Option<Cow<'a, str>>,
    pub(crate) subject: Option<Cow<'a, str>>,
    pub(crate) audience: Option<Vec<Cow<'a, str>>>,
    pub(crate) expires_at: Option<Date>,
    pub(crate) not_before: Option<Date>,
    pub(crate) issued_at: Option<Date>,
    pub(crate) token_id: Option<Cow<'a, str>>,
    /// The Centrifuge claim `expire_at`, which ends the session before `exp`; `None` if absent or
    /// 0.
    pub(crate) ends_at: Option<Date>,
    /// The Centrifuge claims of a subscription token.
    pub(crate) subscription: SubscriptionClaims<'a>,
    kind: Kind<'a>,
}

/// The claims that bind a subscription token to a channel and a session.
#[derive(Default)]
pub(crate) struct SubscriptionClaims<'a> {
    /// The channel of the subscription.
    pub(crate) channel: Option<Cow<'a, str>>,
    /// The session that may subscribe; `None` if any session of the user may.
    pub(crate) client: Option<Cow<'a, str>>,
}

/// The rules by which claims are read.
#[derive(Debug, Clone)]
pub(crate) struct ClaimRules {
    /// The claim that names the user.
    pub(crate) subject_claim: Arc<str>,
    /// `auth.numeric_subjects`.
    numeric_subjects: bool,
    /// True if a token without a user is accepted.
    pub(crate) allows_no_user: bool,
    /// The Centrifuge claims that are read.
    centrifuge: Centrifuge,
}

/// The Centrifuge claims that are read in addition to the registered claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Centrifuge {
    /// No Centrifuge claim, because the protocol is disabled. Applications may use the names for
    /// other claims.
    None,
    /// The claims of a token that opens a session.
    Connection,
    /// The claims of a token that opens a subscription.
    Subscription,
}

impl ClaimRules {
    /// The rules for tokens that open sessions.
    pub(crate) fn of(config: &AuthConfig) -> Self {
        Self {
            subject_claim: config.subject_claim.as_str().into(),
            numeric_subjects: config.numeric_subjects,
            allows_no_user: config.centrifuge_claims && config.anonymous,
            centrifuge: match config.centrifuge_claims {
                true => Centrifuge::Connection,
                false => Centrifuge::None,
            },
        }
    }

    /// The rules for tokens that open subscriptions. Such a token need not name a user, because it
    /// may be for an anonymous session.
    pub(crate) fn of_subscriptions(&self) -> Self {
        Self {
            allows_no_user: true,
            centrifuge: Centrifuge::Subscription,
            ..self.clone()
        }
    }
}

/// Claims that distinguish other types of tokens from access tokens.
#[derive(Default)]
struct Kind<'a> {
    /// True if the token has `at_hash` or `c_hash`. ID tokens have these claims, which are the
    /// hashes of the access token and of the code that are issued with the ID token (OpenID Connect
    /// Core 1.0 §3.1.3.6, §3.3.2.11). Dex's access tokens have an `at_hash` too, so they cannot be
    /// distinguished from Dex's ID tokens.
    has_hash: bool,
    /// True if the token has `nonce`, which an ID token copies from the authentication request
    /// (OpenID Connect Core 1.0 §2). Keycloak's access tokens have a `nonce` too, before version 25
    /// and in later versions with the mapper for older clients. Their `typ` claim is `Bearer`. Dex
    /// and authentik put `nonce` in access tokens and in ID tokens, without a claim that states the
    /// type.
    has_nonce: bool,
    /// Keycloak's type: `Bearer`, `ID`, `Refresh`, `Offline`, `Logout`.
    typ: Option<Cow<'a, str>>,
    /// Cognito's type: `access` or `id`.
    token_use: Option<Cow<'a, str>>,
}

/// A type of token other than an access token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OtherKind {
    /// An ID token, meant for the client that signed the user in.
    Id,
    /// A token meant for the issuer alone.
    Internal,
}

struct Reading<'a, 's> {
    claims: TokenClaims<'a>,
    rules: &'s ClaimRules,
}

impl<'a> TokenClaims<'a> {
    /// Reads the payload's JSON text. Claims that this module does not read may have any type.
    pub(crate) fn parse(text: &'a str, rules: &ClaimRules) -> Result<(Self, Scanned), AuthError> {
        let mut reading = Reading {
            claims: Self {
                issuer: None,
                subject: None,
                audience: None,
                expires_at: None,
                not_before: None,
                issued_at: None,
                token_id: None,
                ends_at: None,
                subscription: SubscriptionClaims::default(),
                kind: Kind::default(),
            },
            rules,
        };
        match json::read(text, &mut reading) {
            Ok(scanned) => Ok((reading.claims, scanned)),
            Err(flaw) => Err(AuthError::malformed(flaw.unwrap_or(Cow::Borrowed(
                "the token's payload is not a JSON object, repeats a name or is nested deeper than 16 levels",
            )))),
        }
    }
}

impl TokenClaims<'_> {
    /// The type of this token, if the claims show that the token is not an access token.
    /// `says_access` is true if the header states an access token (RFC 9068 §2.1); a `nonce` is
    /// then allowed.
    pub(crate) fn other_kind(&self, says_access: bool) -> Option<OtherKind> {
        let kind = &self.kind;
        let typ = kind.typ.as_deref();
        if matches!(typ, Some("Refresh" | "Offline" | "Logout")) {
            return Some(OtherKind::Internal);
        }
        let is_id = kind.has_hash
            || typ == Some("ID")
            || kind.token_use.as_deref() == Some("id")
            || kind.has_nonce && !says_access && typ != Some("Bearer");
        is_id.then_some(OtherKind::Id)
    }
}

impl<'a> Members<'a> for Reading<'a, '_> {
    fn member(&mut self, name: &str, value: Value<'a>) -> Result<(), Flaw> {
        let rules = self.rules;
        let claims = &mut self.claims;
        match name {
            "exp" => claims.expires_at = Some(Date::read(name, value)?),
            "nbf" => claims.not_before = Some(Date::read(name, value)?),
            "iat" => claims.issued_at = Some(Date::read(name, value)?),
            "iss" => claims.issuer = Some(json::text(name, value)?),
            "aud" => claims.audience = Some(json::texts(name, value)?),
            "jti" => claims.token_id = Some(json::text(name, value)?),
            "events" => {
                return Err(
                    "tokens that report security events (events) are not access tokens".into(),
                );
            }
            "cnf" => return Err("sender-constrained tokens (cnf) are not supported".into()),
            name if *name == *rules.subject_claim => {
                claims.subject = Some(json::subject(name, value, rules.numeric_subjects)?);
            }
            "sub" => drop(json::subject(name, value, rules.numeric_subjects)?),
            "expire_at" if rules.centrifuge != Centrifuge::None => {
                // In the upstream protocol, 0 means "never". Here no claim can make a token valid
                // forever, so 0 counts as absent.
                claims.ends_at = Some(Date::read(name, value)?).filter(|date| date.up() > 0);
            }
            "channel" if rules.centrifuge == Centrifuge::Connection => {
                return Err(
                    "this is a subscription token (it has a channel claim): send the connection token"
                        .into(),
                );
            }
            "channel" if rules.centrifuge == Centrifuge::Subscription => {
                claims.subscription.channel = Some(json::text(name, value)?);
            }
            "client" if rules.centrifuge == Centrifuge::Subscription => {
                claims.subscription.client = Some(json::text(name, value)?);
            }
            "typ" => claims.kind.typ = value.as_str(),
            "token_use" => claims.kind.token_use = value.as_str(),
            "at_hash" | "c_hash" => claims.kind.has_hash = true,
            "nonce" => claims.kind.has_nonce = true,
            _ => {}
        }
        Ok(())
    }
}
