//! `curfew-bench publish`.

use std::collections::VecDeque;
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
use crate::{report, wire};

/// Arguments of `curfew-bench publish`.
#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// Connections that publish
    #[arg(long, default_value_t = 256)]
    connections: usize,
    /// Number of channels that the connections publish to, in turn. Without this option, each
    /// connection has its own channel
    #[arg(long)]
    channels: Option<usize>,
    /// First part of the channels' names
    #[arg(long, default_value = "bench")]
    prefix: String,
    /// Maximum number of unanswered publications of each connection
    #[arg(long, default_value_t = 16)]
    window: usize,
    /// Number of publications for each requested answer: only every Nth publication has an id
    #[arg(long, default_value_t = 1)]
    answer_every: usize,
    /// Size of a publication's data, in bytes of JSON, at least 2
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(2..=32_000))]
    bytes: u16,
    /// Time to measure, in seconds
    #[arg(long, default_value = "10", value_parser = seconds)]
    seconds: Duration,
    /// Time to publish before the measurement begins, in seconds
    #[arg(long, default_value = "2", value_parser = seconds)]
    warmup: Duration,
}

#[derive(Debug, Serialize)]
struct Report {
    connections: usize,
    channels: usize,
    window: usize,
    answer_every: usize,
    payload_bytes: u16,
    publications: u64,
    publications_per_second: f64,
    server_cpu_us_per_publication: Option<f64>,
    redis_cpu_us_per_publication: Option<f64>,
    /// Time from the sending of a publication to its answer. It includes the time in which the
    /// gateway handles earlier unanswered publications.
    latency: Option<Latency>,
    usage: Usage,
}

/// Publishes and counts answers.
pub(crate) fn run(common: &Common, args: &PublishArgs) -> anyhow::Result<Value> {
    let every = args.answer_every;
    let channels = args.channels.unwrap_or(args.connections);
    if args.connections == 0 || channels == 0 || every == 0 || args.window < every {
        bail!(
            "--connections, --channels and --answer-every must be at least 1, and --window at least --answer-every"
        );
    }
    let mut connections = common.connections(args.connections)?;
    connections.open_all(&common.mint()?.tokens(args.connections)?, AT_ONCE, PATIENCE)?;
    let mut press = Press {
        frames: (0..args.connections)
            .map(|slot| {
                let channel = format!("{}:{}", args.prefix, slot % channels);
                frames(&channel, args.bytes.into(), every)
            })
            .collect(),
        sent: vec![VecDeque::with_capacity(args.window); args.connections],
        every: every as u64,
        window: args.window / every,
        connections,
        heard: (0..args.connections).collect(),
        latency: Histogram::new(),
        accepted: 0,
    };
    press.run_for(args.warmup)?;
    press.latency = Histogram::new();
    press.accepted = 0;
    let meter = common.meter()?;
    press.run_for(args.seconds)?;
    let (usage, server_cpu_us) = meter.stop()?;
    let publications = press.accepted;
    let each = |us: f64| us / publications as f64;
    report::of(&Report {
        connections: args.connections,
        channels,
        window: args.window,
        answer_every: every,
        payload_bytes: args.bytes,
        publications,
        publications_per_second: publications as f64 / usage.seconds,
        server_cpu_us_per_publication: server_cpu_us.map(each),
        redis_cpu_us_per_publication: usage
            .redis_busy
            .map(|busy| each(busy * usage.seconds * 1e6)),
        latency: press.latency.latency(),
        usage,
    })
}

#[derive(Debug)]
struct Press {
    connections: Connections,
    /// By connection: the frames that the connection sends again and again. Only the last of these
    /// publications requests an answer.
    frames: Vec<Vec<u8>>,
    /// By connection: the sending times of the unanswered groups of `every` publications. Answers
    /// arrive in the same order.
    sent: Vec<VecDeque<Instant>>,
    /// Number of publications for each answer.
    every: u64,
    /// Maximum number of unanswered groups of publications for each connection.
    window: usize,
    /// Connections that may send further publications.
    heard: Vec<usize>,
    latency: Histogram,
    accepted: u64,
}

impl Press {
    fn run_for(&mut self, time: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline {
            self.fill();
            self.receive()?;
        }
        Ok(())
    }

    /// Sends new publications in place of the answered publications.
    fn fill(&mut self) {
        for slot in self.heard.drain(..) {
            let sent = &mut self.sent[slot];
            let now = Instant::now();
            while sent.len() < self.window {
                self.connections.queue(slot, &self.frames[slot]);
                sent.push_back(now);
            }
            self.connections.flush(slot);
        }
    }

    fn receive(&mut self) -> anyhow::Result<()> {
        let Self {
            connections,
            sent,
            heard,
            latency,
            accepted,
            every,
            ..
        } = self;
        let mut failed = None;
        connections.turn(
            Duration::from_millis(100),
            |slot, happened| match happened {
                Happened::Other(reply) if reply.starts_with(b"{\"type\":\"ok\"") => {
                    *accepted += *every;
                    if let Some(at) = sent[slot].pop_front() {
                        latency.record(at.elapsed());
                    }
                    if heard.last() != Some(&slot) {
                        heard.push(slot);
                    }
                }
                Happened::Other(other) => {
                    failed = Some(format!(
                        "connection {slot}: {}",
                        String::from_utf8_lossy(other)
                    ));
                }
                other => failed = Some(format!("connection {slot}: {other:?}")),
            },
        )?;
        match failed {
            Some(why) => bail!("{why}"),
            None => Ok(()),
        }
    }
}

/// The frames of `count` publications. Only the last publication requests an answer.
fn frames(channel: &str, bytes: usize, count: usize) -> Vec<u8> {
    let data = "x".repeat(bytes - 2);
    let rest = format!(r#""channel":"{channel}","data":"{data}"}}"#);
    let mut frames = wire::text(&format!(r#"{{"type":"publish",{rest}"#)).repeat(count - 1);
    frames.extend(wire::text(&format!(r#"{{"type":"publish","id":1,{rest}"#)));
    frames
}
