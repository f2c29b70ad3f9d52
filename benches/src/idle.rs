//! `curfew-bench idle`.

use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::cli::{Common, seconds};
use crate::connections::{Connections, Happened};
use crate::fan::{AT_ONCE, PATIENCE};
use crate::report;

/// Arguments of `curfew-bench idle`.
#[derive(Debug, Args)]
pub(crate) struct IdleArgs {
    /// Number of connections, each of another user
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Time to hold the connections before they are counted, in seconds
    #[arg(long, default_value = "10", value_parser = seconds)]
    seconds: Duration,
    /// Time to wait after the connections are closed, in seconds
    #[arg(long, default_value = "5", value_parser = seconds)]
    settle: Duration,
}

#[derive(Debug, Serialize)]
struct Report {
    connections: usize,
    /// Number of connections that ended early.
    closed: usize,
    seconds_to_open: f64,
    server_rss: Option<Rss>,
}

/// The server's resident memory, in KiB.
#[derive(Debug, Serialize)]
struct Rss {
    before: u64,
    opened: u64,
    held: u64,
    after_close: u64,
    per_connection: f64,
}

/// Opens, holds and closes connections, and reads the server's memory in between.
pub(crate) fn run(common: &Common, args: &IdleArgs) -> anyhow::Result<Value> {
    let server = common.server();
    let rss = || server.as_ref().map(|server| server.rss_kib()).transpose();
    let tokens = common.mint()?.tokens(args.connections)?;
    let mut connections = common.connections(args.connections)?;
    let before = rss()?;
    let began = Instant::now();
    connections.open_all(&tokens, AT_ONCE, PATIENCE)?;
    let seconds_to_open = began.elapsed().as_secs_f64();
    let opened = rss()?;
    let closed = hold(&mut connections, args.seconds)?;
    let held = rss()?;
    drop(connections);
    std::thread::sleep(args.settle);
    let after_close = rss()?;
    let server_rss = before.zip(opened).zip(held.zip(after_close));
    report::of(&Report {
        connections: args.connections,
        closed,
        seconds_to_open,
        server_rss: server_rss.map(|((before, opened), (held, after_close))| Rss {
            before,
            opened,
            held,
            after_close,
            per_connection: (held as f64 - before as f64) / args.connections as f64,
        }),
    })
}

/// Answers pings for a while. Returns the number of closed connections.
fn hold(connections: &mut Connections, time: Duration) -> anyhow::Result<usize> {
    let deadline = Instant::now() + time;
    let mut closed = 0;
    while Instant::now() < deadline {
        connections.turn(Duration::from_millis(100), |_, happened| {
            if let Happened::Closed(_) = happened {
                closed += 1;
            }
        })?;
    }
    Ok(closed)
}
