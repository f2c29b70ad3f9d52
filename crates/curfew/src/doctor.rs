//! `curfew doctor`: compares an identity provider's tokens with the configuration, and reports
//! their effect and the necessary changes. The command works offline, except for keys that are
//! configured by URL.

mod findings;
mod logout;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use curfew_auth::{AuthConfig, AuthError, Authenticator, Issuer};
use curfew_model::{AuthFailure, SystemClock};
use serde_json::{Map, Value, json};

use crate::cli::ConfigArgs;
use crate::config::Check;
use crate::explain::{fetch_keys, part, unverified};
use crate::failure::Failure;
use crate::{output, token};
use findings::Findings;

/// Exit code if at least one finding is bad.
const NOT_WELL: u8 = 1;

/// Arguments of `curfew doctor`.
#[derive(Debug, Args)]
#[command(after_help = "Examples, with the tokens of one sign-in:
  curfew doctor --config curfew.toml --access-token-file access --id-token-file id
  curfew doctor --config curfew.toml --access-token-file access --logout-token-file logout

Exit codes: 0 all is well; 1 something would not work; 2 wrong usage or invalid configuration.")]
#[group(id = "tokens", required = true, multiple = true, args = [
    "access_token", "access_token_file", "id_token", "id_token_file", "logout_token", "logout_token_file",
])]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The access token that clients send. Other users can read it in the list of processes
    #[arg(long, value_name = "TOKEN", conflicts_with = "access_token_file")]
    access_token: Option<String>,
    /// A file with the access token
    #[arg(long, value_name = "FILE")]
    access_token_file: Option<PathBuf>,
    /// The ID token of the same sign-in: logout tokens have the same aud and sid
    #[arg(long, value_name = "TOKEN", conflicts_with = "id_token_file")]
    id_token: Option<String>,
    /// A file with the ID token
    #[arg(long, value_name = "FILE")]
    id_token_file: Option<PathBuf>,
    /// A logout token, as the provider sends it
    #[arg(long, value_name = "TOKEN", conflicts_with = "logout_token_file")]
    logout_token: Option<String>,
    /// A file with the logout token
    #[arg(long, value_name = "FILE")]
    logout_token_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A token and its claims, which are not verified.
struct Shown {
    text: String,
    header: Map<String, Value>,
    claims: Map<String, Value>,
}

impl Shown {
    /// Reads a token. `name` is the token's name in an error.
    fn read(
        name: &str,
        token: Option<&String>,
        file: Option<&Path>,
    ) -> Result<Option<Self>, Failure> {
        let text = match (token, file) {
            (Some(token), _) => token.clone(),
            (None, Some(file)) => token::read_file(file)?,
            (None, None) => return Ok(None),
        };
        let text = text.trim().to_owned();
        let Some((header, claims)) = part(&text, 0).zip(unverified(&text)) else {
            return Err(Failure::usage(format!(
                "the {name} is not a JWT: a JWT has three parts separated by dots, and the first two are JSON objects in base64url"
            )));
        };
        Ok(Some(Self {
            text,
            header,
            claims,
        }))
    }

    /// A claim, if it is text.
    fn text_of(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim)?.as_str()
    }

    /// True if the token has a claim that only ID tokens have (OpenID Connect Core 1.0 §2,
    /// §3.3.2.11).
    fn is_id_token(&self) -> bool {
        let only_theirs = ["nonce", "at_hash", "c_hash"];
        only_theirs
            .iter()
            .any(|claim| self.claims.contains_key(*claim))
    }

    /// The values of `aud`, which may be a text or a list.
    fn audience(&self) -> Vec<&str> {
        match self.claims.get("aud") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// The first configured issuer that accepts the token's `iss`, with the issuer's index. An
    /// issuer without a configured `iss` accepts any.
    fn issuer<'c>(&self, config: &'c AuthConfig) -> Option<(usize, &'c Issuer)> {
        let named = self.text_of("iss");
        let mut issuers = config.issuers.iter().enumerate();
        issuers.find(|(_, issuer)| {
            issuer
                .issuer
                .as_deref()
                .is_none_or(|one| Some(one) == named)
        })
    }
}

/// Compares tokens with the configuration.
pub(crate) fn run(args: &DoctorArgs) -> Result<(), Failure> {
    let config = args.config.load(Check::Form)?.config;
    let access = Shown::read(
        "access token",
        args.access_token.as_ref(),
        args.access_token_file.as_deref(),
    )?;
    let id = Shown::read(
        "ID token",
        args.id_token.as_ref(),
        args.id_token_file.as_deref(),
    )?;
    let logout = Shown::read(
        "logout token",
        args.logout_token.as_ref(),
        args.logout_token_file.as_deref(),
    )?;
    let authenticator = Authenticator::new(&config.auth, Arc::new(SystemClock))?;
    fetch_keys(&authenticator, &config)?;
    let mut findings = Findings::default();
    match (&access, &id) {
        // The two tokens are swapped, so every other finding would be about the wrong token.
        (Some(access), Some(id)) if access.is_id_token() && !id.is_id_token() => findings.bad(
            "the tokens are swapped: the access token has a nonce or at_hash, as ID tokens have, and the ID token has none",
            "give each token by its own option",
        ),
        _ => judge(access.as_ref(), id.as_ref(), logout.as_ref(), &authenticator, &config.auth, &mut findings),
    }
    match args.json {
        true => output::print_json(&json!({
            "well": findings.are_well(),
            "findings": findings.all(),
        }))?,
        false => output::print(&findings.to_text())?,
    }
    match findings.are_well() {
        true => Ok(()),
        false => Err(Failure::Told(NOT_WELL)),
    }
}

/// Judges each token, and the sessions that a logout would end.
fn judge(
    access: Option<&Shown>,
    id: Option<&Shown>,
    logout: Option<&Shown>,
    authenticator: &Authenticator,
    config: &AuthConfig,
    findings: &mut Findings,
) {
    if let Some(access) = access {
        judge_access(access, authenticator, config, findings);
    }
    let mut tokens = logout::Tokens { access, id, logout };
    if let Some(logout) = logout {
        let judged = authenticator.judge_logout(&logout.text);
        let is_refused = judged.is_err();
        tokens.judge_logout(judged, config, findings);
        // A refused logout token ends no session, so its subject is not compared with sessions.
        if is_refused {
            tokens.logout = None;
        }
    }
    tokens.compare(config, findings);
}

fn judge_access(
    access: &Shown,
    authenticator: &Authenticator,
    config: &AuthConfig,
    findings: &mut Findings,
) {
    match authenticator.authenticate(&access.text) {
        Ok(principal) => findings.good(format!(
            "the access token opens a session of the user {:?} of the issuer {:?}",
            principal.user(),
            principal.issuer()
        )),
        Err(error) => {
            let fix = fix(&error, access, config);
            let said = format!(
                "the access token is refused: {} ({})",
                error.message(),
                error.failure()
            );
            findings.bad(said, fix);
        }
    }
}

/// Returns the change in the configuration or at the provider that would prevent the refusal. If no
/// change is known, returns the members of the token that may explain the refusal.
fn fix(error: &AuthError, token: &Shown, config: &AuthConfig) -> String {
    match error.failure() {
        AuthFailure::WrongIssuer => unknown_issuer(token, config),
        AuthFailure::WrongAudience if token.is_id_token() => {
            "the token is an ID token, as its nonce or at_hash shows: make clients send the access token"
                .to_owned()
        }
        AuthFailure::WrongAudience => match token.issuer(config) {
            Some((index, issuer)) => format!(
                "the token's aud is {:?}, but auth.issuers[{index}].audience is {:?}: make the provider put a configured audience into aud (by an audience mapper or an API's identifier), or add the token's aud to the setting",
                token.audience(),
                issuer.audience.as_deref().unwrap_or_default()
            ),
            None => unknown_issuer(token, config),
        },
        AuthFailure::MissingClaim => format!(
            "make the provider put the claim into access tokens; this token has {:?}",
            token.claims.keys().collect::<Vec<_>>()
        ),
        AuthFailure::Expired => "use a new token".to_owned(),
        AuthFailure::UnknownKey | AuthFailure::BadSignature => format!(
            "the token's kid is {} and its alg is {}: compare them with the issuer's keys, which curfew explain shows",
            said(&token.header, "kid"),
            said(&token.header, "alg")
        ),
        _ => format!(
            "the token's typ is {} and its alg is {}",
            said(&token.header, "typ"),
            said(&token.header, "alg")
        ),
    }
}

/// A hint about a token whose `iss` is not configured. It names a similar configured `iss`, if
/// there is one.
fn unknown_issuer(token: &Shown, config: &AuthConfig) -> String {
    let named = token.text_of("iss").unwrap_or_default();
    let alike = |one: &&str| {
        let plain = |text: &str| text.trim_end_matches('/').to_lowercase();
        plain(one) == plain(named)
    };
    let known: Vec<&str> = config
        .issuers
        .iter()
        .filter_map(|issuer| issuer.issuer.as_deref())
        .collect();
    match known.iter().copied().find(|one| alike(one)) {
        Some(close) => format!(
            "the token's iss is {named:?}, but {close:?} is configured: both must be the same byte for byte, slash and case included"
        ),
        None => format!("the token's iss is {named:?}, but auth.issuers has only {known:?}"),
    }
}

fn said(members: &Map<String, Value>, name: &str) -> String {
    members
        .get(name)
        .map_or_else(|| "missing".to_owned(), Value::to_string)
}
