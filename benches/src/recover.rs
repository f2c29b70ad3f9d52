//! `curfew-bench recover`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cli::{Common, seconds};
use crate::connections::{Connections, Happened};
use crate::fan::{AT_ONCE, PATIENCE};
use crate::process::Usage;
use crate::resp::Resp;
use crate::target::Target;
use crate::{report, subscribe, wire};

/// Arguments of `curfew-bench recover`.
#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    /// Number of connections, each of another user, all subscribed to one channel
    #[arg(long, default_value_t = 2000)]
    connections: usize,
    /// Number of publications before all connections are cut
    #[arg(long, default_value_t = 10)]
    publications: usize,
    /// Let each connection recover the publications from before the cut. Without this option, each
    /// connection only subscribes again
    #[arg(long)]
    since: bool,
    /// Size of a publication's data, in bytes of JSON, at least 2
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(2..=32_000))]
    bytes: u16,
    /// First part of the channel's name
    #[arg(long, default_value = "bench")]
    prefix: String,
    /// The nodes that the connections are reopened to. Without this option, they are reopened to
    /// the same nodes as before
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    back_to: Option<Vec<Target>>,
    /// The Redis whose commands are counted
    #[arg(long, value_name = "HOST:PORT")]
    redis: Option<String>,
    /// Time to wait before the cut, in seconds
    #[arg(long, default_value = "2", value_parser = seconds)]
    settle: Duration,
    /// Deadline for all connections to be current again, in seconds
    #[arg(long, default_value = "60", value_parser = seconds)]
    seconds: Duration,
}

#[derive(Debug, Serialize)]
struct Report {
    connections: usize,
    recovered_publications: usize,
    seconds_until_all_are_back: f64,
    /// Time until every connection is subscribed again and has received all publications that it
    /// requested.
    seconds_until_all_are_current: f64,
    server_cpu_us_per_connection: Option<f64>,
    /// Number of calls of each command from the cut until all connections are current. The count
    /// includes calls within scripts.
    #[serde(skip_serializing_if = "Option::is_none")]
    redis_commands: Option<BTreeMap<String, u64>>,
    usage: Usage,
}

/// An answer to `subscribe`.
#[derive(Debug, Deserialize)]
struct Subscribed {
    epoch: Option<String>,
    offset: Option<u64>,
    recovered: Option<bool>,
}

/// Cuts all subscribers, and waits until each subscriber has subscribed again and has received the
/// publications that it requested.
pub(crate) fn run(common: &Common, args: &RecoverArgs) -> anyhow::Result<Value> {
    if args.connections == 0 {
        bail!("--connections must be at least 1");
    }
    let channel = format!("{}:0", args.prefix);
    let tokens = common.mint()?.tokens(args.connections)?;
    let mut connections = common.connections(args.connections)?;
    connections.open_all(&tokens, AT_ONCE, PATIENCE)?;
    let mut first = None;
    subscribe::all(
        &mut connections,
        |_| [channel.clone()],
        |_, reply| {
            first.get_or_insert_with(|| reply.to_vec());
        },
    )?;
    let position = position(&first.context("no subscription was answered")?)?;
    publish(common, args, &channel, &mut connections)?;
    std::thread::sleep(args.settle);

    let mut counted = args.redis.as_deref().map(Resp::connect).transpose()?;
    if let Some(redis) = &mut counted {
        redis.call(&["CONFIG", "RESETSTAT"])?;
    }
    let meter = common.meter()?;
    let began = Instant::now();
    // The cut is as sudden as a network failure: all connections are closed before a new one is
    // begun.
    drop(connections);
    let targets = args.back_to.as_ref().unwrap_or(&common.urls);
    let since = match (args.since, position) {
        (false, _) => String::new(),
        (true, Some((epoch, offset))) => {
            format!(r#","since":{{"epoch":"{epoch}","offset":{offset}}}"#)
        }
        (true, None) => bail!("channel {channel} has no stream to recover from"),
    };
    let command = format!(r#"{{"type":"subscribe","id":1,"channel":"{channel}"{since}}}"#);
    let mut storm = Storm {
        connections: Connections::new(targets.clone(), common.dialect, args.connections)?,
        subscribe: wire::text(&command),
        each: if args.since { args.publications } else { 0 },
        unheard: vec![None; args.connections],
        opened: Vec::new(),
        back: 0,
        current: 0,
    };
    for token in &tokens {
        storm.connections.start(token)?;
    }
    let mut all_back = None;
    while storm.current < args.connections {
        storm.turn()?;
        if storm.back == args.connections {
            all_back.get_or_insert_with(|| began.elapsed());
        }
        if began.elapsed() > args.seconds {
            bail!(
                "only {} of {} connections are current again in time",
                storm.current,
                args.connections
            );
        }
    }
    let all_current = began.elapsed();
    let redis_commands = match &mut counted {
        Some(redis) => Some(calls(&redis.call(&["INFO", "commandstats"])?)),
        None => None,
    };
    let (usage, server_cpu_us) = meter.stop()?;
    report::of(&Report {
        connections: args.connections,
        recovered_publications: storm.each * storm.current,
        seconds_until_all_are_back: all_back.unwrap_or(all_current).as_secs_f64(),
        seconds_until_all_are_current: all_current.as_secs_f64(),
        server_cpu_us_per_connection: server_cpu_us.map(|us| us / args.connections as f64),
        redis_commands,
        usage,
    })
}

/// The position in an answer to `subscribe`; `None` if the channel has no stream.
fn position(reply: &[u8]) -> anyhow::Result<Option<(String, u64)>> {
    let Subscribed { epoch, offset, .. } = serde_json::from_slice(reply)?;
    Ok(epoch.zip(offset))
}

/// Publishes on a separate connection, and waits until every subscriber has all publications.
fn publish(
    common: &Common,
    args: &RecoverArgs,
    channel: &str,
    subscribers: &mut Connections,
) -> anyhow::Result<()> {
    let mut publisher = common.connections(1)?;
    publisher.open_all(&[common.mint()?.token(args.connections)?], 1, PATIENCE)?;
    let data = format!("\"{}\"", "x".repeat(usize::from(args.bytes) - 2));
    let frame = wire::text(&common.dialect.publish(channel, &data));
    for _ in 0..args.publications {
        publisher.queue(0, &frame);
    }
    publisher.flush(0);
    let deadline = Instant::now() + PATIENCE;
    let mut undelivered = args.publications * args.connections;
    while undelivered > 0 {
        let mut failed = None;
        subscribers.turn(
            Duration::from_millis(100),
            |slot, happened| match happened {
                Happened::Message(_) => undelivered -= 1,
                other => failed = Some(format!("connection {slot}: {other}")),
            },
        )?;
        if let Some(why) = failed {
            bail!("{why}");
        }
        if Instant::now() > deadline {
            bail!("{undelivered} deliveries before the cut did not arrive in time");
        }
    }
    Ok(())
}

/// Connections that are being opened again.
#[derive(Debug)]
struct Storm {
    connections: Connections,
    /// The frame that each connection sends as soon as it is open.
    subscribe: Vec<u8>,
    /// Number of publications that each connection requests: the publications after its position
    /// `since`.
    each: usize,
    /// By connection: the number of requested publications that have not arrived yet; `None` until
    /// the connection is subscribed.
    unheard: Vec<Option<usize>>,
    /// Connections that opened in the current iteration of the event loop.
    opened: Vec<usize>,
    back: usize,
    current: usize,
}

impl Storm {
    fn turn(&mut self) -> anyhow::Result<()> {
        let Self {
            connections,
            each,
            unheard,
            opened,
            current,
            ..
        } = self;
        let mut failed = None;
        let wait = Duration::from_millis(100);
        connections.turn(wait, |slot, happened| match happened {
            Happened::Opened => opened.push(slot),
            Happened::Other(reply) if unheard[slot].is_none() && is_subscribed(reply, *each) => {
                unheard[slot] = Some(*each);
                *current += usize::from(*each == 0);
            }
            Happened::Message(_) if matches!(unheard[slot], Some(1..)) => {
                unheard[slot] = unheard[slot].map(|left| left - 1);
                *current += usize::from(unheard[slot] == Some(0));
            }
            other => failed = Some(format!("connection {slot}: {other}")),
        })?;
        if let Some(why) = failed {
            bail!("{why}");
        }
        for slot in self.opened.drain(..) {
            self.back += 1;
            self.connections.send(slot, &self.subscribe);
        }
        Ok(())
    }
}

/// True if the answer is as required: the connection is subscribed and, unless `missed` is 0, the
/// gateway has recovered the subscription.
fn is_subscribed(reply: &[u8], missed: usize) -> bool {
    let Ok(Subscribed { recovered, .. }) = serde_json::from_slice(reply) else {
        return false;
    };
    reply.starts_with(b"{\"type\":\"ok\"") && (missed == 0 || recovered == Some(true))
}

/// The calls of each command, from `INFO commandstats`. A subcommand counts as a command.
fn calls(info: &str) -> BTreeMap<String, u64> {
    let lines = info
        .lines()
        .filter_map(|line| line.strip_prefix("cmdstat_"));
    let counts = lines.filter_map(|line| {
        let (command, figures) = line.split_once(":calls=")?;
        let calls = figures.split(',').next()?.parse().ok()?;
        Some((command.to_owned(), calls))
    });
    counts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_commands_are_found() {
        let info = "# Commandstats\r\ncmdstat_xrange:calls=12,usec=34,rejected_calls=0\r\n\
                    cmdstat_client|info:calls=1,usec=2\r\nother:1\r\n";
        let calls = calls(info);
        let calls: Vec<_> = calls
            .iter()
            .map(|(name, count)| (&**name, *count))
            .collect();
        assert_eq!(calls, [("client|info", 1), ("xrange", 12)]);
    }

    #[test]
    fn only_a_recovered_subscription_counts_where_something_was_missed() {
        let ok = br#"{"type":"ok","id":1}"#;
        let recovered = br#"{"type":"ok","id":1,"epoch":"abcdefgh","offset":7,"recovered":true}"#;
        let lost = br#"{"type":"ok","id":1,"epoch":"abcdefgh","offset":7,"recovered":false}"#;
        assert!(is_subscribed(ok, 0) && !is_subscribed(ok, 1));
        assert!(is_subscribed(recovered, 0) && is_subscribed(recovered, 1));
        assert!(!is_subscribed(lost, 1));
        assert!(!is_subscribed(br#"{"type":"error","id":1}"#, 0));
        assert_eq!(position(ok).unwrap(), None);
        assert_eq!(position(lost).unwrap(), Some(("abcdefgh".to_owned(), 7)));
    }
}
