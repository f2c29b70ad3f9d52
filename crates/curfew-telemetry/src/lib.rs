//! Logs, metrics and traces: what an operator sees of a node.
//!
//! Owns: the log's form (one line an event, nothing in it that a terminal would obey), the list of
//! metrics, how they are written, which spans are recorded and how they are exported.
//! Knows nothing of: connections, tokens, HTTP. Nothing here decides anything.
//! Start at [`init`] for logs, at [`metrics!`] for metrics and at [`Tracer`] for traces.

mod config;
mod endpoint;
mod log;
mod metrics;
mod standard;
mod trace;

pub use config::{Config, LogFormat};
pub use log::{InitError, Installed, LevelError, LogLevel, init};
pub use metrics::histogram::{Histogram, Histograms, NamedHistograms};
pub use metrics::labels::{
    AnswerReason, BackendDropReason, BrokerError, EventOutcome, Label, LabelSet, Listener,
    LogoutOutcome, RedisCommand, RejectReason, Report, ReportFault, RevocationKind, TicketOutcome,
    Unasked,
};
pub use metrics::registry::{Build, CONTENT_TYPE, Metric, Registry};
pub use metrics::runtime::RuntimeMetrics;
pub use metrics::table::{Authentications, Counters, Named, NamedGauges};
pub use metrics::tracing::TraceMetrics;
pub use metrics::{Counter, Gauge, Metrics, Names, ROUND_TRIP_SECONDS, Unit};
pub use standard::{Given, GivenSetting, Standard, VARIABLES, Variable};
pub use trace::{Origin, Span, SpanKind, Spans, TraceError, Tracer, Whose, Writes};
