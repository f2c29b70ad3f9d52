//! `curfew-bench revoke`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::cli::{Common, seconds};
use crate::connections::{Connections, Happened};
use crate::fan::{AT_ONCE, PATIENCE};
use crate::histogram::{Histogram, Latency};
use crate::process::Usage;
use crate::report;
use crate::resp::Resp;

/// The close code of a revoked session.
const REVOKED: u16 = 4403;

/// Lifetime of a revocation's key, in seconds. The key must expire soon after the run, because the
/// next run has users with the same names.
const KEY_SECONDS: &str = "60";

/// Longest wait for an event. It limits the precision of the rate.
const TURN: Duration = Duration::from_millis(1);

/// Arguments of `curfew-bench revoke`.
#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    /// The Redis that the nodes share
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:6379")]
    redis: String,
    /// The nodes' `backend.redis.prefix`
    #[arg(long, default_value = "curfew:")]
    prefix: String,
    /// Connections that are held, each of another user
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Number of users to revoke
    #[arg(long, default_value_t = 300)]
    times: usize,
    /// Revocations per second. Without this option, each revocation waits until the previous
    /// revocation has closed its connection and a new connection is open
    #[arg(long)]
    rate: Option<f64>,
    /// Deadline for a close frame, in seconds
    #[arg(long, default_value = "10", value_parser = seconds)]
    patience: Duration,
    /// Time to wait with all connections open before the first revocation, in seconds
    #[arg(long, default_value = "2", value_parser = seconds)]
    settle: Duration,
}

#[derive(Debug, Serialize)]
struct Report {
    nodes: usize,
    connections: usize,
    revocations: u64,
    revocations_per_second: f64,
    /// Time from just before the sending of `SET` to the receipt of the close frame.
    latency: Option<Latency>,
    usage: Usage,
}

/// Revokes users of open connections and waits for their close frames.
pub(crate) fn run(common: &Common, args: &RevokeArgs) -> anyhow::Result<Value> {
    if args.times == 0 || args.connections < 2 {
        bail!("there must be at least one revocation and two connections");
    }
    // A new user replaces each revoked user, so one more token is needed for each revocation.
    let tokens = common.mint()?.tokens(args.connections + args.times)?;
    let mut connections = common.connections(args.connections)?;
    connections.open_all(&tokens[..args.connections], AT_ONCE, PATIENCE)?;
    let mut axe = Axe {
        connections,
        redis: Resp::connect(&args.redis)?,
        prefix: &args.prefix,
        users: (0..args.connections).collect(),
        tokens: &tokens,
        next: args.connections,
        sent: HashMap::new(),
        opening: 0,
        written: Vec::with_capacity(args.times),
        latency: Histogram::new(),
    };
    axe.idle_for(args.settle)?;
    let meter = common.meter()?;
    let outcome = axe.run(args);
    let (usage, _) = meter.stop()?;
    axe.lift()?;
    outcome?;
    report::of(&Report {
        nodes: common.urls.len(),
        connections: args.connections,
        revocations: axe.written.len() as u64,
        revocations_per_second: axe.written.len() as f64 / usage.seconds,
        latency: axe.latency.latency(),
        usage,
    })
}

#[derive(Debug)]
struct Axe<'a> {
    connections: Connections,
    redis: Resp,
    prefix: &'a str,
    /// By connection: the index of its user.
    users: Vec<usize>,
    /// The tokens, by index of the user.
    tokens: &'a [String],
    /// The user for the next free connection.
    next: usize,
    /// By connection: the time at which the revocation of its user was written. The entry is
    /// removed when the close frame arrives.
    sent: HashMap<usize, Instant>,
    /// Number of connections that are being opened as replacements.
    opening: usize,
    /// The key of every revocation that was written.
    written: Vec<String>,
    latency: Histogram,
}

impl Axe<'_> {
    /// Answers pings for a while.
    fn idle_for(&mut self, time: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline {
            self.turn()?;
        }
        Ok(())
    }

    fn run(&mut self, args: &RevokeArgs) -> anyhow::Result<()> {
        let began = Instant::now();
        while self.written.len() < args.times || self.is_busy() {
            let due = match args.rate {
                Some(rate) => (self.written.len() as f64) < began.elapsed().as_secs_f64() * rate,
                None => !self.is_busy(),
            };
            if due && self.written.len() < args.times {
                self.revoke()?;
            }
            self.turn()?;
            self.check(args.patience)?;
        }
        Ok(())
    }

    fn is_busy(&self) -> bool {
        !self.sent.is_empty() || self.opening > 0
    }

    /// Writes the revocation of a random connection's user.
    fn revoke(&mut self) -> anyhow::Result<()> {
        let slot = loop {
            let slot = fastrand::usize(..self.users.len());
            if self.connections.is_open(slot) && !self.sent.contains_key(&slot) {
                break slot;
            }
        };
        let key = format!("{}{{revoked}}:user:bench-{}", self.prefix, self.users[slot]);
        self.sent.insert(slot, Instant::now());
        self.redis.send(&["SET", &key, "1", "EX", KEY_SECONDS])?;
        self.written.push(key);
        Ok(())
    }

    fn turn(&mut self) -> anyhow::Result<()> {
        let Self {
            connections,
            sent,
            opening,
            latency,
            ..
        } = self;
        let mut failed = None;
        let mut closed = Vec::new();
        connections.turn(TURN, |slot, happened| match happened {
            Happened::Closed(Some(REVOKED)) if sent.contains_key(&slot) => {
                if let Some(sent) = sent.remove(&slot) {
                    latency.record(sent.elapsed());
                }
                closed.push(slot);
            }
            Happened::Opened => *opening = opening.saturating_sub(1),
            Happened::Message(_) | Happened::Other(_) => {}
            other => failed = Some(format!("connection {slot}: {other:?}")),
        })?;
        if let Some(why) = failed {
            bail!("{why}");
        }
        for slot in closed {
            // Redis replied before it notified the nodes, so this call does not wait.
            self.redis.receive()?;
            self.connections.restart(slot, &self.tokens[self.next])?;
            self.users[slot] = self.next;
            self.next += 1;
            self.opening += 1;
        }
        Ok(())
    }

    fn check(&mut self, patience: Duration) -> anyhow::Result<()> {
        let late = self.sent.iter().find(|(_, sent)| sent.elapsed() > patience);
        let Some((&slot, _)) = late else {
            return Ok(());
        };
        self.sent.remove(&slot);
        self.redis.receive().context("write a revocation")?;
        bail!("a revoked user's connection was not closed within {patience:?}")
    }

    /// Lifts every revocation, for the next run.
    fn lift(&mut self) -> anyhow::Result<()> {
        for _ in self.sent.drain() {
            self.redis.receive()?;
        }
        let mut command = vec!["DEL"];
        command.extend(self.written.iter().map(String::as_str));
        self.redis.call(&command)?;
        Ok(())
    }
}
