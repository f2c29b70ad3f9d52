//! `curfew-bench slow`.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::cli::{Common, seconds};
use crate::fan::{Fan, FanArgs};
use crate::histogram::{Histogram, Latency};
use crate::process::Usage;
use crate::report;

/// Arguments of `curfew-bench slow`.
#[derive(Debug, Args)]
pub(crate) struct SlowArgs {
    #[command(flatten)]
    fan: FanArgs,
    /// Share of subscribers that stop reading, in percent
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..=99))]
    percent: u8,
    /// Length of each phase, in seconds: all subscribers read in the first, some do not in the
    /// second
    #[arg(long, default_value = "10", value_parser = seconds)]
    seconds: Duration,
    /// Time to publish before the measurement begins, in seconds
    #[arg(long, default_value = "2", value_parser = seconds)]
    warmup: Duration,
}

#[derive(Debug, Serialize)]
struct Report {
    readers: usize,
    slow: usize,
    slow_closed: u64,
    /// Rate of deliveries to the readers in phase `some_not`, divided by their rate in phase
    /// `all_reading`.
    ratio: f64,
    lost: u64,
    all_reading: Phase,
    some_not: Phase,
}

/// The result of one phase: the deliveries to those subscribers that read in both phases, and the
/// cost.
#[derive(Debug, Serialize)]
struct Phase {
    deliveries_per_second: f64,
    server_rss_peak_kib: Option<u64>,
    latency: Option<Latency>,
    usage: Usage,
}

/// Publishes while all subscribers read, then while some subscribers do not read. Compares the
/// numbers of deliveries to the subscribers that read in both phases.
pub(crate) fn run(common: &Common, args: &SlowArgs) -> anyhow::Result<Value> {
    let subscribers = args.fan.channels * args.fan.subscribers;
    let slow = subscribers * usize::from(args.percent) / 100;
    if slow == 0 {
        bail!(
            "{} % of {subscribers} subscribers is less than one subscriber",
            args.percent
        );
    }
    let mut fan = Fan::open(common, &args.fan)?;
    fan.ignore_last(slow);
    fan.begin();
    fan.publish_for(args.warmup, || Ok(()))?;
    let all_reading = phase(&mut fan, common, args.seconds)?;
    let mut lost = fan.finish()?;
    let closed = fan.closed;
    fan.pause_last(slow)?;
    let some_not = phase(&mut fan, common, args.seconds)?;
    lost = lost.max(fan.finish()?);
    report::of(&Report {
        readers: subscribers - slow,
        slow,
        slow_closed: fan.closed - closed,
        ratio: some_not.deliveries_per_second / all_reading.deliveries_per_second,
        lost,
        all_reading,
        some_not,
    })
}

fn phase(fan: &mut Fan, common: &Common, time: Duration) -> anyhow::Result<Phase> {
    let server = common.server();
    let mut peak = None;
    fan.begin();
    let before = fan.delivered;
    let meter = common.meter()?;
    fan.publish_for(time, || {
        if let Some(server) = &server {
            peak = peak.max(Some(server.rss_kib()?));
        }
        Ok(())
    })?;
    let (usage, _) = fan.stop(&meter)?;
    Ok(Phase {
        deliveries_per_second: (fan.delivered - before) as f64 / usage.seconds,
        server_rss_peak_kib: peak,
        latency: std::mem::replace(&mut fan.latency, Histogram::new()).latency(),
        usage,
    })
}
