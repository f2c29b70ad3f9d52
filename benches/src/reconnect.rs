//! `curfew-bench reconnect`.

use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::cli::{Common, seconds};
use crate::fan::{AT_ONCE, PATIENCE};
use crate::process::Usage;
use crate::report;

/// Arguments of `curfew-bench reconnect`.
#[derive(Debug, Args)]
pub(crate) struct ReconnectArgs {
    /// Number of connections, each of another user
    #[arg(long, default_value_t = 4000)]
    connections: usize,
    /// Time to wait, in seconds, each time before the server's memory is read: before the cut, and
    /// after all connections are open again
    #[arg(long, default_value = "2", value_parser = seconds)]
    settle: Duration,
    /// Deadline for all connections to be open again, in seconds
    #[arg(long, default_value = "60", value_parser = seconds)]
    seconds: Duration,
}

#[derive(Debug, Serialize)]
struct Report {
    connections: usize,
    seconds_until_all_are_back: f64,
    server_rss_before_kib: Option<u64>,
    server_rss_after_kib: Option<u64>,
    usage: Usage,
}

/// Cuts all connections, and opens the same number again at once.
pub(crate) fn run(common: &Common, args: &ReconnectArgs) -> anyhow::Result<Value> {
    let rss = || common.server().map(|server| server.rss_kib()).transpose();
    let tokens = common.mint()?.tokens(args.connections)?;
    let mut connections = common.connections(args.connections)?;
    connections.open_all(&tokens, AT_ONCE, PATIENCE)?;
    std::thread::sleep(args.settle);
    let before = rss()?;

    let meter = common.meter()?;
    let began = Instant::now();
    let deadline = began + args.seconds;
    // The cut is as sudden as a network failure: all connections are closed before a new one is
    // begun.
    drop(connections);
    let mut connections = common.connections(args.connections)?;
    connections.open_all(&tokens, args.connections, deadline - Instant::now())?;
    let seconds_until_all_are_back = began.elapsed().as_secs_f64();
    let (usage, _) = meter.stop()?;
    std::thread::sleep(args.settle);
    report::of(&Report {
        connections: args.connections,
        seconds_until_all_are_back,
        server_rss_before_kib: before,
        server_rss_after_kib: rss()?,
        usage,
    })
}
