//! Latencies, counted in bounded memory.

use std::time::Duration;

use hdrhistogram::Histogram as Buckets;
use serde::Serialize;

/// Longest latency with a bucket, in nanoseconds: one hour. A longer latency counts as one hour.
const LONGEST_NANOS: u64 = 3_600_000_000_000;

/// Number of significant decimal digits of a percentile. A percentile is at most 1 % too high.
const DIGITS: u8 = 2;

/// Counts of latencies.
#[derive(Debug)]
pub(crate) struct Histogram {
    /// Buckets of latencies in nanoseconds.
    buckets: Buckets<u64>,
    max: Duration,
}

/// A histogram's summary in a report, in microseconds.
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
            buckets: Buckets::new_with_max(LONGEST_NANOS, DIGITS).expect("the bounds are valid"),
            max: Duration::ZERO,
        }
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.buckets.saturating_record(nanos);
        self.max = self.max.max(latency);
    }

    /// The latency that the share `part` of all samples does not exceed: the upper end of the
    /// latency's bucket, or the maximum if the maximum is lower.
    fn percentile(&self, part: f64) -> Duration {
        Duration::from_nanos(self.buckets.value_at_quantile(part)).min(self.max)
    }

    /// The summary; `None` if nothing was recorded.
    pub(crate) fn latency(&self) -> Option<Latency> {
        let micros = |latency: Duration| latency.as_nanos() as f64 / 1000.0;
        (!self.buckets.is_empty()).then(|| Latency {
            samples: self.buckets.len(),
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
                "the percentile is {found} instead of {expect}"
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
