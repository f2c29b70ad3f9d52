//! Logs, metrics and traces: what an operator sees of a node.
//!
//! Owns: the log's form (one line an event, nothing in it that a terminal would obey), how
//! metrics are declared and written, which spans are recorded and how they are exported.
//! Knows nothing of: connections, tokens, HTTP; what others count, they declare. Nothing here decides anything.
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
pub use standard::{Given, GivenSetting, Standard, VARIABLES, Variable};
pub use trace::{Origin, Span, SpanKind, Spans, TraceError, Tracer, Whose, Writes};
