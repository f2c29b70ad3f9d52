//! Counters and gauges with labels. Each combination of label values has a counter from the start.
//! Counting is therefore one atomic addition, without a lock and without hashing.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::labels::LabelSet;
use super::registry::Metric;

/// The label value for all names that are not in the list.
pub(super) const OTHER: &str = "other";

/// A counter for each combination of the labels `L`. A clone shares the counts.
#[derive(Debug)]
pub struct Counters<L> {
    slots: Arc<[Slot]>,
    labels: PhantomData<fn(L)>,
}

/// A counter for each pair of a name and a combination of the labels `L`. The list of names is set
/// at start. A name that is not in the list counts as `other`. A clone shares the counts.
#[derive(Debug)]
pub struct Named<K, L = ()> {
    keys: Arc<[K]>,
    slots: Arc<[Slot]>,
    labels: PhantomData<fn(L)>,
}

/// Counts authentications: accepted tokens, and refused tokens by reason.
#[derive(Debug, Clone)]
pub struct Authentications {
    reasons: Arc<[&'static str]>,
    /// The first slot counts accepted tokens. Each of the next slots counts the tokens that were
    /// refused for one of `reasons`. The last slot counts the tokens that were refused for another
    /// reason.
    slots: Arc<[Slot]>,
}

/// A gauge for each name in a list that is set at start. A clone shares the values.
#[derive(Debug, Clone)]
pub struct NamedGauges(Arc<[NamedGauge]>);

/// The name and the value of the label, and the value of the gauge.
type NamedGauge = ([(&'static str, &'static str); 1], AtomicI64);

#[derive(Debug, Default)]
struct Slot {
    labels: Vec<(&'static str, String)>,
    count: AtomicU64,
}

impl<L: LabelSet> Counters<L> {
    /// Adds 1 to the counter of `labels`.
    pub fn inc(&self, labels: L) {
        self.inc_by(labels, 1);
    }

    /// Adds `n` to the counter of `labels`.
    pub fn inc_by(&self, labels: L, n: u64) {
        self.slots[labels.slot()].add(n);
    }

    /// Returns the current count of `labels`.
    pub fn get(&self, labels: L) -> u64 {
        self.slots[labels.slot()].get()
    }
}

impl<K: Copy + PartialEq + fmt::Display, L: LabelSet> Named<K, L> {
    /// Creates the counters. The values of the label `name` are `keys` and `other`.
    pub fn new(name: &'static str, keys: Vec<K>) -> Self {
        let values = keys.iter().map(ToString::to_string);
        let slots = values
            .chain([OTHER.to_owned()])
            .flat_map(|value| (0..L::COUNT).map(move |slot| (value.clone(), slot)))
            .map(|(value, slot)| {
                let mut slot = Slot::new(L::pairs(slot));
                slot.labels.insert(0, (name, value));
                slot
            })
            .collect();
        Self {
            keys: keys.into(),
            slots,
            labels: PhantomData,
        }
    }

    /// Adds 1 to the counter of `key` and `labels`.
    pub fn inc(&self, key: K, labels: L) {
        self.slots[self.slot(key, labels)].add(1);
    }

    /// Returns the current count of `key` and `labels`.
    pub fn get(&self, key: K, labels: L) -> u64 {
        self.slots[self.slot(key, labels)].get()
    }

    /// Returns the index of a counter in `slots`. The search is linear, because the list of names
    /// is short and hashing would cost more.
    fn slot(&self, key: K, labels: L) -> usize {
        let known = self.keys.iter().position(|known| *known == key);
        known.unwrap_or(self.keys.len()) * L::COUNT + labels.slot()
    }
}

impl Authentications {
    /// Creates a counter for accepted tokens, and a counter of refused tokens for each of `reasons`
    /// and for `other`.
    pub fn new(reasons: Vec<&'static str>) -> Self {
        let refused = reasons.iter().copied().chain([OTHER]);
        let slots = [Slot::new(vec![("outcome", "accepted"), ("reason", "none")])]
            .into_iter()
            .chain(
                refused.map(|reason| Slot::new(vec![("outcome", "refused"), ("reason", reason)])),
            )
            .collect();
        Self {
            reasons: reasons.into(),
            slots,
        }
    }

    /// Counts an accepted token.
    pub fn accepted(&self) {
        self.slots[0].add(1);
    }

    /// Counts a refused token. `reason` is the failure's name in the protocol.
    pub fn refused(&self, reason: &str) {
        let known = self.reasons.iter().position(|known| *known == reason);
        self.slots[1 + known.unwrap_or(self.reasons.len())].add(1);
    }
}

impl NamedGauges {
    /// Creates a gauge for each of `names`, which are the values of the label `label`.
    pub fn new(label: &'static str, names: &[&'static str]) -> Self {
        let gauges = names
            .iter()
            .map(|name| ([(label, *name)], AtomicI64::new(0)));
        Self(gauges.collect())
    }

    /// Sets the gauge of `name`. Does nothing if `name` is not in the list.
    pub fn set(&self, name: &str, value: i64) {
        let known = self.0.iter().find(|([(_, known)], _)| *known == name);
        if let Some((_, gauge)) = known {
            gauge.store(value, Ordering::Relaxed);
        }
    }
}

impl Slot {
    fn new(labels: Vec<(&'static str, &'static str)>) -> Self {
        Self {
            labels: labels
                .into_iter()
                .map(|(name, value)| (name, value.to_owned()))
                .collect(),
            count: AtomicU64::new(0),
        }
    }

    fn add(&self, n: u64) {
        self.count.fetch_add(n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

fn encode(slots: &[Slot], mut encoder: MetricEncoder<'_>) -> fmt::Result {
    for slot in slots {
        encoder
            .encode_family(&slot.labels)?
            .encode_counter::<NoLabelSet, u64, u64>(&slot.get(), None)?;
    }
    Ok(())
}

macro_rules! encode_metric {
    ($([$($generics:tt)*] $type:ty;)+) => {$(
        impl<$($generics)*> EncodeMetric for $type {
            fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
                encode(&self.slots, encoder)
            }

            fn metric_type(&self) -> MetricType {
                MetricType::Counter
            }
        }
    )+};
}

encode_metric! {
    [L] Counters<L>;
    [K, L] Named<K, L>;
    [] Authentications;
}

impl EncodeMetric for NamedGauges {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (label, gauge) in self.0.iter() {
            encoder
                .encode_family(label)?
                .encode_gauge(&gauge.load(Ordering::Relaxed))?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

impl Metric for NamedGauges {}
impl<L: LabelSet> Metric for Counters<L> {}
impl<K: fmt::Debug + Send + Sync + 'static, L: LabelSet> Metric for Named<K, L> {}
impl Metric for Authentications {}

impl<L: LabelSet> Default for Counters<L> {
    fn default() -> Self {
        Self {
            slots: (0..L::COUNT)
                .map(|slot| Slot::new(L::pairs(slot)))
                .collect(),
            labels: PhantomData,
        }
    }
}

impl<L> Clone for Counters<L> {
    fn clone(&self) -> Self {
        Self {
            slots: Arc::clone(&self.slots),
            labels: PhantomData,
        }
    }
}

impl<K, L> Clone for Named<K, L> {
    fn clone(&self) -> Self {
        Self {
            keys: Arc::clone(&self.keys),
            slots: Arc::clone(&self.slots),
            labels: PhantomData,
        }
    }
}
