//! Latencies, kept in little memory however many there are.

use std::time::Duration;

use serde::Serialize;

/// Buckets to each doubling: a percentile is at most 1.6 % too high.
const PER_DOUBLING: usize = 64;

/// Doublings of [`PER_DOUBLING`] nanoseconds that are told apart: up to an hour.
const DOUBLINGS: usize = 36;

/// How often each latency was seen.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: Duration,
}

/// What is told of a histogram, in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Latency {
    samples: u64,
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self {
            buckets: vec![0; PER_DOUBLING * (DOUBLINGS + 1)],
            count: 0,
            max: Duration::ZERO,
        }
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        let nanos = latency.as_nanos() as usize;
        // Linear up to PER_DOUBLING, then by the highest bit and the bits after it.
        let doubling = (nanos / PER_DOUBLING)
            .checked_ilog2()
            .map_or(0, |log| log as usize + 1);
        let doubling = doubling.min(DOUBLINGS);
        let bucket = match doubling {
            0 => nanos,
            _ => {
                doubling * PER_DOUBLING
                    + ((nanos >> (doubling - 1)) - PER_DOUBLING).min(PER_DOUBLING - 1)
            }
        };
        self.buckets[bucket] += 1;
        self.count += 1;
        self.max = self.max.max(latency);
    }

    /// The upper end of the bucket that holds the given part of all samples.
    fn percentile(&self, part: f64) -> Duration {
        let wanted = (self.count as f64 * part).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted.max(1) {
                let (doubling, place) = (bucket / PER_DOUBLING, bucket % PER_DOUBLING);
                let nanos = match doubling {
                    0 => place as u64,
                    _ => ((PER_DOUBLING + place + 1) as u64) << (doubling - 1),
                };
                return Duration::from_nanos(nanos).min(self.max);
            }
        }
        Duration::ZERO
    }

    /// `None` when nothing was recorded.
    pub(crate) fn latency(&self) -> Option<Latency> {
        let micros = |latency: Duration| latency.as_nanos() as f64 / 1000.0;
        (self.count > 0).then(|| Latency {
            samples: self.count,
            p50_us: micros(self.percentile(0.5)),
            p99_us: micros(self.percentile(0.99)),
            max_us: micros(self.max),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_right_within_two_percent() {
        let mut histogram = Histogram::new();
        assert!(histogram.latency().is_none());
        for micros in 1..=10_000 {
            histogram.record(Duration::from_micros(micros));
        }
        let latency = histogram.latency().unwrap();
        assert_eq!((latency.samples, latency.max_us), (10_000, 10_000.0));
        for (found, expect) in [(latency.p50_us, 5_000.0), (latency.p99_us, 9_900.0)] {
            assert!(
                found >= expect && found < expect * 1.02,
                "{found} for {expect}"
            );
        }
    }

    #[test]
    fn the_shortest_and_the_longest_have_a_place() {
        for latency in [
            Duration::ZERO,
            Duration::from_nanos(63),
            Duration::from_nanos(64),
            Duration::from_secs(100_000),
        ] {
            let mut histogram = Histogram::new();
            histogram.record(latency);
            assert!(histogram.percentile(0.99) <= latency);
        }
    }
}
