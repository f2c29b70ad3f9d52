//! `curfew-bench presence`.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cli::{Common, seconds};
use crate::connections::{Connections, Happened};
use crate::fan::{AT_ONCE, PATIENCE};
use crate::histogram::{Histogram, Latency};
use crate::process::Usage;
use crate::{report, subscribe, wire};

/// Arguments of `curfew-bench presence`.
#[derive(Debug, Args)]
pub(crate) struct PresenceArgs {
    /// Number of subscribers of the channel, each of another user
    #[arg(long, default_value_t = 10_000)]
    subscribers: usize,
    /// Number of times that the first subscriber asks for the channel's presence, one question at a
    /// time
    #[arg(long, default_value_t = 100)]
    times: usize,
    /// First part of the channel's name
    #[arg(long, default_value = "bench")]
    prefix: String,
    /// Time to wait before the first question, in seconds
    #[arg(long, default_value = "2", value_parser = seconds)]
    settle: Duration,
}

#[derive(Debug, Serialize)]
struct Report {
    subscribers: usize,
    /// Number of sessions in one answer.
    listed: usize,
    users: u64,
    truncated: bool,
    answer_bytes: usize,
    latency: Option<Latency>,
    usage: Usage,
}

/// The members of the answer that the report needs.
#[derive(Debug, Deserialize)]
struct Present {
    r#type: String,
    sessions: Vec<Value>,
    users: u64,
    truncated: bool,
}

/// Subscribes many sessions to a channel and requests the list of these sessions.
pub(crate) fn run(common: &Common, args: &PresenceArgs) -> anyhow::Result<Value> {
    if args.subscribers == 0 || args.times == 0 {
        bail!("subscribers and times must be at least 1");
    }
    let channel = format!("{}:0", args.prefix);
    let mut connections = common.connections(args.subscribers)?;
    connections.open_all(&common.mint()?.tokens(args.subscribers)?, AT_ONCE, PATIENCE)?;
    subscribe::all(&mut connections, |_| [channel.clone()], |_, _| {})?;
    std::thread::sleep(args.settle);
    let question = wire::text(&format!(
        r#"{{"type":"presence","id":1,"channel":"{channel}"}}"#
    ));
    // The first answer does not count, because its data is in no cache yet.
    let first = ask(&mut connections, &question)?;
    let present: Present = serde_json::from_slice(&first)
        .with_context(|| format!("the answer is {}", String::from_utf8_lossy(&first)))?;
    if present.r#type != "presence" || present.users != args.subscribers as u64 {
        bail!(
            "{} users are present instead of {}",
            present.users,
            args.subscribers
        );
    }
    let mut latency = Histogram::new();
    let meter = common.meter()?;
    for _ in 0..args.times {
        let began = Instant::now();
        ask(&mut connections, &question)?;
        latency.record(began.elapsed());
    }
    let (usage, _) = meter.stop()?;
    report::of(&Report {
        subscribers: args.subscribers,
        listed: present.sessions.len(),
        users: present.users,
        truncated: present.truncated,
        answer_bytes: first.len(),
        latency: latency.latency(),
        usage,
    })
}

/// Sends the question on the first connection, and waits for the answer.
fn ask(connections: &mut Connections, question: &[u8]) -> anyhow::Result<Vec<u8>> {
    connections.send(0, question);
    let deadline = Instant::now() + PATIENCE;
    let (mut answer, mut failed) = (None, None);
    while answer.is_none() {
        connections.turn(
            Duration::from_millis(100),
            |slot, happened| match happened {
                Happened::Other(frame) if slot == 0 => answer = Some(frame.to_vec()),
                other => failed = Some(format!("connection {slot}: {other}")),
            },
        )?;
        if let Some(why) = failed {
            bail!("{why}");
        }
        if Instant::now() > deadline {
            bail!("the gateway takes too long to answer a request for presence");
        }
    }
    answer.context("no answer has arrived")
}
