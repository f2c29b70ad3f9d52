//! `curfew-bench fanout`.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::cli::{Common, seconds};
use crate::fan::{Fan, FanArgs};
use crate::histogram::Latency;
use crate::process::Usage;
use crate::report;

/// Arguments of `curfew-bench fanout`.
#[derive(Debug, Args)]
pub(crate) struct FanoutArgs {
    #[command(flatten)]
    fan: FanArgs,
    /// Time to measure, in seconds
    #[arg(long, default_value = "10", value_parser = seconds)]
    seconds: Duration,
    /// Time to publish before the measurement begins, in seconds
    #[arg(long, default_value = "2", value_parser = seconds)]
    warmup: Duration,
}

#[derive(Debug, Serialize)]
struct Report {
    channels: usize,
    subscribers_per_channel: usize,
    payload_bytes: u16,
    publications_per_second: Option<f64>,
    deliveries: u64,
    deliveries_per_second: f64,
    lost: u64,
    server_cpu_us_per_delivery: Option<f64>,
    server_rss_kib: Option<u64>,
    latency: Option<Latency>,
    usage: Usage,
}

/// Publishes, and counts the deliveries.
pub(crate) fn run(common: &Common, args: &FanoutArgs) -> anyhow::Result<Value> {
    let mut fan = Fan::open(common, &args.fan)?;
    fan.begin();
    fan.publish_for(args.warmup, || Ok(()))?;
    fan.begin();
    let before = fan.delivered;
    let meter = common.meter()?;
    fan.publish_for(args.seconds, || Ok(()))?;
    let (usage, server_cpu_us) = fan.stop(&meter)?;
    let deliveries = fan.delivered - before;
    let latency = fan.latency.latency();
    let server_rss_kib = common.server().map(|server| server.rss_kib()).transpose()?;
    let lost = fan.finish()?;
    report::of(&Report {
        channels: args.fan.channels,
        subscribers_per_channel: args.fan.subscribers,
        payload_bytes: args.fan.bytes,
        publications_per_second: args.fan.rate,
        deliveries,
        deliveries_per_second: deliveries as f64 / usage.seconds,
        lost,
        server_cpu_us_per_delivery: server_cpu_us.map(|us| us / deliveries as f64),
        server_rss_kib,
        latency,
        usage,
    })
}
