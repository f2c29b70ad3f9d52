//! Spans.

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::SystemTime;

use curfew_model::{SessionId, TraceContext};
use opentelemetry::trace::{
    SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Context, Value};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Registry;
use tracing_subscriber::registry::LookupSpan as _;

use super::{Name, Recorder};
use crate::log::TRACED;

pub use opentelemetry::trace::SpanKind;

/// Target of Curfew's own spans. The layer selects spans by it.
pub(super) const TARGET: &str = "curfew::span";

/// Attribute with the start time of a span whose start precedes its creation, in nanoseconds of
/// Unix time. The attribute is removed before the export.
pub(super) const BEGAN: &str = "curfew.began";

/// Attribute with the end time of a span whose end precedes its drop, in nanoseconds of Unix time.
/// The attribute is removed before the export.
pub(super) const ENDED: &str = "curfew.ended";

/// Attribute with the session's id, by which all spans of a session are found.
const SESSION: &str = "curfew.session.id";

/// Fields that only the log needs. An exported span has these ids in its context.
pub(super) const IN_THE_LOG: [&str; 2] = ["trace_id", "span_id"];

/// A recorded span, or nothing. It ends when it is dropped.
#[derive(Debug, Default)]
pub struct Span(Option<Box<Recording>>);

#[derive(Debug)]
struct Recording {
    recorder: Arc<Recorder>,
    context: TraceContext,
    span: tracing::Span,
}

impl Span {
    /// A span that is not recorded.
    pub const NONE: Self = Self(None);

    /// Begins a span now. The flag beside `parent` is true if another process may have begun the
    /// parent.
    pub(super) fn begin(
        recorder: &Arc<Recorder>,
        name: Name,
        kind: SpanKind,
        parent: Option<(TraceContext, bool)>,
    ) -> Self {
        // The span has the level `error`, so that no log level disables it and every log line
        // within it carries its ids.
        let span = tracing::error_span!(
            target: TARGET,
            parent: None,
            TRACED,
            otel.name = &*name,
            otel.kind = kind_name(&kind),
            trace_id = tracing::field::Empty,
            span_id = tracing::field::Empty,
        );
        if let Some((parent, remote)) = &parent {
            let parent = Context::new().with_remote_span_context(foreign(parent, *remote));
            // This fails if the subscriber records nothing. `context_of` below then returns `None`.
            drop(span.set_parent(parent));
        }
        let Some(context) = context_of(&span) else {
            return Self::NONE;
        };
        let [trace_id, span_id] = IN_THE_LOG;
        let (trace, own) = (context.trace_id(), context.span_id());
        span.record(
            trace_id,
            tracing::field::display(TraceId::from_bytes(trace)),
        );
        span.record(span_id, tracing::field::display(SpanId::from_bytes(own)));
        Self(Some(Box::new(Recording {
            recorder: Arc::clone(recorder),
            context,
            span,
        })))
    }

    /// Wraps a span of `tracing`. The result is an empty span if `span` is not one of Curfew's own.
    pub(super) fn of(recorder: &Arc<Recorder>, span: tracing::Span) -> Self {
        if !is_ours(&span) {
            return Self::NONE;
        }
        let recorder = Arc::clone(recorder);
        Self(context_of(&span).map(|context| {
            Box::new(Recording {
                recorder,
                context,
                span,
            })
        }))
    }

    /// Begins a child of `whole`, in the same session as `whole`. `parent` is the context of
    /// `whole`.
    pub(super) fn part_of(
        whole: &tracing::Span,
        recorder: &Arc<Recorder>,
        name: Name,
        kind: SpanKind,
        parent: TraceContext,
    ) -> Self {
        let mut part = Self::begin(recorder, name, kind, Some((parent, false)));
        if part.is_recorded()
            && let Some(session) = session_of(whole)
        {
            part.of_session(session);
        }
        part
    }

    /// Returns true if the span is recorded. Callers skip costly attributes if it is not recorded.
    pub fn is_recorded(&self) -> bool {
        self.0.is_some()
    }

    /// The context for child spans; `None` if the span is not recorded.
    pub fn context(&self) -> Option<Box<TraceContext>> {
        self.0.as_ref().map(|span| Box::new(span.context.clone()))
    }

    /// The span's trace; `None` if the span is not recorded.
    pub fn trace(&self) -> Option<curfew_model::TraceId> {
        self.0.as_ref().map(|span| span.context.trace())
    }

    /// Begins a child of the span now.
    pub fn child(&self, name: impl Into<Name>, kind: SpanKind) -> Self {
        match &self.0 {
            Some(whole) => Self::part_of(
                &whole.span,
                &whole.recorder,
                name.into(),
                kind,
                whole.context.clone(),
            ),
            None => Self::NONE,
        }
    }

    /// Sets an attribute, which must never be a token, a claim or a payload.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(span) = &self.0 {
            span.span.set_attribute(key, value);
        }
    }

    /// Assigns the span, and each child that begins later, to this session.
    pub fn of_session(&mut self, session: SessionId) {
        if let Some(span) = &self.0 {
            mark(&span.span, session);
        }
    }

    /// Links to a span of the same or another trace.
    pub fn link(&mut self, other: &TraceContext) {
        if let Some(span) = &self.0 {
            span.span.add_link(foreign(other, true));
        }
    }

    /// Marks the span as refused. A refusal is not a fault of the node.
    pub fn refused(&mut self, error_type: &'static str) {
        self.set("error.type", error_type);
    }

    /// Marks the span as failed.
    pub fn failed(&mut self, error_type: &'static str) {
        self.set("error.type", error_type);
        if let Some(span) = &self.0 {
            span.span.set_status(Status::error(""));
        }
    }

    /// Sets the start to `at`, a time before the creation of the span.
    pub fn began(&mut self, at: SystemTime) {
        self.set(BEGAN, nanos(at));
    }

    /// Sets the end to `at`, a time before the drop of the span.
    pub fn ended(&mut self, at: SystemTime) {
        self.set(ENDED, nanos(at));
    }

    /// Returns the span of `tracing`, to be entered or to instrument a future. Log lines within
    /// this span have `trace_id` and `span_id`, and [`Tracer::within`](super::Tracer::within) finds
    /// this span.
    pub fn scope(&self) -> tracing::Span {
        match &self.0 {
            Some(span) => span.span.clone(),
            None => tracing::Span::none(),
        }
    }
}

/// Returns the trace context of a span of `tracing`; `None` if the span belongs to no trace.
pub(super) fn context_of(span: &tracing::Span) -> Option<TraceContext> {
    let context = span.context();
    let span = context.span();
    let own = span.span_context();
    let context = TraceContext::new(
        own.trace_id().to_bytes(),
        own.span_id().to_bytes(),
        own.is_sampled(),
    )?;
    Some(match own.trace_state().header() {
        state if state.is_empty() => context,
        state => context.with_state(&state),
    })
}

/// The session of a span, stored as an extension of the span of `tracing`.
struct Of(SessionId);

fn is_ours(span: &tracing::Span) -> bool {
    span.metadata().is_some_and(|meta| meta.target() == TARGET)
}

/// Records the session of one of Curfew's spans.
pub(super) fn mark(span: &tracing::Span, session: SessionId) {
    if !is_ours(span) {
        return;
    }
    span.set_attribute(SESSION, session.to_string());
    span.with_subscriber(|(id, dispatch)| {
        let registry = dispatch.downcast_ref::<Registry>()?;
        registry.span(id)?.extensions_mut().replace(Of(session))
    });
}

/// The recorded session of a span.
fn session_of(span: &tracing::Span) -> Option<SessionId> {
    span.with_subscriber(|(id, dispatch)| {
        let registry = dispatch.downcast_ref::<Registry>()?;
        let of = registry.span(id)?.extensions().get::<Of>()?.0;
        Some(of)
    })
    .flatten()
}

/// Unix time in nanoseconds, clamped to the range of `i64`.
fn nanos(at: SystemTime) -> i64 {
    let since_epoch = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX)
}

/// Returns the time of the machine's own clock, because collectors compare the times of several
/// processes. No decision depends on this time.
#[expect(
    clippy::disallowed_methods,
    reason = "a span has the times of this machine, also in tests with a simulated clock"
)]
pub(super) fn now() -> SystemTime {
    SystemTime::now()
}

/// Returns the text that the layer reads as this kind.
fn kind_name(kind: &SpanKind) -> &'static str {
    match kind {
        SpanKind::Client => "client",
        SpanKind::Server => "server",
        SpanKind::Producer => "producer",
        SpanKind::Consumer => "consumer",
        SpanKind::Internal => "internal",
    }
}

fn foreign(context: &TraceContext, remote: bool) -> SpanContext {
    let flags = if context.is_sampled() {
        TraceFlags::SAMPLED
    } else {
        TraceFlags::default()
    };
    let state = context.state().map(TraceState::from_str);
    SpanContext::new(
        TraceId::from_bytes(context.trace_id()),
        SpanId::from_bytes(context.span_id()),
        flags,
        remote,
        state.and_then(Result::ok).unwrap_or_default(),
    )
}
