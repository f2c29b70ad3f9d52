//! Compares a logout with the sessions that it should end: OpenID Connect Back-Channel Logout 1.0
//! §2.4 and §2.6.

use curfew_auth::{AuthConfig, AuthError, Issuer, Logout, LogoutScope};

use super::findings::Findings;
use super::{Shown, said, unknown_issuer};

/// The tokens of one login.
pub(super) struct Tokens<'a> {
    pub(super) access: Option<&'a Shown>,
    pub(super) id: Option<&'a Shown>,
    pub(super) logout: Option<&'a Shown>,
}

impl<'a> Tokens<'a> {
    /// Reports the verdict on the logout token itself.
    pub(super) fn judge_logout(
        &self,
        judged: Result<Logout, AuthError>,
        config: &AuthConfig,
        findings: &mut Findings,
    ) {
        match judged {
            Ok(logout) => findings.good(format!(
                "the logout token is accepted for the issuer {:?}",
                logout.issuer
            )),
            Err(error) => {
                let change = match (error.detail(), self.logout) {
                    (Some(detail), _) => detail.to_owned(),
                    (None, Some(logout)) if is_shared_secret(logout) => by_secret(logout),
                    (None, Some(logout)) if logout.issuer(config).is_none() => {
                        unknown_issuer(logout, config)
                    }
                    _ => "change how the provider makes logout tokens; a logout token that is older than ten minutes is refused as well".to_owned(),
                };
                findings.bad(
                    format!("the logout token is refused: {}", error.message()),
                    change,
                );
            }
        }
    }

    /// Compares the claims of a logout with the claims of sessions.
    pub(super) fn compare(&self, config: &AuthConfig, findings: &mut Findings) {
        let Some(of_login) = self.logout.or(self.id) else {
            return;
        };
        let Some((index, issuer)) = of_login.issuer(config) else {
            findings.bad(
                "logouts of this provider are refused, because no issuer is configured for it",
                unknown_issuer(of_login, config),
            );
            return;
        };
        if !issuer.backchannel_logout {
            findings.bad(
                "logouts of this issuer are refused, because its backchannel_logout is off",
                format!("set auth.issuers[{index}].backchannel_logout = true"),
            );
            return;
        }
        if let Some(id) = self.id {
            audience_of(id, index, issuer, findings);
            if is_shared_secret(id) && issuer.secret.is_none() && issuer.secret_file.is_none() {
                findings.bad(
                    "logout tokens are refused, because the provider signs them like ID tokens with a secret",
                    by_secret(id),
                );
            }
        }
        let Some(access) = self.access else {
            return;
        };
        let iss = |token: &Shown| token.text_of("iss").unwrap_or_default().to_owned();
        if iss(access) != iss(of_login) {
            findings.bad(
                format!(
                    "the access token is of the issuer {:?}, but the logout is of {:?}",
                    iss(access),
                    iss(of_login)
                ),
                "use tokens of one issuer, because a logout ends only sessions of its own issuer",
            );
            return;
        }
        match issuer.logout_scope {
            LogoutScope::Login => login(access, of_login, index, &config.login_claim, findings),
            LogoutScope::User => user(access, of_login, findings),
        }
        if is_keycloak(issuer) {
            keycloak(issuer.logout_scope, index, findings);
        }
    }
}

/// True for an issuer of Keycloak. Only the URL of a Keycloak issuer ends in `/realms/` and a name.
fn is_keycloak(issuer: &Issuer) -> bool {
    let path = issuer
        .issuer
        .as_deref()
        .and_then(|iss| iss.rsplit_once('/'));
    path.is_some_and(|(above, realm)| above.ends_with("/realms") && !realm.is_empty())
}

/// Explains the two cases for a Keycloak realm in which several logins end at once. A Keycloak with
/// the fix #49949 sends a logout token for each login. A Keycloak without the fix sends a single
/// token, which names only one of the logins.
fn keycloak(scope: LogoutScope, index: usize, findings: &mut Findings) {
    match scope {
        LogoutScope::User => findings.note(
            "a logout ends all of the user's sessions, which is right for every Keycloak, because some versions name only one of several logins that end",
            format!("if your Keycloak has the fix #49949, auth.issuers[{index}].logout_scope = \"login\" keeps the sessions of other logins open"),
        ),
        LogoutScope::Login => findings.note(
            "if your Keycloak lacks the fix #49949 and an administrator logs a user out of several logins, only the sessions of one login end",
            format!("set auth.issuers[{index}].logout_scope = \"user\", unless a test with two logins shows two logout tokens"),
        ),
    }
}

/// Checks that the `aud` of logout tokens is accepted. Logout tokens have the same `aud` as ID
/// tokens: the id of the client.
fn audience_of(id: &Shown, index: usize, issuer: &Issuer, findings: &mut Findings) {
    let accepted = issuer.accepted_logouts().unwrap_or_default();
    let clients = id.audience();
    match clients
        .iter()
        .any(|client| accepted.iter().any(|one| one == client))
    {
        true => findings.good(format!("logout tokens for {clients:?} are accepted")),
        false => findings.bad(
            format!(
                "the aud of logout tokens will be {clients:?}, but only {accepted:?} is accepted"
            ),
            format!("set auth.issuers[{index}].logout_audience = {clients:?}"),
        ),
    }
}

/// Checks that a logout's `sid` would find the session.
fn login(access: &Shown, of_login: &Shown, index: usize, claim: &str, findings: &mut Findings) {
    let by_user = format!(
        "set auth.issuers[{index}].logout_scope = \"user\", so that a logout ends all of the user's sessions"
    );
    match (access.text_of(claim), of_login.text_of("sid")) {
        (Some(ours), Some(theirs)) if ours == theirs => {
            findings.good("a logout of this login ends the sessions of this login and no others");
        }
        (Some(_), Some(_)) => findings.bad(
            format!("a logout would find no session, because its sid is not the access token's {claim}"),
            format!("use tokens of one login; if these tokens are of one login, {by_user}"),
        ),
        (None, _) => findings.bad(
            format!(
                "the access token has no {claim}, so it opens no session, because no logout could end such a session"
            ),
            format!("make the provider put {claim} into access tokens, or {by_user}"),
        ),
        (Some(_), None) => match of_login.text_of("sub") {
            Some(_) => user(access, of_login, findings),
            None => findings.bad("a logout token would have neither sid nor sub", by_user),
        },
    }
}

/// Checks that a logout's `sub` would find the user.
fn user(access: &Shown, of_login: &Shown, findings: &mut Findings) {
    match (access.text_of("sub"), of_login.text_of("sub")) {
        (Some(ours), Some(theirs)) if ours == theirs => {
            findings.good("a logout ends all of the user's sessions that began before the logout");
        }
        (Some(_), Some(_)) => findings.bad(
            "a logout would find no session, because its sub is not the access token's sub",
            "use tokens of one user; if these tokens are of one user, the provider gives each client another sub (pairwise): make it give all clients the same sub",
        ),
        _ => findings.bad(
            "a logout would find no session, because one of the tokens has no sub",
            "make the provider put sub into both tokens",
        ),
    }
}

/// The change to make for a token with a shared secret, see [`is_shared_secret`].
fn by_secret(token: &Shown) -> String {
    format!(
        "the token's alg is {}, so the provider signs with a secret, its own or the client's: make it sign with a private key, for example by RS256 (id_token_signed_response_alg)",
        said(&token.header, "alg")
    )
}

/// True if the token is signed with a secret, for example by HS256.
fn is_shared_secret(token: &Shown) -> bool {
    let algorithm = token.header.get("alg").and_then(|alg| alg.as_str());
    algorithm.is_some_and(|alg| alg.starts_with("HS"))
}
