//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand};
use curfew_auth::Algorithm;

use crate::connections::Connections;
use crate::dialect::Dialect;
use crate::process::{Meter, Processes};
use crate::target::Target;
use crate::tokens::Mint;
use crate::{
    connect, fanout, idle, presence, publish, reconnect, recover, report, revoke, roundtrip, slow,
    subscriptions,
};

/// Number of file descriptors besides those of the connections.
const OTHER_DESCRIPTORS: u64 = 32;

/// Loads a WebSocket gateway and says what that cost it.
#[derive(Debug, Parser)]
#[command(name = "curfew-bench", version, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// Arguments of every command.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// The gateway's URL; if there are several nodes, their URLs, separated by commas, get
    /// connections in turn
    #[arg(
        long = "url",
        value_name = "URL",
        value_delimiter = ',',
        default_value = "ws://127.0.0.1:8080/ws",
        global = true
    )]
    pub(crate) urls: Vec<Target>,
    /// The gateway's protocol
    #[arg(long, value_enum, default_value_t, global = true)]
    pub(crate) dialect: Dialect,
    /// File with the secret the gateway verifies tokens with, or the private key to its public one
    #[arg(long, value_name = "FILE", global = true)]
    key_file: Option<PathBuf>,
    /// Algorithm that signs tokens
    #[arg(long, default_value = "HS256", global = true)]
    algorithm: Algorithm,
    /// The gateway's process id, to report its memory and CPU time; for several nodes all ids,
    /// whose sum is reported
    #[arg(long = "pid", value_name = "PID", value_delimiter = ',', global = true)]
    pids: Vec<u32>,
    /// The process id of Redis, to report its CPU time
    #[arg(long, value_name = "PID", global = true)]
    redis_pid: Option<u32>,
    /// Print one JSON object
    #[arg(long, global = true)]
    json: bool,
}

/// The command.
#[derive(Debug, Subcommand)]
enum Command {
    /// Hold connections that do nothing: memory per connection
    Idle(idle::IdleArgs),
    /// Publish to many subscribers: deliveries per second, CPU per delivery, latency
    #[command(visible_alias = "saturate")]
    Fanout(fanout::FanoutArgs),
    /// Publish to oneself, one publication at a time: latency
    Roundtrip(roundtrip::RoundtripArgs),
    /// Connect, authenticate, hang up, again and again: handshakes per second
    Connect(connect::ConnectArgs),
    /// Cut every connection and reopen all at once: time until all are open
    #[command(visible_alias = "storm")]
    Reconnect(reconnect::ReconnectArgs),
    /// Let some subscribers stop reading: effect on the other subscribers
    Slow(slow::SlowArgs),
    /// Write revocations to Redis: time from `SET` to the close frame
    Revoke(revoke::RevokeArgs),
    /// Publish without subscribers: publications per second
    Publish(publish::PublishArgs),
    /// Cut every subscriber and reopen all at once: time until all have the missed publications
    Recover(recover::RecoverArgs),
    /// Subscribe to many channels: memory per subscription
    Subscriptions(subscriptions::SubscriptionsArgs),
    /// Ask who is in a channel, one question at a time: latency
    Presence(presence::PresenceArgs),
}

/// Runs the command that the arguments of the process name, and prints the measurement.
///
/// # Errors
///
/// The gateway cannot be reached, refuses, or does not answer in time.
pub fn run() -> anyhow::Result<()> {
    let Cli { common, command } = Cli::parse();
    let json = common.json;
    let report = match command {
        Command::Idle(args) => idle::run(&common, &args),
        Command::Fanout(args) => fanout::run(&common, &args),
        Command::Roundtrip(args) => roundtrip::run(&common, &args),
        Command::Connect(args) => connect::run(&common, &args),
        Command::Reconnect(args) => reconnect::run(&common, &args),
        Command::Slow(args) => slow::run(&common, &args),
        Command::Revoke(args) => revoke::run(&common, &args),
        Command::Publish(args) => publish::run(&common, &args),
        Command::Recover(args) => recover::run(&common, &args),
        Command::Subscriptions(args) => subscriptions::run(&common, &args),
        Command::Presence(args) => presence::run(&common, &args),
    }?;
    report::print(&report, json);
    Ok(())
}

impl Common {
    /// Prepares `count` connections to the gateway. None of them is open yet.
    pub(crate) fn connections(&self, count: usize) -> anyhow::Result<Connections> {
        let wanted = count as u64 + OTHER_DESCRIPTORS;
        let limit =
            rlimit::increase_nofile_limit(wanted).context("raise the limit of open files")?;
        if limit < wanted {
            bail!(
                "{count} connections need {wanted} open files, but the hard limit is {limit}: raise it with ulimit -Hn"
            );
        }
        Connections::new(self.urls.clone(), self.dialect, count)
    }

    /// The signer of this run's tokens.
    pub(crate) fn mint(&self) -> anyhow::Result<Mint> {
        let Some(path) = &self.key_file else {
            bail!("--key-file is missing: the file with the secret of the gateway's issuer");
        };
        Mint::from_file(path, self.algorithm)
    }

    /// The gateway's processes, if they are known.
    pub(crate) fn server(&self) -> Option<Processes> {
        (!self.pids.is_empty()).then(|| Processes::of(&self.pids))
    }

    /// Starts to measure the costs of all processes.
    pub(crate) fn meter(&self) -> anyhow::Result<Meter> {
        let redis = self.redis_pid.map(|pid| Processes::of(&[pid]));
        Meter::start(self.server(), redis)
    }
}

/// Parses a duration in seconds.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
