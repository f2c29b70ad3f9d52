//! Measures the time for which a node with many sessions delivers nothing after a fault of Redis or
//! of the connection to Redis. The time begins with the command to Redis that causes the fault, and
//! ends when the node holds its lease again. It includes the detection of the fault, the wait
//! before the next attempt to connect, and the new connection.

mod node;
mod server;

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::{Parser, ValueEnum};
use curfew_benches::resp::Resp;

use node::Node;
use server::Server;

/// Pause between two rounds. A node waits a second between two setups on the same connection, and
/// this wait must not count.
const PAUSE: Duration = Duration::from_millis(1500);

/// Deadline for a node to know every revocation.
const PATIENCE: Duration = Duration::from_secs(120);

/// Measures how long reconciliation takes.
#[derive(Debug, Parser)]
struct Args {
    /// Open sessions of the node
    #[arg(long, default_value_t = 100_000)]
    sessions: usize,
    /// Revocations of other users that are in force in the second half of the measurement
    #[arg(long, default_value_t = 1_000_000)]
    revocations: usize,
    /// Rounds of each measurement
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Causes of the comparison; all by default
    #[arg(long = "cause", value_enum, default_values_t = Cause::ALL)]
    causes: Vec<Cause>,
    /// Set by `cargo bench`. Without this option, as under `cargo test`, all numbers are small
    #[arg(long, hide = true)]
    bench: bool,
}

/// The fault that causes a comparison of every session.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Cause {
    /// The control connection is cut, and the node makes a new one.
    Cut,
    /// Another database is emptied. Redis does not tell which database was emptied, so the node
    /// must assume that its own database was emptied.
    OtherEmptied,
    /// All databases are emptied. The node writes back revocations before it compares sessions.
    Emptied,
}

impl Cause {
    const ALL: [Self; 3] = [Self::Cut, Self::OtherEmptied, Self::Emptied];

    fn name(self) -> &'static str {
        match self {
            Self::Cut => "connection cut",
            Self::OtherEmptied => "another database emptied",
            Self::Emptied => "everything emptied",
        }
    }

    fn bring_about(self, redis: &mut Resp) -> anyhow::Result<Instant> {
        let commands: &[&[&str]] = match self {
            Self::Cut => {
                let id = control_connection(redis)?;
                let began = Instant::now();
                redis.call(&["CLIENT", "KILL", "ID", &id])?;
                return Ok(began);
            }
            Self::OtherEmptied => &[&["SELECT", "1"], &["FLUSHDB"], &["SELECT", "0"]],
            // The command is asynchronous, because the time that Redis needs to free memory must
            // not count.
            Self::Emptied => &[&["FLUSHALL", "ASYNC"]],
        };
        let began = Instant::now();
        for command in commands {
            redis.call(command)?;
        }
        Ok(began)
    }
}

fn main() -> anyhow::Result<()> {
    let mut args = Args::parse();
    if !args.bench {
        args = Args {
            sessions: 1000,
            revocations: 1000,
            rounds: 1,
            ..args
        };
    }
    println!("{} sessions, {} rounds; ms", args.sessions, args.rounds);
    println!("revocations  cause                          min   median      max");
    for revocations in [0, args.revocations] {
        measure(&args, revocations)?;
    }
    Ok(())
}

fn measure(args: &Args, revocations: usize) -> anyhow::Result<()> {
    let server = Server::start()?;
    server.revoke_others(revocations)?;
    let node = Node::start(server.port, args.sessions)?;
    let began = node.started;
    let mut opened = [node.opened()?.duration_since(began)];
    print(revocations, "starting", &mut opened);
    let mut redis = server.connect()?;
    settle(&mut redis, &node, args.sessions, revocations)?;
    let mut settled = [began.elapsed()];
    print(revocations, "until all is known", &mut settled);
    for &cause in &args.causes {
        let mut times = Vec::with_capacity(args.rounds);
        for _ in 0..args.rounds {
            std::thread::sleep(PAUSE);
            if node.opened_by_itself() {
                bail!("the lease was lost in between: the machine is too busy to measure");
            }
            let began = cause.bring_about(&mut redis)?;
            times.push(node.opened()?.duration_since(began));
            settle(&mut redis, &node, args.sessions, revocations)?;
        }
        print(revocations, cause.name(), &mut times);
    }
    Ok(())
}

fn print(revocations: usize, what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let ms = |at: usize| {
        let time = times.get(at).copied().unwrap_or_default();
        time.as_secs_f64() * 1e3
    };
    let (min, median, max) = (
        ms(0),
        ms(times.len() / 2),
        ms(times.len().saturating_sub(1)),
    );
    println!("{revocations:11}  {what:24}  {min:8.1} {median:8.1} {max:8.1}");
}

/// Waits until the node knows every revocation and has recorded every session. The node then has no
/// other work that could disturb the next round.
fn settle(
    redis: &mut Resp,
    node: &Node,
    sessions: usize,
    revocations: usize,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let recorded = redis.call(&["ZCARD", "curfew:sessions"])?;
        if recorded == sessions.to_string() && node.known() == revocations {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!(
                "only {recorded} of {sessions} sessions are recorded, and {} of {revocations} revocations are known in time",
                node.known()
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The id of the connection that tracks keys by their prefix.
fn control_connection(redis: &mut Resp) -> anyhow::Result<String> {
    let list = redis.call(&["CLIENT", "LIST"])?;
    list.lines()
        .find(|client| client.contains(" flags=tB "))
        .and_then(|client| {
            client
                .split(' ')
                .find_map(|field| field.strip_prefix("id="))
        })
        .map(str::to_owned)
        .context("no connection tracks keys")
}
