//! `curfew dev`: a node to play with. This file has the addresses on which the node may listen, its
//! configuration with fresh keys, its tokens, and the text that it prints.

mod backend;
mod centrifuge;
mod page;
mod sdk;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use curfew_auth::{Algorithm, Issuer, MintKey};
use curfew_model::{Action, Clock as _, Secret, SystemClock};
use curfew_node::{ChannelConfig, HistoryConfig, JoinLeave};
use curfew_policy::{Effect, Rule};
use curfew_server::Listen;
use curfew_telemetry::LogFormat;
use serde_json::{Map, Value};
use tracing::warn;

use self::backend::Backend;
use self::sdk::Sdk;
use crate::app::App;
use crate::config::{self, BackendKind, Config};
use crate::failure::Failure;
use crate::token::Wish;
use crate::{lifecycle, output, serve};

/// Lifetime of the printed tokens, in seconds.
const TOKEN_TTL_SECS: u64 = 3600;

/// Number of bytes of each random key.
const KEY_BYTES: usize = 32;

/// The node's `session.expiring_notice`. It is short, because a token with a lifetime of half a
/// minute must not be announced as expiring as soon as its session opens.
const EXPIRING_NOTICE: Duration = Duration::from_secs(10);

/// The history of every channel. It stores more publications than a person can type while a browser
/// tab is disconnected.
const HISTORY: HistoryConfig = HistoryConfig {
    size: 100,
    ttl: Duration::from_secs(10 * 60),
};

/// Arguments of `curfew dev`.
#[derive(Debug, Args)]
#[command(after_help = "Example, on other ports:
  curfew dev --listen 127.0.0.1:8000 --admin 127.0.0.1:8001
With your back end beside it, which finds the node's addresses and keys in the variables CURFEW_URL,
CURFEW_ADMIN_URL, CURFEW_ADMIN_KEY and CURFEW_TOKEN_SECRET (HS256):
  curfew dev -- node server.mjs

Every operation is traced to OTEL_EXPORTER_OTLP_ENDPOINT or CURFEW__TELEMETRY__OTLP_ENDPOINT, if set;
variables of other sections are not read.
It admits every client that reaches it, and so refuses any address that is not loopback.")]
pub(crate) struct DevArgs {
    /// Address of the WebSocket endpoint and the demo page; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// Address of the admin API; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090")]
    pub(crate) admin: SocketAddr,
    /// Be as lax as the test suites of Centrifuge's SDKs assume: tokens are signed with the secret
    /// "secret" and need no exp, and a client needs no token
    #[arg(long)]
    pub(crate) centrifuge: bool,
    /// The published centrifuge-js for the demo page, dist/centrifuge.js of the npm package
    /// "centrifuge". Without this option, the page loads the file from unpkg.com
    #[arg(long, value_name = "FILE")]
    pub(crate) centrifuge_sdk: Option<PathBuf>,
    /// A program to run beside the node, such as your back end, and its arguments
    #[arg(last = true, value_name = "PROGRAM")]
    pub(crate) backend: Vec<OsString>,
}

/// Runs a development node until a signal stops it.
pub(crate) fn run(args: &DevArgs) -> Result<(), Failure> {
    let dev = Arc::new(Dev::new(args)?);
    let telemetry = curfew_telemetry::init(&dev.config.telemetry)?;
    if args.centrifuge {
        warn!("{}", centrifuge::WARNING);
    }
    serve::raise_open_files();
    lifecycle::block_on(async move {
        let app = App::build(&dev.config, telemetry, |context, public, admin| {
            page::routes(Arc::clone(&dev), Arc::clone(context), public, admin).map(Some)
        })?;
        let (public, admin) = app.addresses()?;
        output::print(&dev.banner(&program(), &public, &admin, SystemClock.unix())?)?;
        let mut backend = Backend::start(&args.backend, dev.variables(&public, &admin))?;
        tokio::select! {
            ended = lifecycle::run(app, dev.config.clone(), None) => ended,
            never = backend.watch() => match never {},
        }
    })
}

/// The configuration and the keys of a development node.
#[derive(Debug)]
pub(crate) struct Dev {
    /// The configuration to run.
    pub(crate) config: Config,
    /// The admin key, which is in `config` too.
    pub(crate) admin_key: Secret,
    token_secret: Secret,
    key: MintKey,
    sdk: Sdk,
}

impl Dev {
    /// Checks the addresses, reads the SDK and makes fresh keys.
    pub(crate) fn new(args: &DevArgs) -> Result<Self, Failure> {
        for (flag, address) in [("--listen", args.listen), ("--admin", args.admin)] {
            if !address.ip().to_canonical().is_loopback() {
                return Err(Failure::usage(format!(
                    "{flag} {address} is not a loopback address such as 127.0.0.1 or [::1]: curfew dev admits every client; use curfew serve for other addresses"
                )));
            }
        }
        let sdk = Sdk::read(args.centrifuge_sdk.as_deref())?;
        let secret = random_key()?;
        let admin_key = random_key()?;
        let mut config = Config::default();
        config.server.listen = Listen::Tcp(args.listen);
        config.admin.listen = args.admin;
        config.admin.key = Some(admin_key.clone());
        config.auth.issuers = vec![Issuer {
            name: "dev".to_owned(),
            algorithms: Some(vec![Algorithm::HS256]),
            secret: Some(secret.clone()),
            ..Issuer::default()
        }];
        config.centrifuge.enabled = true;
        config.session.expiring_notice = EXPIRING_NOTICE;
        config.policy.rules = vec![Rule {
            name: "everything is allowed".to_owned(),
            channels: vec!["*".to_owned()],
            actions: vec![
                Action::Subscribe,
                Action::Publish,
                Action::History,
                Action::Presence,
            ],
            effect: Effect::Allow,
            ..Rule::default()
        }];
        config.channels = vec![ChannelConfig {
            pattern: "*".to_owned(),
            history: Some(HISTORY),
            presence: true,
            join_leave: JoinLeave::Asked,
            ..ChannelConfig::default()
        }];
        config.backend.kind = BackendKind::Memory;
        config.drain.window = Duration::ZERO;
        let telemetry = config::telemetry().map_err(Failure::Config)?;
        let is_given = |key: &str| telemetry.source(&format!("telemetry.{key}")).is_some();
        config.telemetry = telemetry.config.telemetry.clone();
        if !is_given("log_format") {
            config.telemetry.log_format = LogFormat::Text;
        }
        if !is_given("trace_sample_ratio") {
            config.telemetry.trace_sample_ratio = 1.0;
        }
        let (token_secret, key) = match args.centrifuge {
            true => {
                centrifuge::apply(&mut config);
                let key = MintKey::AnySecret(centrifuge::SECRET.as_bytes().to_vec());
                (Secret::new(centrifuge::SECRET.to_owned()), key)
            }
            false => {
                let key = MintKey::Secret(secret.expose().as_bytes().to_vec());
                (secret, key)
            }
        };
        Ok(Self {
            config,
            admin_key,
            token_secret,
            key,
            sdk,
        })
    }

    /// The node's addresses and keys, as environment variables for a back end that runs beside the
    /// node.
    fn variables(&self, public: &Listen, admin: &Listen) -> [(&'static str, String); 4] {
        [
            ("CURFEW_URL", format!("http://{public}")),
            ("CURFEW_ADMIN_URL", format!("http://{admin}")),
            ("CURFEW_ADMIN_KEY", self.admin_key.expose().to_owned()),
            ("CURFEW_TOKEN_SECRET", self.token_secret.expose().to_owned()),
        ]
    }

    /// A token for `user`, issued at `now` (Unix seconds), and its id.
    pub(crate) fn mint(
        &self,
        user: &str,
        roles: Vec<String>,
        ttl_secs: u64,
        now: u64,
    ) -> anyhow::Result<(String, String)> {
        self.mint_with(user, roles, ttl_secs, Map::new(), now)
    }

    /// Like [`Dev::mint`], with additional claims.
    fn mint_with(
        &self,
        user: &str,
        roles: Vec<String>,
        ttl_secs: u64,
        claims: Map<String, Value>,
        now: u64,
    ) -> anyhow::Result<(String, String)> {
        let id = curfew_model::SessionId::new().to_string();
        let wish = Wish {
            user: user.to_owned(),
            roles,
            ttl_secs,
            id: Some(id.clone()),
            claims: claims.into_iter().collect(),
            ..Wish::default()
        };
        let token = curfew_auth::mint(&wish.claims(now), None, Algorithm::HS256, &self.key)?;
        Ok((token, id))
    }

    /// The text to print once the node listens on `public` and `admin`: the page's address, and
    /// commands for a shell, which start with `program`.
    pub(crate) fn banner(
        &self,
        program: &str,
        public: &Listen,
        admin: &Listen,
        now: u64,
    ) -> anyhow::Result<String> {
        let (alice, _) = self.mint("alice", vec!["member".to_owned()], TOKEN_TTL_SECS, now)?;
        let (bob, _) = self.mint("bob", vec!["member".to_owned()], TOKEN_TTL_SECS, now)?;
        let admin_key = self.admin_key.expose();
        let warning = match self.config.auth.development {
            true => format!("\nWARNING: {}.\n", centrifuge::WARNING),
            false => String::new(),
        };
        Ok(format!(
            "
Curfew is running, to play with: every user may do everything, and all data is lost when the node ends.
{warning}
  Open        http://{public}/
  WebSocket   ws://{public}/ws
  Centrifuge  ws://{public}/connection/websocket
  Admin API   http://{admin}

Or in a terminal each, as alice and as bob (the tokens are valid for an hour):

  {program} connect ws://{public}/ws --subscribe room:1 --token {alice}

  {program} connect ws://{public}/ws --subscribe room:1 --token {bob}

Say something, as /pub room:1 \"hello\". In a third terminal, be the operator:

  export CURFEW_ADMIN_URL=http://{admin} CURFEW_ADMIN_KEY={admin_key}
  {program} publish room:1 '{{\"text\":\"hello\"}}'
  {program} history room:1
  {program} presence room:1
  {program} sessions
  {program} revoke user alice
  {program} restore user alice
  curl -s http://{admin}/v1/sessions -H \"Authorization: Bearer $CURFEW_ADMIN_KEY\"

Ctrl-C ends it.
"
        ))
    }
}

/// Returns the command that starts this program in a shell: `curfew` if the shell finds the program
/// by this name, otherwise the program's path.
pub(crate) fn program() -> String {
    let Ok(this) = std::env::current_exe() else {
        return "curfew".to_owned();
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let first = std::env::split_paths(&path)
        .map(|folder| folder.join("curfew"))
        .find(|candidate| candidate.is_file());
    let found = first.is_some_and(|first| first.canonicalize().ok() == this.canonicalize().ok());
    match this.to_str() {
        Some(this) if !found => quoted(this),
        _ => "curfew".to_owned(),
    }
}

/// `text` as one word of a POSIX shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A random key, in hexadecimal.
fn random_key() -> anyhow::Result<Secret> {
    let mut bytes = [0; KEY_BYTES];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| anyhow!("the system gives no random bytes"))?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use curfew_auth::Authenticator;
    use curfew_model::Problems;

    use super::*;

    fn args(listen: &str, admin: &str) -> DevArgs {
        DevArgs {
            listen: listen.parse().unwrap(),
            admin: admin.parse().unwrap(),
            centrifuge: false,
            centrifuge_sdk: None,
            backend: Vec::new(),
        }
    }

    #[test]
    fn only_loopback_addresses_are_served() {
        for (listen, admin, good) in [
            ("127.0.0.1:0", "127.0.0.1:0", true),
            ("127.9.9.9:0", "[::1]:0", true),
            ("0.0.0.0:8080", "127.0.0.1:0", false),
            ("127.0.0.1:0", "[::]:0", false),
            ("192.0.2.1:0", "127.0.0.1:0", false),
        ] {
            assert_eq!(
                Dev::new(&args(listen, admin)).is_ok(),
                good,
                "{listen} {admin}"
            );
        }
    }

    #[test]
    fn its_configuration_is_valid_and_its_keys_are_fresh() {
        let dev = Dev::new(&args("127.0.0.1:0", "127.0.0.1:0")).unwrap();
        let mut problems = Problems::new();
        dev.config.check(&mut problems);
        assert_eq!(problems.into_vec(), []);
        let other = Dev::new(&args("127.0.0.1:0", "127.0.0.1:0")).unwrap();
        assert_ne!(dev.admin_key, other.admin_key);
        assert_ne!(dev.config.auth.issuers, other.config.auth.issuers);
    }

    #[test]
    fn its_tokens_are_accepted_and_in_the_commands_it_prints() {
        let dev = Dev::new(&args("127.0.0.1:0", "127.0.0.1:0")).unwrap();
        let now = SystemClock.unix();
        let public = "127.0.0.1:1111".parse().unwrap();
        let admin = "127.0.0.1:2222".parse().unwrap();
        let banner = dev.banner("curfew", &public, &admin, now).unwrap();
        assert!(banner.contains("http://127.0.0.1:1111/\n"), "{banner}");
        let authenticator = Authenticator::new(&dev.config.auth, Arc::new(SystemClock)).unwrap();
        let users: Vec<String> = banner
            .split("--token ")
            .skip(1)
            .map(|rest| rest.split_whitespace().next().unwrap())
            .map(|token| authenticator.authenticate(token).unwrap().user().to_owned())
            .collect();
        assert_eq!(users, ["alice", "bob"]);
    }

    #[test]
    fn for_the_suites_it_is_lax_and_says_so() {
        let args = DevArgs {
            centrifuge: true,
            ..args("127.0.0.1:0", "127.0.0.1:0")
        };
        let dev = Dev::new(&args).unwrap();
        let mut problems = Problems::new();
        dev.config.check(&mut problems);
        assert_eq!(problems.into_vec(), []);
        let listen = "127.0.0.1:1111".parse().unwrap();
        let now = SystemClock.unix();
        let banner = dev.banner("curfew", &listen, &listen, now).unwrap();
        assert!(banner.contains("WARNING: --centrifuge"), "{banner}");
        let authenticator = Authenticator::new(&dev.config.auth(), Arc::new(SystemClock)).unwrap();
        let undated = [("sub".to_owned(), Value::from("42"))]
            .into_iter()
            .collect();
        let token = curfew_auth::mint(&undated, None, Algorithm::HS256, &dev.key).unwrap();
        assert_eq!(authenticator.authenticate(&token).unwrap().user(), "42");
        let outside = DevArgs {
            listen: "0.0.0.0:0".parse().unwrap(),
            ..args
        };
        assert!(Dev::new(&outside).is_err());
    }

    #[test]
    fn paths_are_quoted_for_a_shell() {
        assert_eq!(quoted("/usr/bin/curfew"), "/usr/bin/curfew");
        assert_eq!(quoted("/a b/it's"), r"'/a b/it'\''s'");
    }
}
