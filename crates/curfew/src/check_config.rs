//! `curfew check-config`: reports every problem of a configuration at once. With `--probe`, it also
//! checks that the node could use the dependencies that the configuration names.

mod certificate;

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use curfew_auth::Authenticator;
use curfew_model::{Clock as _, SystemClock};
use serde::Serialize;
use serde_json::json;

use crate::cli::ConfigArgs;
use crate::config::{BackendKind, Check, Config, Loaded};
use crate::explain::fetch_once;
use crate::failure::Failure;
use crate::{lifecycle, output};

/// Exit code for an invalid configuration.
const INVALID: u8 = 2;

/// Exit code if a dependency cannot be used.
const NOT_THERE: u8 = 1;

/// Largest difference between this machine's clock and the clock of Redis that is not reported as a
/// fault. A node also warns of a larger difference.
const MAX_SKEW: Duration = Duration::from_secs(1);

/// Arguments of `curfew check-config`.
#[derive(Debug, Args)]
#[command(after_help = "Examples, before a restart or a reload:
  curfew check-config --config /etc/curfew.toml && systemctl reload curfew
  curfew check-config --config /etc/curfew.toml --probe

On a machine that has the configuration but not the files of its secrets:
  curfew check-config --offline --config k8s/overlays/production/curfew.toml

Exit codes: 0 valid; 2 invalid; 1 valid, and --probe found a dependency that cannot be used.")]
pub(crate) struct CheckConfigArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Connect once to Redis and to the identity providers, as a node would, with the configured
    /// certificates and credentials, and check until when the node's own certificate is valid.
    /// Nothing is written
    #[arg(long)]
    probe: bool,
    /// Ignore files that are not on this machine, such as the secrets of a pod
    #[arg(long, conflicts_with = "probe")]
    offline: bool,
    /// Print JSON: {"valid","problems":[{"source","line","key","message"}],"warnings":[…],"probes":[{"key","there","message"}]}
    #[arg(long)]
    json: bool,
}

/// The result of probing one dependency that the configuration names.
#[derive(Debug, Serialize)]
struct Probe {
    /// The configuration key that names the dependency.
    key: String,
    /// True if a node could use the dependency.
    there: bool,
    message: String,
}

/// Checks the values and the files that they name, and with `--probe` the dependencies.
pub(crate) fn run(args: &CheckConfigArgs) -> Result<(), Failure> {
    let check = match args.offline {
        true => Check::Offline,
        false => Check::Everything,
    };
    let loaded = match args.config.load(check) {
        Err(Failure::Config(problems)) if args.json => {
            output::print_json(&json!({ "valid": false, "problems": problems }))?;
            return Err(Failure::Told(INVALID));
        }
        loaded => loaded?,
    };
    let probes = match args.probe {
        true => probe(&loaded.config)?,
        false => Vec::new(),
    };
    match args.json {
        true => {
            let mut told = json!({ "valid": true, "problems": [] });
            if !loaded.warnings.is_empty() {
                told["warnings"] = json!(loaded.warnings);
            }
            if args.probe {
                told["probes"] = json!(probes);
            }
            output::print_json(&told)?;
        }
        false => output::print(&text(&loaded, &probes))?,
    }
    match probes.iter().all(|probe| probe.there) {
        true => Ok(()),
        false => Err(Failure::Told(NOT_THERE)),
    }
}

fn text(loaded: &Loaded, probes: &[Probe]) -> String {
    let warnings = loaded.warnings.iter();
    let mut text: String = warnings.map(|told| format!("warning: {told}\n")).collect();
    text += "the configuration is valid\n";
    for Probe {
        key,
        there,
        message,
    } in probes
    {
        text += &output::verdict(*there, &format!("{key}: {message}"));
    }
    text
}

fn probe(config: &Config) -> Result<Vec<Probe>, Failure> {
    let authenticator = Authenticator::new(&config.auth(), Arc::new(SystemClock))?;
    lifecycle::block_on(async {
        let mut probes = Vec::new();
        if config.backend.kind == BackendKind::Redis {
            probes.extend(probe_redis(config).await);
        }
        if let Some(file) = &config.server.tls_cert_file {
            probes.push(certificate::probe(file, SystemClock.now()));
        }
        let failed = fetch_once(&authenticator, config).await;
        for remote in authenticator.remotes() {
            let why = failed.iter().find(|(issuer, _)| *issuer == remote.issuer);
            let issuers = config.auth.issuers.iter();
            let at = issuers
                .clone()
                .position(|issuer| *issuer.name == *remote.issuer);
            probes.push(Probe {
                key: format!("auth.issuers[{}]", at.unwrap_or_default()),
                there: why.is_none(),
                message: match why {
                    Some((issuer, error)) => {
                        format!("the keys of {issuer} could not be fetched: {error}")
                    }
                    None => format!("the keys of {} were fetched", remote.issuer),
                },
            });
        }
        Ok(probes)
    })
}

/// Probes every primary of Redis. Returns a single entry if the primaries cannot be found.
async fn probe_redis(config: &Config) -> Vec<Probe> {
    let key = || "backend.redis.url".to_owned();
    match curfew_backend_redis::probe(&config.backend.of_redis(), &SystemClock).await {
        Err(message) => vec![Probe {
            key: key(),
            there: false,
            message,
        }],
        Ok(primaries) => {
            let told = primaries.into_iter().map(|primary| Probe {
                key: key(),
                there: primary.skew <= MAX_SKEW,
                message: match primary.skew <= MAX_SKEW {
                    true => format!("{} answers", primary.address),
                    false => format!(
                        "{} answers, but its clock differs from this machine's clock by {} s: synchronise the clocks",
                        primary.address,
                        primary.skew.as_secs()
                    ),
                },
            });
            told.collect()
        }
    }
}
