//! `curfew token`: makes a token for development and tests.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use curfew_auth::{Algorithm, MintKey};
use curfew_model::{Clock as _, SessionId, SystemClock};
use serde_json::{Map, Value, json};

use crate::failure::Failure;
use crate::{output, time};

/// Arguments of `curfew token`.
#[derive(Debug, Args)]
#[command(after_help = "Example, with a secret of at least 32 bytes:
  openssl rand -hex 32 > secret
  curfew token --user alice --role member --claim tenant='\"acme\"' --ttl 10m --key-file secret")]
pub(crate) struct TokenArgs {
    /// The user: the claim `sub`
    #[arg(long)]
    user: String,
    /// A role, put into the list in the claim `roles`; repeatable
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// Any claim, with its value as JSON: --claim level=3 --claim tenant='"acme"'; repeatable
    #[arg(long = "claim", value_name = "NAME=JSON", value_parser = parse_claim)]
    claims: Vec<(String, Value)>,
    /// Lifetime of the token
    #[arg(long, default_value = "1h", value_name = "DURATION",
          value_parser = curfew_model::setting::duration::parse)]
    ttl: std::time::Duration,
    /// Start of the token's validity (claim `nbf`): now, Unix seconds, 2026-11-23T12:00:00Z,
    /// +5m or -1h
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    not_before: Option<String>,
    /// The issuer: the claim `iss`
    #[arg(long)]
    issuer: Option<String>,
    /// The audience: the claim `aud`; repeatable
    #[arg(long)]
    audience: Vec<String>,
    /// The key's id (`kid`), for the token's header
    #[arg(long)]
    kid: Option<String>,
    /// The token's id: the claim `jti` [default: a new one each time]
    #[arg(long)]
    id: Option<String>,
    /// A file with the key: the secret for HS*, otherwise a private key in PEM
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    /// HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA
    #[arg(long, default_value = "HS256")]
    alg: Algorithm,
}

/// Reads the text of a file with a token.
pub(crate) fn read_file(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("read the token file {}", file.display()))
}

/// The content that a token should have, without the key that signs it.
#[derive(Debug, Default)]
pub(crate) struct Wish {
    pub(crate) user: String,
    pub(crate) roles: Vec<String>,
    pub(crate) claims: Vec<(String, Value)>,
    pub(crate) ttl_secs: u64,
    pub(crate) not_before: Option<u64>,
    pub(crate) issuer: Option<String>,
    pub(crate) audience: Vec<String>,
    pub(crate) id: Option<String>,
}

impl Wish {
    /// The claims, for a token issued at `now` (Unix seconds). Values of `--claim` take precedence.
    pub(crate) fn claims(self, now: u64) -> Map<String, Value> {
        let mut claims = Map::new();
        claims.insert("sub".to_owned(), self.user.into());
        claims.insert("iat".to_owned(), now.into());
        claims.insert("exp".to_owned(), now.saturating_add(self.ttl_secs).into());
        let id = self.id.unwrap_or_else(|| SessionId::new().to_string());
        claims.insert("jti".to_owned(), id.into());
        if let Some(not_before) = self.not_before {
            claims.insert("nbf".to_owned(), not_before.into());
        }
        if let Some(issuer) = self.issuer {
            claims.insert("iss".to_owned(), issuer.into());
        }
        match self.audience.as_slice() {
            [] => {}
            [one] => drop(claims.insert("aud".to_owned(), json!(one))),
            several => drop(claims.insert("aud".to_owned(), json!(several))),
        }
        if !self.roles.is_empty() {
            claims.insert("roles".to_owned(), self.roles.into());
        }
        claims.extend(self.claims);
        claims
    }
}

/// Makes the token and prints it.
pub(crate) fn run(args: TokenArgs) -> Result<(), Failure> {
    let now = SystemClock.unix();
    let not_before = match args.not_before.as_deref() {
        Some(text) => Some(time::parse(text, now).map_err(Failure::usage)?),
        None => None,
    };
    let content = std::fs::read(&args.key_file)
        .with_context(|| format!("read the key file {}", args.key_file.display()))?;
    let key = MintKey::from_file_content(&content, args.alg)
        .with_context(|| format!("use the key file {}", args.key_file.display()))?;
    let wish = Wish {
        user: args.user,
        roles: args.roles,
        claims: args.claims,
        ttl_secs: args.ttl.as_secs(),
        not_before,
        issuer: args.issuer,
        audience: args.audience,
        id: args.id,
    };
    let token = curfew_auth::mint(&wish.claims(now), args.kid.as_deref(), args.alg, &key)?;
    Ok(output::print(&format!("{token}\n"))?)
}

fn parse_claim(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or("takes NAME=JSON, for example tenant='\"acme\"'")?;
    let value = serde_json::from_str(value)
        .map_err(|_| "the value is not JSON; strings need quotes: tenant='\"acme\"'")?;
    Ok((name.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_those_asked_for() {
        let wish = Wish {
            user: "alice".to_owned(),
            roles: vec!["member".to_owned()],
            claims: vec![
                ("level".to_owned(), json!(3)),
                ("exp".to_owned(), json!("soon")),
            ],
            ttl_secs: 60,
            not_before: Some(90),
            issuer: Some("me".to_owned()),
            audience: vec!["curfew".to_owned()],
            id: Some("t1".to_owned()),
        };
        let expect = json!({
            "sub": "alice", "iat": 100, "exp": "soon", "jti": "t1", "nbf": 90, "iss": "me",
            "aud": "curfew", "roles": ["member"], "level": 3,
        });
        assert_eq!(Value::Object(wish.claims(100)), expect);
    }
}
