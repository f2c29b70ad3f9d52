//! `curfew explain`: shows which rule decides, and why. The command works offline, except for keys
//! that are configured by URL.

mod refusal;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use curfew_auth::Authenticator;
use curfew_identity::{Fetcher, ProviderError};
use curfew_model::{Action, Channel, SystemClock};
use curfew_policy::{ConditionResult, Considered, Explanation, Policy};
use serde_json::{Map, Value, json};

use crate::cli::ConfigArgs;
use crate::config::{Check, Config};
use crate::failure::Failure;
use crate::{lifecycle, output, token, trust};
use refusal::Refusal;

pub(crate) use refusal::{part, unverified};

/// Exit code for a token that is refused.
const REFUSED: u8 = 1;

/// Arguments of `curfew explain`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  curfew explain --config curfew.toml --token-file token --action publish --channel room:acme:1
  curfew explain --config curfew.toml --claims '{\"sub\":\"alice\",\"tenant\":\"acme\"}' \\
      --action subscribe --channel room:acme:1")]
#[group(id = "who", required = true, multiple = false, args = ["token", "token_file", "claims"])]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The token; it is verified with the configuration's keys
    #[arg(long)]
    token: Option<String>,
    /// A file with the token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Claims as a JSON object, instead of a token
    #[arg(long, value_name = "JSON")]
    claims: Option<String>,
    /// Explain the decision on the token's claims even if the token is refused
    #[arg(long, conflicts_with = "claims")]
    unverified: bool,
    /// subscribe, publish, history or presence
    #[arg(long, value_parser = parse_action)]
    action: Action,
    /// The channel
    #[arg(long, value_parser = |name: &str| Channel::parse(name))]
    channel: Channel,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The claims on which the decision is made, and the user that the claims name.
struct Subject {
    claims: Map<String, Value>,
    user: String,
    /// The refusal of the token; `None` if the token is accepted, or if `--claims` replaces it.
    refused: Option<Refusal>,
}

/// Explains one decision.
pub(crate) fn run(args: &ExplainArgs) -> Result<(), Failure> {
    let config = args.config.load(Check::Form)?.config;
    let subject = subject(args, &config)?;
    if let Some(refusal) = subject.refused.as_ref().filter(|_| !args.unverified) {
        if args.json {
            let refused = refusal.to_json();
            output::print_json(&json!({ "allowed": false, "refused": refused }))?;
        } else {
            output::print(&format!(
                "{}The rules are not evaluated for a refused token; with --unverified they are.\n\n{}",
                refusal.line(),
                refusal.details()
            ))?;
        }
        return Err(Failure::Told(REFUSED));
    }
    let policy = Policy::new(&config.policy);
    let explanation = policy.explain(&subject.claims, &subject.user, args.action, &args.channel);
    if args.json {
        let mut value = serde_json::to_value(&explanation)?;
        if let Some(refusal) = &subject.refused {
            value["refused"] = refusal.to_json();
        }
        return output::print_json(&value);
    }
    let mut text = String::new();
    if let Some(refusal) = &subject.refused {
        text.push_str(&refusal.line());
        text.push_str("If these claims were verified:\n");
    }
    text.push_str(&describe(&explanation));
    Ok(output::print(&text)?)
}

/// Fetches the keys that are configured by URL. A failure is printed, but does not end the command,
/// because the token may need none of these keys.
pub(crate) fn fetch_keys(authenticator: &Authenticator, config: &Config) -> Result<(), Failure> {
    if authenticator.remotes().is_empty() {
        return Ok(());
    }
    let failed = lifecycle::block_on(async { Ok(fetch_once(authenticator, config).await) })?;
    for (issuer, error) in failed {
        eprintln!("curfew: the keys of the issuer {issuer} could not be fetched: {error}");
    }
    Ok(())
}

/// Asks every provider for its keys once. Returns the issuers whose keys could not be fetched, each
/// with the reason.
pub(crate) async fn fetch_once(
    authenticator: &Authenticator,
    config: &Config,
) -> Vec<(Arc<str>, ProviderError)> {
    let tls = || trust::client(trust::system_roots());
    let fetcher = Fetcher::new(config.auth.jwks_timeout, tls);
    curfew_identity::fetch_once(authenticator, &fetcher).await
}

fn subject(args: &ExplainArgs, config: &Config) -> Result<Subject, Failure> {
    let claim = &config.auth.subject_claim;
    if let Some(text) = &args.claims {
        let claims: Map<String, Value> = serde_json::from_str(text)
            .map_err(|_| Failure::usage("--claims takes a JSON object"))?;
        let user = user(&claims, claim).ok_or_else(|| {
            Failure::usage(format!(
                "--claims needs the claim {claim}, which names the user"
            ))
        })?;
        return Ok(Subject {
            claims,
            user,
            refused: None,
        });
    }
    let token = match (&args.token, &args.token_file) {
        (Some(token), _) => token.clone(),
        (None, Some(file)) => token::read_file(file)?,
        (None, None) => String::new(),
    };
    let token = token.trim();
    let authenticator = Authenticator::new(&config.auth(), Arc::new(SystemClock))?;
    fetch_keys(&authenticator, config)?;
    match authenticator.authenticate(token) {
        Ok(principal) => Ok(Subject {
            claims: principal.claims().parse(),
            user: principal.user().to_owned(),
            refused: None,
        }),
        Err(error) => {
            let claims = match unverified(token) {
                Some(claims) => claims,
                None if args.unverified => {
                    return Err(Failure::Other(anyhow::anyhow!(
                        "the token's claims cannot be read: {error}"
                    )));
                }
                None => Map::new(),
            };
            let user = user(&claims, claim).unwrap_or_default();
            Ok(Subject {
                claims,
                user,
                refused: Some(Refusal::new(error, token, authenticator.issuers())),
            })
        }
    }
}

fn user(claims: &Map<String, Value>, claim: &str) -> Option<String> {
    match claims.get(claim)? {
        Value::String(user) => Some(user.clone()),
        Value::Number(user) => Some(user.to_string()),
        _ => None,
    }
}

fn parse_action(text: &str) -> Result<Action, String> {
    let known = Action::ALL.into_iter();
    let found = known.clone().find(|action| action.as_str() == text);
    found.ok_or_else(|| {
        let names: Vec<_> = known.map(Action::as_str).collect();
        format!("must be one of {}", names.join(", "))
    })
}

/// The decision in one line, and the result of every rule.
fn describe(explanation: &Explanation) -> String {
    let decision = if explanation.allowed {
        "allowed"
    } else {
        "denied"
    };
    let mut text = format!("{decision}: {}\n", output::clean(&explanation.why));
    let rows: Vec<Vec<String>> = explanation.considered.iter().map(row).collect();
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&output::table(
            &["RULE", "EFFECT", "MATCHES", "CONDITION"],
            &rows,
        ));
    }
    text
}

fn row(considered: &Considered) -> Vec<String> {
    let effect = match considered.effect {
        curfew_policy::Effect::Allow => "allow",
        curfew_policy::Effect::Deny => "deny",
    };
    let condition = match &considered.condition {
        None => "-".to_owned(),
        Some(ConditionResult::Answer(answer)) => answer.to_string(),
        Some(ConditionResult::Error(error)) => error.clone(),
    };
    let matched = if considered.matched { "yes" } else { "no" };
    vec![
        considered.rule.clone(),
        effect.to_owned(),
        matched.to_owned(),
        condition,
    ]
}
