//! Decides which spans are recorded and which traces they join, and exports spans to a collector.
//!
//! The decision is made before the span exists, and a span that is not recorded is a null pointer.
//! A recorded span is a span of the crate `tracing`. The crate `tracing-opentelemetry` converts it
//! to OpenTelemetry. A span that cannot be exported is dropped and counted.

mod budget;
mod export;
mod layer;
mod outage;
mod span;
mod writes;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use curfew_model::{SessionId, TraceContext, TraceId};
use tokio::sync::{Notify, mpsc};

use crate::config::{TelemetryConfig, TracePages};
use crate::endpoint;
use crate::metrics::labels::Unasked;
use crate::metrics::tracing::TraceMetrics;

pub use budget::Whose;
pub use export::TraceError;
pub use layer::Spans;
pub(crate) use layer::layer;
pub use span::{Span, SpanKind};
pub use writes::Writes;

use budget::{Budget, Budgets, UNASKED_OF_ONE_PER_SECOND, UNASKED_PER_SECOND};
use export::{Counted, Export};
use layer::Queue;

/// The default capacity of the export queue, in spans. Spans that do not fit are dropped and
/// counted.
pub(crate) const QUEUE: usize = 4096;

/// Maximum number of traces per second that are recorded because a trusted client's `traceparent`
/// requests it.
const CLIENT_TRACES_PER_SECOND: u32 = 10;

/// A span's name. It names an operation, and never a user or a channel.
pub(crate) type Name = Cow<'static, str>;

/// The trace that a request states as its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The request states no trace.
    Unknown,
    /// A client states the trace. The span of the request links to the trace or, if
    /// `telemetry.trust_client_traces` is set, joins it.
    Client(TraceContext),
    /// A caller with an admin key states the trace. The span of the request joins the trace, and is
    /// recorded if the flag of the trace is set.
    Operator(TraceContext),
}

impl Origin {
    /// Returns the origin of a client's request.
    pub fn client(traceparent: Option<TraceContext>) -> Self {
        traceparent.map_or(Self::Unknown, Self::Client)
    }

    /// Returns the origin of a request by a caller with an admin key.
    pub fn operator(traceparent: Option<TraceContext>) -> Self {
        traceparent.map_or(Self::Unknown, Self::Operator)
    }
}

/// Begins spans. Without `telemetry.otlp_endpoint` the tracer is off, and no span is recorded.
/// Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Tracer(Option<Arc<Recorder>>);

/// The state of a tracer that is on.
#[derive(Debug)]
pub(crate) struct Recorder {
    ratio: f64,
    trust_clients: bool,
    user_ids: bool,
    pages: Option<TracePages>,
    unasked: Budgets,
    by_clients: Budget,
    stop: Notify,
    stopped: Notify,
}

impl Tracer {
    /// A tracer that records nothing.
    pub(crate) const OFF: Self = Self(None);

    /// If `config` names a collector, starts the export of the spans that arrive through `spans`.
    /// Otherwise returns [`Tracer::OFF`]. `instance` is the node's id in the exported spans.
    pub(crate) fn start(
        config: &TelemetryConfig,
        spans: &Spans,
        instance: &str,
        version: &'static str,
        metrics: &TraceMetrics,
    ) -> Result<Self, TraceError> {
        let Some(address) = config.traces_to() else {
            return Ok(Self::OFF);
        };
        let export = Export::new(&config.standard);
        let exporter = export.exporter(&config.standard, address, instance, version)?;
        let (queue, ended) = mpsc::channel(config.standard.queue());
        let dropped = metrics.trace_spans_dropped.clone();
        spans.lead_to(Queue {
            ended: queue,
            dropped: dropped.clone(),
        });
        let recorder = Arc::new(Recorder {
            ratio: config.trace_sample_ratio,
            trust_clients: config.trust_client_traces,
            user_ids: config.trace_user_ids,
            pages: config.trace_url.as_ref().and_then(|url| url.parse().ok()),
            unasked: Budgets::new(
                UNASKED_PER_SECOND,
                UNASKED_OF_ONE_PER_SECOND,
                metrics.trace_spans_suppressed.clone(),
            ),
            by_clients: Budget::new(CLIENT_TRACES_PER_SECOND, CLIENT_TRACES_PER_SECOND),
            stop: Notify::new(),
            stopped: Notify::new(),
        });
        let counted = Counted {
            exported: metrics.trace_spans_exported.clone(),
            dropped,
        };
        let port = endpoint::check(address).ok();
        export.start(Arc::clone(&recorder), ended, exporter, counted, port);
        Ok(Self(Some(recorder)))
    }

    /// Returns true if spans can be recorded.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Returns the current time, for a span that may be recorded later. If the tracer is off, the
    /// clock is not read.
    pub fn now(&self) -> SystemTime {
        if self.is_on() {
            span::now()
        } else {
            SystemTime::UNIX_EPOCH
        }
    }

    /// Returns true if spans may contain users' ids. Spans may then also contain channels' names,
    /// because a channel's name may contain a user's id.
    pub fn names_users(&self) -> bool {
        self.0.as_ref().is_some_and(|recorder| recorder.user_ids)
    }

    /// Adds the user's id to a span, if spans may contain users' ids.
    pub fn name_user(&self, span: &mut Span, user: &str) {
        if span.is_recorded() && self.names_users() {
            span.set("user.id", user.to_owned());
        }
    }

    /// Begins the span of a request. A span that joins the trace of `origin` is recorded if the
    /// flag of that trace is set. For trusted clients, this is limited to 10 traces a second. For
    /// any other span, the configured ratio decides.
    pub fn request(&self, name: impl Into<Name>, origin: Origin) -> Span {
        let Some(recorder) = &self.0 else {
            return Span::NONE;
        };
        if recorder.samples(&origin) {
            recorder.begin_request(name, origin)
        } else {
            Span::NONE
        }
    }

    /// Begins the span of a request. It is always recorded if the tracer is on.
    pub fn always(&self, name: impl Into<Name>, origin: Origin) -> Span {
        match &self.0 {
            Some(recorder) => recorder.begin_request(name, origin),
            None => Span::NONE,
        }
    }

    /// Returns the span of a request that began at `started` and that was refused or has failed.
    /// `is_ours` is true if it failed through a fault of the node. The span is recorded even if the
    /// request was not sampled, up to 100 refusals and 100 failures a second, and at most 10 of
    /// each for one client.
    pub fn fault(
        &self,
        is_ours: bool,
        name: impl Into<Name>,
        origin: Origin,
        started: SystemTime,
        whose: Whose<'_>,
    ) -> Span {
        let what = match is_ours {
            true => Unasked::Failure,
            false => Unasked::Refusal,
        };
        self.unasked(what, whose, |recorder| {
            recorder.begin_earlier(name, origin, started)
        })
    }

    /// Returns the span of a session's end. `started` is the time at which the end began, and
    /// `upgrade` is the span of the session's upgrade if it was recorded. With `upgrade`, the span
    /// is always recorded. Otherwise it is recorded up to 100 ends of sessions a second, and at
    /// most 10 for one client.
    pub fn session_end(
        &self,
        name: &'static str,
        upgrade: Option<&TraceContext>,
        started: SystemTime,
        whose: Whose<'_>,
    ) -> Span {
        let begin = |recorder: &Arc<Recorder>| {
            let mut span = Span::begin(recorder, name.into(), SpanKind::Internal, None);
            span.began(started);
            span
        };
        match (&self.0, upgrade) {
            (Some(recorder), Some(upgrade)) => {
                let mut span = begin(recorder);
                span.link(upgrade);
                span
            }
            _ => self.unasked(Unasked::SessionEnd, whose, begin),
        }
    }

    fn unasked(
        &self,
        what: Unasked,
        whose: Whose<'_>,
        begin: impl FnOnce(&Arc<Recorder>) -> Span,
    ) -> Span {
        match &self.0 {
            Some(recorder) if recorder.unasked.take(what, whose) => begin(recorder),
            _ => Span::NONE,
        }
    }

    /// Returns the recorded span in which the caller runs, so that the caller can add attributes.
    /// The span ends only when its creator has dropped it and the returned handle is dropped too.
    pub fn here(&self) -> Span {
        match &self.0 {
            Some(recorder) => Span::of(recorder, tracing::Span::current()),
            None => Span::NONE,
        }
    }

    /// Assigns the recorded span in which the caller runs to `session`. Each child of the span that
    /// begins later is assigned too.
    pub fn of_session(&self, session: SessionId) {
        if self.is_on() {
            span::mark(&tracing::Span::current(), session);
        }
    }

    /// Begins a child of the recorded span in which the caller runs (see [`Span::scope`]). If the
    /// caller runs in no recorded span, the child is not recorded.
    pub fn within(&self, name: &'static str, kind: SpanKind) -> Span {
        let Some(recorder) = &self.0 else {
            return Span::NONE;
        };
        let current = tracing::Span::current();
        match span::context_of(&current) {
            Some(parent) => Span::part_of(&current, recorder, name.into(), kind, parent),
            None => Span::NONE,
        }
    }

    /// Returns the trace of the recorded span in which the caller runs (see [`Span::scope`]).
    pub fn current(&self) -> Option<TraceId> {
        self.0.as_ref()?;
        Some(span::context_of(&tracing::Span::current())?.trace())
    }

    /// Returns the URL of the page of `trace`; `None` if the tracer is off or `telemetry.trace_url`
    /// is not set.
    pub fn link(&self, trace: TraceId) -> Option<String> {
        let pages = self.0.as_ref()?.pages.as_ref()?;
        Some(pages.of(trace))
    }

    /// Begins a child of `parent`, which is a span of this node or of another node. The child is
    /// recorded if the parent is.
    pub fn child(&self, name: impl Into<Name>, kind: SpanKind, parent: &TraceContext) -> Span {
        match &self.0 {
            Some(recorder) if parent.is_sampled() => {
                Span::begin(recorder, name.into(), kind, Some((parent.clone(), true)))
            }
            _ => Span::NONE,
        }
    }

    /// Begins the span of a revocation that takes effect on this node. `call` is the span of the
    /// call that wrote the revocation, if it was recorded, and becomes the parent. `is_vain` is
    /// true if the revocation closed no session. At most 100 spans of such revocations are recorded
    /// a second. The span of a revocation that closed a session is always recorded.
    pub fn revocation(
        &self,
        name: &'static str,
        call: Option<&TraceContext>,
        is_vain: bool,
    ) -> Span {
        let parent = call.map(|call| (call.clone(), true));
        let begin = |recorder: &Arc<Recorder>| {
            Span::begin(recorder, name.into(), SpanKind::Consumer, parent)
        };
        match &self.0 {
            Some(recorder) if !is_vain => begin(recorder),
            _ => self.unasked(Unasked::VainRevocation, Whose::OURS, begin),
        }
    }

    /// Begins a span without a parent. It is always recorded if the tracer is on.
    pub fn root(&self, name: &'static str, kind: SpanKind) -> Span {
        match &self.0 {
            Some(recorder) => Span::begin(recorder, name.into(), kind, None),
            None => Span::NONE,
        }
    }

    /// Exports the spans in the queue, and ends the export. Gives up after `patience`.
    pub async fn shutdown(&self, patience: Duration) {
        let Some(recorder) = &self.0 else { return };
        recorder.stop.notify_one();
        if tokio::time::timeout(patience, recorder.stopped.notified())
            .await
            .is_err()
        {
            tracing::warn!("the last spans were not exported in time");
        }
    }
}

impl Recorder {
    fn samples(&self, origin: &Origin) -> bool {
        match origin {
            Origin::Operator(parent) => parent.is_sampled(),
            Origin::Client(parent) if self.trust_clients => {
                parent.is_sampled() && self.by_clients.take(Whose::OURS)
            }
            Origin::Client(_) | Origin::Unknown => fastrand::f64() < self.ratio,
        }
    }

    fn begin_earlier(
        self: &Arc<Self>,
        name: impl Into<Name>,
        origin: Origin,
        started: SystemTime,
    ) -> Span {
        let mut span = self.begin_request(name, origin);
        span.began(started);
        span
    }

    fn begin_request(self: &Arc<Self>, name: impl Into<Name>, origin: Origin) -> Span {
        let (parent, link) = match origin {
            Origin::Unknown => (None, None),
            Origin::Operator(parent) => (Some((parent, true)), None),
            Origin::Client(parent) if self.trust_clients => (Some((parent, true)), None),
            Origin::Client(other) => (None, Some(other.without_state())),
        };
        let mut span = Span::begin(self, name.into(), SpanKind::Server, parent);
        if let Some(other) = &link {
            span.link(other);
        }
        span
    }
}

#[cfg(test)]
mod tests;
