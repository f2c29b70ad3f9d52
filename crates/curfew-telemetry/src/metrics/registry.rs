//! The registry, which collects the metrics of all crates and writes them as text.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeMetric;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry as PrometheusRegistry, Unit};

use super::exemplar::{self, OfHistogram};
use super::histogram::Histogram;
use super::process::Process;
use super::tracing::TraceMetrics;
use crate::config::TelemetryConfig;
use crate::trace::{Spans, TraceError, Tracer};

/// The `Content-Type` of [`Registry::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The prefix of the names of Curfew's metrics.
const PREFIX: &str = "curfew_";

/// The build of Curfew that is running.
#[derive(Debug, Clone, Copy, Default)]
pub struct Build {
    /// Curfew's version.
    pub version: &'static str,
    /// The commit of the build.
    pub revision: &'static str,
    /// The compiler's version.
    pub rustc: &'static str,
}

/// All metrics of a node. Each metric is declared by the crate that updates it, see
/// [`metrics!`](crate::metrics!). The registry also holds the tracer, because the code that updates
/// metrics also begins spans. A clone is a handle to the same registry.
#[derive(Debug, Clone)]
pub struct Registry {
    tracer: Tracer,
    families: Arc<Mutex<Families>>,
}

#[derive(Debug, Default)]
struct Families {
    written: PrometheusRegistry,
    names: BTreeSet<String>,
    /// The histograms of each metric, with the name of the metric in the output. Histograms may
    /// have exemplars.
    histograms: Vec<(String, Vec<Histogram>)>,
}

/// A type of metric that `metrics!` accepts. A value is a handle, which shares its counts with its
/// clones.
pub trait Metric: EncodeMetric + Clone + fmt::Debug + Send + Sync + 'static {
    /// Returns the histograms of this metric, in the order of the output.
    fn histograms(&self) -> Vec<Histogram> {
        Vec::new()
    }
}

impl Metric for Counter {}
impl Metric for Gauge {}

impl Registry {
    /// Creates a registry whose tracer is off.
    pub fn new(build: Build) -> Self {
        Self::with_traces(build).0
    }

    /// Creates a registry. If `config` names a collector, the registry's tracer exports the spans
    /// that arrive through `spans`. [`init`](crate::init) returns `spans`. `instance` is the node's
    /// id. Call this function once, within a tokio runtime.
    ///
    /// # Errors
    ///
    /// The exporter cannot be created from `config`.
    pub fn start(
        build: Build,
        config: &TelemetryConfig,
        spans: &Spans,
        instance: &str,
    ) -> Result<Self, TraceError> {
        let (registry, traces) = Self::with_traces(build);
        Ok(Self {
            tracer: Tracer::start(config, spans, instance, build.version, &traces)?,
            ..registry
        })
    }

    fn with_traces(build: Build) -> (Self, Arc<TraceMetrics>) {
        let mut families = Families::default();
        families
            .written
            .register_collector(Box::new(Process::new()));
        let info = Info::new([
            ("version", build.version),
            ("revision", build.revision),
            ("rustc", build.rustc),
        ]);
        let name = format!("{PREFIX}build");
        families.written.register(name, "The running version", info);
        let registry = Self {
            tracer: Tracer::OFF,
            families: Arc::new(Mutex::new(families)),
        };
        let traces = TraceMetrics::register(&registry);
        (registry, traces)
    }

    /// Adds `metric` to the output, under the name `field` and with the description `help`. Adds
    /// the prefix, the unit and `_total` to the name, and a full stop to the description. Called by
    /// [`metrics!`](crate::metrics!).
    ///
    /// # Panics
    ///
    /// Panics if another metric has the same name, because both metrics would be written as one
    /// series.
    #[doc(hidden)]
    pub fn add<M: Metric>(&self, field: &str, help: &str, unit: Option<Unit>, metric: &M) {
        let suffix = unit.as_ref().map(|unit| format!("_{}", unit.as_str()));
        let suffix = suffix.unwrap_or_default();
        let stem = field.strip_suffix(&suffix).unwrap_or(field);
        let name = format!("{PREFIX}{stem}");
        let mut families = self.families.lock();
        assert!(
            families.names.insert(name.clone()),
            "{name} is declared twice"
        );
        let histograms = (format!("{name}{suffix}"), metric.histograms());
        families.histograms.push(histograms);
        let (written, metric) = (&mut families.written, metric.clone());
        match unit {
            Some(unit) => written.register_with_unit(name, help, unit, metric),
            None => written.register(name, help, metric),
        }
    }

    /// Returns the tracer, which begins spans.
    pub fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// Returns all metrics as OpenMetrics text; see [`CONTENT_TYPE`].
    pub fn encode(&self) -> String {
        // The lock protects only the list of metrics, so an observation does not wait for it.
        let families = self.families.lock();
        // The exemplars are read before the buckets. Otherwise an exemplar could belong to an
        // observation that its bucket does not count yet.
        let exemplars = families.histograms.iter();
        let exemplars = exemplars
            .map(|(name, of)| OfHistogram::new(name, of.iter().flat_map(Histogram::exemplars)))
            .collect();
        let mut text = String::with_capacity(64 * 1024);
        encode(&mut text, &families.written).expect("writing to a string does not fail");
        exemplar::add(text, exemplars)
    }
}

impl Default for Registry {
    /// A registry that has no version and whose tracer is off.
    fn default() -> Self {
        Self::new(Build::default())
    }
}
