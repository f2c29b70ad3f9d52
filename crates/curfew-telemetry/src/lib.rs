//! Logs, metrics and traces: what an operator sees of a node.
//!
//! Owns: the log's form (one line an event, nothing in it that a terminal would obey), the list of
//! metrics, their names and labels, which spans are recorded and how they are exported.
//! Knows nothing of: connections, tokens, HTTP. Nothing here decides anything.
//! Start at [`init`] for logs, at [`Metrics`] for metrics and at [`Tracer`] for traces.

mod config;
mod endpoint;
mod log;
mod metrics;
mod standard;
mod trace;

pub use config::{Config, LogFormat, NoTracePages, TracePages};
pub use log::{InitError, Installed, LevelError, LogLevel, init};
pub use metrics::histogram::{Histogram, Histograms, NamedHistograms};
pub use metrics::labels::{
    AnswerReason, BackendDropReason, BrokerError, CommandOutcome, Decision, DeliveryPath,
    DropReason, EventOutcome, Initiator, Label, LabelSet, Listener, LogoutOutcome, Opcode,
    PublishOutcome, PublishSource, RedisCommand, RejectReason, Report, ReportFault, RevocationKind,
    TicketOutcome, Unasked,
};
pub use metrics::table::{Authentications, Counters, Named};
pub use metrics::{CONTENT_TYPE, Counter, Gauge, Metrics, Names};
pub use standard::{Given, GivenSetting, Standard, VARIABLES, Variable};
pub use trace::{Origin, Span, SpanKind, Spans, TraceError, Tracer, Whose, Writes};
