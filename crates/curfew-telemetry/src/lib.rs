//! Logs, metrics and traces for the operator of a node.
//!
//! Owns: the form of the log (one line per event, free of terminal control characters), the
//! declaration and output of metrics, the choice of recorded spans and their export.
//! Knows nothing of: connections, tokens, HTTP. Other crates declare their own metrics. Nothing
//! here decides on access.
//! Start at [`init`] for logs, at [`metrics!`] for metrics and at [`Tracer`] for traces.

mod config;
mod endpoint;
mod log;
mod metrics;
mod standard;
mod trace;

pub use config::{LogFormat, NoTracePages, TelemetryConfig, TracePages};
pub use log::{InitError, Installed, LevelError, LogLevel, init};
pub use metrics::histogram::{Histogram, Histograms, NamedHistograms, ROUND_TRIP_SECONDS};
pub use metrics::labels::{Label, LabelSet, Unasked};
pub use metrics::registry::{Build, CONTENT_TYPE, Metric, Registry};
pub use metrics::runtime::RuntimeMetrics;
pub use metrics::table::{Authentications, Counters, Named, NamedGauges};
pub use metrics::tracing::TraceMetrics;
pub use metrics::{Counter, Gauge, Unit};
pub use standard::{GivenSetting, Standard, StandardVariables, VARIABLES, Variable};
pub use trace::{Origin, Span, SpanKind, Spans, TraceError, Tracer, Whose, Writes};
