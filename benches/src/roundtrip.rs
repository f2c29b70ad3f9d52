//! `curfew-bench roundtrip`.

use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::cli::{Common, seconds};
use crate::connections::{Connections, Happened};
use crate::fan::{AT_ONCE, PATIENCE};
use crate::histogram::{Histogram, Latency};
use crate::process::Usage;
use crate::publication::{self, Publication};
use crate::{report, wire};

/// Arguments of `curfew-bench roundtrip`.
#[derive(Debug, Args)]
pub(crate) struct RoundtripArgs {
    /// Number of publishers; each has its own channel, and publishes again as soon as it has
    /// received its last publication
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Receive each publication on another node: each publisher has a second connection for this,
    /// on the next node
    #[arg(long)]
    across: bool,
    /// Size of a publication's data, in bytes of JSON, at least 31
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(publication::MIN_BYTES as i64..=32_000))]
    bytes: u16,
    /// Time to measure, in seconds
    #[arg(long, default_value = "10", value_parser = seconds)]
    seconds: Duration,
    /// Time to publish before the measurement begins, in seconds
    #[arg(long, default_value = "1", value_parser = seconds)]
    warmup: Duration,
}

#[derive(Debug, Serialize)]
struct Report {
    connections: usize,
    across: bool,
    payload_bytes: u16,
    roundtrips_per_second: f64,
    server_cpu_us_per_roundtrip: Option<f64>,
    latency: Option<Latency>,
    usage: Usage,
}

/// Lets each publisher publish to its own channel, and measures the time until it receives its
/// publication.
pub(crate) fn run(common: &Common, args: &RoundtripArgs) -> anyhow::Result<Value> {
    if args.across && common.urls.len() < 2 {
        bail!("--across needs at least two nodes: --url ws://...,ws://...");
    }
    let ends = if args.across { 2 } else { 1 };
    let count = args.connections * ends;
    let mut connections = common.connections(count)?;
    connections.open_all(&common.mint()?.tokens(count)?, AT_ONCE, PATIENCE)?;
    let mut echo = Echo {
        publications: (0..args.connections)
            .map(|slot| Publication::new(common.dialect, &name(slot), args.bytes.into()))
            .collect(),
        connections,
        ends,
        began: Instant::now(),
        latency: Histogram::new(),
        roundtrips: 0,
        due: Vec::new(),
    };
    for publisher in 0..args.connections {
        // The answer to this command starts the publisher.
        let command = common.dialect.subscribe(&name(publisher));
        let listening = publisher * ends + ends - 1;
        echo.connections.send(listening, &wire::text(&command));
    }
    echo.run_for(args.warmup)?;
    echo.latency = Histogram::new();
    echo.roundtrips = 0;
    let meter = common.meter()?;
    echo.run_for(args.seconds)?;
    let (usage, server_cpu_us) = meter.stop()?;
    report::of(&Report {
        connections: args.connections,
        across: args.across,
        payload_bytes: args.bytes,
        roundtrips_per_second: echo.roundtrips as f64 / usage.seconds,
        server_cpu_us_per_roundtrip: server_cpu_us.map(|us| us / echo.roundtrips as f64),
        latency: echo.latency.latency(),
        usage,
    })
}

#[derive(Debug)]
struct Echo {
    connections: Connections,
    /// Number of connections of each publisher. The first connection publishes, the last connection
    /// listens. Connections are assigned to the nodes in turn, so two connections of a publisher
    /// are on different nodes.
    ends: usize,
    publications: Vec<Publication>,
    began: Instant,
    latency: Histogram,
    roundtrips: u64,
    /// Publishers that publish next.
    due: Vec<usize>,
}

impl Echo {
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
            ends,
            began,
            latency,
            roundtrips,
            due,
            ..
        } = self;
        let dialect = connections.dialect();
        let mut failed = None;
        connections.turn(
            Duration::from_millis(100),
            |slot, happened| match happened {
                Happened::Message(message) => {
                    if let Some(age) = publication::age(message, *began) {
                        latency.record(age);
                    }
                    *roundtrips += 1;
                    due.push(slot / *ends);
                }
                Happened::Other(reply) if reply.starts_with(dialect.ok()) => {
                    due.push(slot / *ends);
                }
                other => failed = Some(format!("connection {slot}: {other:?}")),
            },
        )?;
        if let Some(why) = failed {
            bail!("{why}");
        }
        for publisher in self.due.drain(..) {
            self.connections.send(
                publisher * self.ends,
                self.publications[publisher].stamped(self.began),
            );
        }
        Ok(())
    }
}

fn name(publisher: usize) -> String {
    format!("bench:{publisher}")
}
