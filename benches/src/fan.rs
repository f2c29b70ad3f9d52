//! A publisher, its subscribers, and the deliveries to the subscribers.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;

use crate::cli::Common;
use crate::connections::{Connections, Happened};
use crate::histogram::Histogram;
use crate::process::{Meter, Usage};
use crate::publication::{self, Publication};
use crate::subscribe;

/// Limit on connections that are being opened at a time.
pub(crate) const AT_ONCE: usize = 256;

/// Deadline to open all connections.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Maximum number of connections in whose messages the load generator looks up the publication's
/// timestamp. These connections are enough to measure the latency, and few enough not to slow down
/// the counting of all other deliveries.
const WATCHING: usize = 16;

/// Limit on the publisher's bytes that the operating system has not yet accepted for sending. Above
/// this limit, further publications would only wait in the load generator, with a timestamp that is
/// too early.
const MAX_UNSENT: usize = 16 * 1024;

/// Limit on bytes in flight to one subscriber, less than any limit at which a gateway considers a
/// subscriber slow.
const MAX_ON_ITS_WAY: u64 = 48 * 1024;

/// Approximate bytes of a message besides its data.
const MESSAGE_OVERHEAD: u64 = 64;

/// Time after which a missing delivery counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(3);

/// Subscribers and publications.
#[derive(Debug, Clone, Args)]
pub(crate) struct FanArgs {
    /// Channels, published to in turn
    #[arg(long, default_value_t = 1)]
    pub(crate) channels: usize,
    /// Subscribers of each channel
    #[arg(long, default_value_t = 1000)]
    pub(crate) subscribers: usize,
    /// Channels that each connection subscribes to
    #[arg(long, default_value_t = 1)]
    pub(crate) channels_each: usize,
    /// First part of the channels' names
    #[arg(long, default_value = "bench")]
    pub(crate) prefix: String,
    /// Size of a publication's data, in bytes of JSON, at least 31
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(publication::MIN_BYTES as i64..=32_000))]
    pub(crate) bytes: u16,
    /// Publications per second. Without this option, publishes as fast as the subscribers receive
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Without a rate: maximum number of publications in flight; fewer if they would exceed 48 KiB
    /// to one subscriber
    #[arg(long, default_value_t = 256)]
    pub(crate) window: u64,
    /// Never sleep while waiting for deliveries. Without this option, the server spends CPU time on
    /// waking the load generator, and the number of wake-ups varies with small differences in speed
    #[arg(long)]
    pub(crate) spin: bool,
}

/// The connections of a fan-out. The publisher has index 0. The subscribers follow, and are
/// distributed over the channels in turn.
#[derive(Debug)]
pub(crate) struct Fan {
    connections: Connections,
    args: FanArgs,
    publications: Vec<Publication>,
    began: Instant,
    published: u64,
    /// The time when publishing at the current rate began, and the number of publications at that
    /// time.
    pace: (Instant, u64),
    readers: Readers,
    /// Deliveries to the readers.
    pub(crate) delivered: u64,
    /// Expected deliveries to the readers.
    due: u64,
    /// Time spent spinning without an event.
    idle: Duration,
    pub(crate) latency: Histogram,
    /// Number of closed connections among the subscribers that are not readers.
    pub(crate) closed: u64,
}

/// The subscribers whose deliveries are counted.
#[derive(Debug)]
struct Readers {
    /// True for each connection that is a reader.
    are: Vec<bool>,
    /// Number of readers, by channel.
    of_channel: Vec<u64>,
}

impl Fan {
    /// Opens all connections and subscribes.
    pub(crate) fn open(common: &Common, args: &FanArgs) -> anyhow::Result<Self> {
        if args.channels == 0 || args.subscribers == 0 || args.window == 0 {
            bail!("channels, subscribers and window must be at least 1");
        }
        if !(1..=args.channels).contains(&args.channels_each) {
            bail!(
                "each connection can subscribe to 1 to {} channels",
                args.channels
            );
        }
        let count = 1 + (args.channels * args.subscribers).div_ceil(args.channels_each);
        let mut connections = common.connections(count)?;
        connections.open_all(&common.mint()?.tokens(count)?, AT_ONCE, PATIENCE)?;
        let began = Instant::now();
        let mut are = vec![true; count];
        are[0] = false;
        let mut fan = Self {
            connections,
            publications: (0..args.channels)
                .map(|channel| {
                    Publication::new(common.dialect, &args.name(channel), args.bytes.into())
                })
                .collect(),
            began,
            published: 0,
            pace: (began, 0),
            readers: Readers {
                are,
                of_channel: vec![args.subscribers as u64; args.channels],
            },
            delivered: 0,
            due: 0,
            idle: Duration::ZERO,
            latency: Histogram::new(),
            closed: 0,
            args: FanArgs {
                window: window(args),
                ..args.clone()
            },
        };
        fan.subscribe()?;
        Ok(fan)
    }

    fn subscribe(&mut self) -> anyhow::Result<()> {
        let args = &self.args;
        let channels_of = |slot: usize| match slot {
            0 => Vec::new(),
            slot => channels(args, slot)
                .map(|channel| args.name(channel))
                .collect(),
        };
        subscribe::all(&mut self.connections, channels_of, |_, _| {})
    }

    /// Begins a measurement or the warm-up: resets the latencies, the idle time and the pace.
    pub(crate) fn begin(&mut self) {
        self.latency = Histogram::new();
        self.idle = Duration::ZERO;
        self.pace = (Instant::now(), self.published);
    }

    /// Publishes for `time`, as fast as the arguments request. Calls `observe` about every 200 ms.
    pub(crate) fn publish_for(
        &mut self,
        time: Duration,
        mut observe: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + time;
        let mut next_look = Instant::now();
        loop {
            let now = Instant::now();
            if now >= deadline {
                return Ok(());
            }
            if now >= next_look {
                observe()?;
                next_look = now + Duration::from_millis(200);
            }
            self.publish(now);
            let (before, spin) = (self.delivered, self.args.spin);
            self.receive(Duration::from_millis(u64::from(!spin)))?;
            if spin && self.delivered == before {
                self.idle += now.elapsed();
            }
        }
    }

    /// The cost since [`Fan::begin`], and the server's CPU time, as [`Meter::stop`] returns them.
    /// Idle spinning does not count as busy.
    pub(crate) fn stop(&self, meter: &Meter) -> anyhow::Result<(Usage, Option<f64>)> {
        let (mut usage, server_cpu_us) = meter.stop()?;
        usage.load_busy -= self.idle.as_secs_f64() / usage.seconds;
        Ok((usage, server_cpu_us))
    }

    /// Waits for deliveries in flight. Returns the number of lost deliveries.
    pub(crate) fn finish(&mut self) -> anyhow::Result<u64> {
        let mut last = (self.delivered, Instant::now());
        while self.delivered < self.due {
            self.receive(Duration::from_millis(100))?;
            if self.delivered != last.0 {
                last = (self.delivered, Instant::now());
            } else if last.1.elapsed() > LOST_AFTER {
                break;
            }
        }
        Ok(self.due.saturating_sub(self.delivered))
    }

    /// Stops counting the deliveries to the last `count` subscribers. No delivery may be in flight.
    pub(crate) fn ignore_last(&mut self, count: usize) {
        for slot in self.last(count) {
            if std::mem::take(&mut self.readers.are[slot]) {
                for channel in channels(&self.args, slot) {
                    self.readers.of_channel[channel] -= 1;
                }
            }
        }
    }

    /// Makes the last `count` subscribers stop reading.
    pub(crate) fn pause_last(&mut self, count: usize) -> anyhow::Result<()> {
        self.last(count)
            .try_for_each(|slot| self.connections.pause(slot))
    }

    fn last(&self, count: usize) -> Range<usize> {
        let all = self.connections.count();
        all - count..all
    }

    /// Sends all publications that are due.
    fn publish(&mut self, now: Instant) {
        loop {
            let channel = (self.published % self.args.channels as u64) as usize;
            let readers = self.readers.of_channel[channel];
            // `at` is the time of the next publication. `due` is true if that time has come.
            let (at, due) = match self.args.rate {
                Some(rate) => {
                    let (since, before) = self.pace;
                    let at =
                        since + Duration::from_secs_f64((self.published - before) as f64 / rate);
                    (at, at < now)
                }
                None => {
                    let on_their_way = self.due.saturating_sub(self.delivered);
                    (Instant::now(), on_their_way < self.args.window * readers)
                }
            };
            if !due || self.connections.unsent(0) > MAX_UNSENT {
                return self.connections.flush(0);
            }
            self.connections
                .queue(0, self.publications[channel].stamped_at(at - self.began));
            self.published += 1;
            self.due += readers;
        }
    }

    fn receive(&mut self, wait: Duration) -> anyhow::Result<()> {
        let Self {
            connections,
            readers,
            delivered,
            latency,
            closed,
            began,
            ..
        } = self;
        let every = readers.are.len().div_ceil(WATCHING);
        let mut failed = None;
        connections.turn(wait, |slot, happened| match happened {
            Happened::Message(message) if readers.are[slot] => {
                *delivered += 1;
                if slot % every == 0
                    && let Some(age) = publication::age(message, *began)
                {
                    latency.record(age);
                }
            }
            Happened::Message(_) => {}
            Happened::Closed(_) if slot != 0 && !readers.are[slot] => *closed += 1,
            Happened::Other(_) if slot != 0 => {}
            // If a reader or the publisher loses its connection, the measurement is void.
            other => failed = Some(format!("connection {slot}: {other:?}")),
        })?;
        match failed {
            Some(why) => bail!("{why}"),
            None => Ok(()),
        }
    }
}

/// Number of publications that may be in flight.
fn window(args: &FanArgs) -> u64 {
    let fit = MAX_ON_ITS_WAY / (u64::from(args.bytes) + MESSAGE_OVERHEAD);
    args.window.min(fit.max(1))
}

/// The channels that the connection `slot` subscribes to, all different.
fn channels(args: &FanArgs, slot: usize) -> impl Iterator<Item = usize> + use<> {
    let (each, channels) = (args.channels_each, args.channels);
    let all = channels * args.subscribers;
    ((slot - 1) * each..(slot * each).min(all)).map(move |at| at % channels)
}

impl FanArgs {
    fn name(&self, channel: usize) -> String {
        format!("{}:{channel}", self.prefix)
    }
}
