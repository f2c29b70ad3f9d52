//! Histograms that take no lock for an observation, because every publication is observed.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use curfew_model::TraceContext;
use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::exemplar::Exemplar;
use super::labels::LabelSet;
use super::registry::Metric;
use super::table::OTHER;

/// The sum of a histogram is stored as a whole number of steps. One unit of the metric has this
/// number of steps.
const SUM_PER_UNIT: f64 = 1e6;

/// The upper bounds of buckets for round trips to the backend, in seconds. The largest is above the
/// backend's timeout.
pub const ROUND_TRIP_SECONDS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5,
];

/// Counts observations by their value. A clone shares the counts.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The upper bounds of the buckets in ascending order. One more bucket counts larger values.
    bounds: &'static [f64],
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
    /// The latest exemplar of each bucket; empty before the first exemplar. Only traced
    /// observations and scrapes take this lock.
    exemplars: Mutex<Vec<Option<Exemplar>>>,
}

impl Histogram {
    /// Creates a histogram with a bucket for each of `bounds`, and a bucket for larger values.
    /// `bounds` are the upper bounds of the buckets in ascending order.
    pub fn new(bounds: &'static [f64]) -> Self {
        Self(Arc::new(Inner {
            bounds,
            buckets: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
            exemplars: Mutex::default(),
        }))
    }

    /// Observes `value`, in the unit of the metric. NaN and negative values count as 0.
    pub fn observe(&self, value: f64) {
        self.count(value.max(0.0));
    }

    /// Observes the number of seconds since `began`.
    pub fn observe_since(&self, began: Instant) {
        self.observe(began.elapsed().as_secs_f64());
    }

    /// Like [`Histogram::observe`]. If `trace` is sampled, it becomes the exemplar of the value's
    /// bucket.
    pub fn observe_traced(&self, value: f64, trace: Option<&TraceContext>) {
        let value = value.max(0.0);
        let bucket = self.count(value);
        if let Some(trace) = trace {
            self.exemplify(bucket, value, trace);
        }
    }

    /// Counts `value`, and returns the index of its bucket.
    fn count(&self, value: f64) -> usize {
        let bucket = self.0.bounds.partition_point(|bound| *bound < value);
        self.0.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        // The value is rounded to the nearest step. Many values are only a few steps, so rounding
        // down would make the sum too small.
        let sum = (value * SUM_PER_UNIT + 0.5) as u64;
        self.0.sum.fetch_add(sum, Ordering::Relaxed);
        bucket
    }

    #[cold]
    fn exemplify(&self, bucket: usize, value: f64, trace: &TraceContext) {
        if !trace.is_sampled() {
            return;
        }
        let exemplar = Exemplar::new(trace, value);
        let mut exemplars = self.0.exemplars.lock();
        // The list is allocated only for the first exemplar.
        exemplars.resize(self.0.buckets.len(), None);
        exemplars[bucket] = Some(exemplar);
    }

    /// Returns the exemplar of each bucket; `None` for a bucket without an exemplar.
    pub(super) fn exemplars(&self) -> Vec<Option<Exemplar>> {
        let mut exemplars = self.0.exemplars.lock().clone();
        exemplars.resize(self.0.buckets.len(), None);
        exemplars
    }

    fn encode_into(&self, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        let bounds = self.0.bounds.iter().copied().chain([f64::INFINITY]);
        let counts = self.0.buckets.iter().map(|n| n.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        // The number of observations is computed from the buckets. During concurrent observations,
        // a separate counter could differ from the sum of the buckets.
        let count = buckets.iter().map(|(_, n)| n).sum();
        let sum = self.0.sum.load(Ordering::Relaxed) as f64 / SUM_PER_UNIT;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}

impl Metric for Histogram {
    fn histograms(&self) -> Vec<Histogram> {
        vec![self.clone()]
    }
}

impl<L: LabelSet> Metric for Histograms<L> {
    fn histograms(&self) -> Vec<Histogram> {
        all(&self.slots)
    }
}

impl Metric for NamedHistograms {
    fn histograms(&self) -> Vec<Histogram> {
        all(&self.slots)
    }
}

fn all(slots: &Slots) -> Vec<Histogram> {
    slots
        .iter()
        .map(|(_, histogram)| histogram.clone())
        .collect()
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        self.encode_into(&mut encoder)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// A histogram for each combination of the labels `L`. A clone shares the counts.
#[derive(Debug)]
pub struct Histograms<L> {
    slots: Slots,
    labels: PhantomData<fn(L)>,
}

/// A histogram for each name in a list that is set at start, and a histogram with the label value
/// `other` for all other names. A clone shares the counts.
#[derive(Debug, Clone)]
pub struct NamedHistograms {
    names: Arc<[&'static str]>,
    slots: Slots,
}

/// Histograms with their label names and values.
type Slots = Arc<[(Vec<(&'static str, &'static str)>, Histogram)]>;

impl<L: LabelSet> Histograms<L> {
    /// Creates a histogram for each combination of labels. `bounds` is as for [`Histogram::new`].
    pub fn new(bounds: &'static [f64]) -> Self {
        Self {
            slots: (0..L::COUNT)
                .map(|slot| (L::pairs(slot), Histogram::new(bounds)))
                .collect(),
            labels: PhantomData,
        }
    }

    /// Returns the histogram of a combination of labels.
    pub fn of(&self, labels: L) -> &Histogram {
        &self.slots[labels.slot()].1
    }
}

impl NamedHistograms {
    /// Creates a histogram for each of `names` and for `other`, which are the values of the label
    /// `label`. `bounds` is as for [`Histogram::new`].
    pub fn new(label: &'static str, names: Vec<&'static str>, bounds: &'static [f64]) -> Self {
        let values = names.iter().copied().chain([OTHER]);
        Self {
            slots: values
                .map(|value| (vec![(label, value)], Histogram::new(bounds)))
                .collect(),
            names: names.into(),
        }
    }

    /// Returns the histogram of `name`, or the histogram of `other` if `name` is not in the list.
    pub fn of(&self, name: &str) -> &Histogram {
        // The list is short, so a linear search is cheaper than hashing.
        let known = self.names.iter().position(|known| *known == name);
        &self.slots[known.unwrap_or(self.names.len())].1
    }
}

fn encode(slots: &Slots, mut encoder: MetricEncoder<'_>) -> fmt::Result {
    for (labels, histogram) in slots.iter() {
        histogram.encode_into(&mut encoder.encode_family(labels)?)?;
    }
    Ok(())
}

impl<L> EncodeMetric for Histograms<L> {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        encode(&self.slots, encoder)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

impl EncodeMetric for NamedHistograms {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        encode(&self.slots, encoder)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

impl<L> Clone for Histograms<L> {
    fn clone(&self) -> Self {
        Self {
            slots: Arc::clone(&self.slots),
            labels: PhantomData,
        }
    }
}
