//! `curfew-bench connect`.

use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::cli::{Common, seconds};
use crate::connections::{Connections, Happened};
use crate::histogram::{Histogram, Latency};
use crate::process::Usage;
use crate::report;

/// Number of prepared tokens. Connections use them in turn.
const TOKENS: usize = 10_000;

/// Arguments of `curfew-bench connect`.
#[derive(Debug, Args)]
pub(crate) struct ConnectArgs {
    /// Handshakes under way at a time
    #[arg(long, default_value_t = 64)]
    at_once: usize,
    /// Time to measure, in seconds
    #[arg(long, default_value = "10", value_parser = seconds)]
    seconds: Duration,
    /// Time to connect before the measurement begins, in seconds
    #[arg(long, default_value = "1", value_parser = seconds)]
    warmup: Duration,
}

#[derive(Debug, Serialize)]
struct Report {
    at_once: usize,
    handshakes: u64,
    handshakes_per_second: f64,
    server_cpu_us_per_handshake: Option<f64>,
    server_rss_kib: Option<u64>,
    latency: Option<Latency>,
    usage: Usage,
}

/// Repeatedly opens a connection, waits for `connected`, and resets the connection.
pub(crate) fn run(common: &Common, args: &ConnectArgs) -> anyhow::Result<Value> {
    if args.at_once == 0 {
        bail!("at least one handshake must be under way");
    }
    let mut caller = Caller {
        tokens: common.mint()?.tokens(TOKENS)?,
        // One more connection is needed, because a connection is opened before the connection that
        // it replaces is closed.
        connections: common.connections(args.at_once + 1)?,
        started: Vec::with_capacity(args.at_once),
        next: 0,
        latency: Histogram::new(),
        handshakes: 0,
        opened: Vec::new(),
    };
    for _ in 0..args.at_once {
        caller.started.push(Instant::now());
        caller.connections.start(&caller.tokens[caller.next])?;
        caller.next = (caller.next + 1) % TOKENS;
    }
    caller.run_for(args.warmup)?;
    caller.latency = Histogram::new();
    caller.handshakes = 0;
    let meter = common.meter()?;
    caller.run_for(args.seconds)?;
    let (usage, server_cpu_us) = meter.stop()?;
    report::of(&Report {
        at_once: args.at_once,
        handshakes: caller.handshakes,
        handshakes_per_second: caller.handshakes as f64 / usage.seconds,
        server_cpu_us_per_handshake: server_cpu_us.map(|us| us / caller.handshakes as f64),
        server_rss_kib: common.server().map(|server| server.rss_kib()).transpose()?,
        latency: caller.latency.latency(),
        usage,
    })
}

#[derive(Debug)]
struct Caller {
    connections: Connections,
    tokens: Vec<String>,
    next: usize,
    /// Start of each handshake, by connection.
    started: Vec<Instant>,
    latency: Histogram,
    handshakes: u64,
    opened: Vec<usize>,
}

impl Caller {
    fn run_for(&mut self, time: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline {
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> anyhow::Result<()> {
        let Self {
            connections,
            started,
            latency,
            opened,
            ..
        } = self;
        let mut failed = None;
        connections.turn(
            Duration::from_millis(100),
            |slot, happened| match happened {
                Happened::Opened => {
                    latency.record(started[slot].elapsed());
                    opened.push(slot);
                }
                other => failed = Some(format!("connection {slot}: {other:?}")),
            },
        )?;
        if let Some(why) = failed {
            bail!("{why}");
        }
        for slot in self.opened.drain(..) {
            self.handshakes += 1;
            self.started[slot] = Instant::now();
            self.connections.restart(slot, &self.tokens[self.next])?;
            self.next = (self.next + 1) % TOKENS;
        }
        Ok(())
    }
}
