//! `curfew-bench subscriptions`.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::cli::{Common, seconds};
use crate::fan::{AT_ONCE, PATIENCE};
use crate::{report, subscribe};

/// Arguments of `curfew-bench subscriptions`.
#[derive(Debug, Args)]
pub(crate) struct SubscriptionsArgs {
    /// Number of connections, each of another user
    #[arg(long, default_value_t = 1000)]
    connections: usize,
    /// Number of channels, which are assigned to connections in turn
    #[arg(long, default_value_t = 100)]
    channels: usize,
    /// Channels that each connection subscribes to
    #[arg(long, default_value_t = 100)]
    channels_each: usize,
    /// First part of the channels' names
    #[arg(long, default_value = "bench")]
    prefix: String,
    /// Time to wait before memory is read, in seconds, while unused memory is returned to the
    /// system
    #[arg(long, default_value = "4", value_parser = seconds)]
    settle: Duration,
}

#[derive(Debug, Serialize)]
struct Report {
    subscriptions: usize,
    channels: usize,
    server_rss_before_kib: u64,
    server_rss_after_kib: u64,
    bytes_per_subscription: f64,
}

/// Subscribes, and reads the server's memory before and after.
pub(crate) fn run(common: &Common, args: &SubscriptionsArgs) -> anyhow::Result<Value> {
    let (all, each) = (args.channels, args.channels_each);
    if args.connections == 0 || !(1..=all).contains(&each) {
        bail!(
            "--connections must be at least 1, and each connection can subscribe to 1 to {all} channels"
        );
    }
    let server = common
        .server()
        .context("--pid is missing: the process whose memory is measured")?;
    let mut connections = common.connections(args.connections)?;
    connections.open_all(&common.mint()?.tokens(args.connections)?, AT_ONCE, PATIENCE)?;
    sleep(args.settle);
    let before = server.rss_kib()?;
    let channels_of = |slot: usize| {
        (slot * each..(slot + 1) * each).map(|at| format!("{}:{}", args.prefix, at % all))
    };
    subscribe::all(&mut connections, channels_of, |_, _| {})?;
    sleep(args.settle);
    let after = server.rss_kib()?;
    let subscriptions = args.connections * each;
    report::of(&Report {
        subscriptions,
        channels: all,
        server_rss_before_kib: before,
        server_rss_after_kib: after,
        bytes_per_subscription: (after as f64 - before as f64) * 1024.0 / subscriptions as f64,
    })
}
