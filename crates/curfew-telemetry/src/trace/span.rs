//! The type [`Span`]: a span that is recorded, or an empty value.

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

/// The target of Curfew's own spans. The layer that records spans selects them by this target.
pub(super) const TARGET: &str = "curfew::span";

/// The attribute with the start of a span that began before it was created, in nanoseconds of Unix
/// time. The attribute is removed before the export.
pub(super) const BEGAN: &str = "curfew.began";

/// The attribute with the end of a span that ended before it was dropped, in nanoseconds of Unix
/// time. The attribute is removed before the export.
pub(super) const ENDED: &str = "curfew.ended";

/// The attribute with the id of the span's session. All spans of a session can be found by this
/// attribute.
const SESSION: &str = "curfew.session.id";

/// The fields that only the log needs. In an exported span, these ids are part of the span's
/// context, not attributes.
pub(super) const IN_THE_LOG: [&str; 2] = ["trace_id", "span_id"];

/// A recorded span, or an empty value if the span is not recorded. A recorded span ends when it is
/// dropped.
#[derive(Debug, Default)]
pub struct Span(Option<Box<Recording>>);

#[derive(Debug)]
struct Recording {
    recorder: Arc<Recorder>,
    context: TraceContext,
    span: tracing::Span,
}

impl Span {
    /// The value for a span that is not recorded.
    pub const NONE: Self = Self(None);

    /// Begins a span now. The flag in `parent` is true if another process may have begun the
    /// parent.
    pub(super) fn begin(
        recorder: &Arc<Recorder>,
        name: Name,
        kind: SpanKind,
        parent: Option<(TraceContext, bool)>,
    ) -> Self {
        // The span has the level `error`, so that no log level disables the span, and every log
        // line within it has its ids.
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
            // `set_parent` fails if the subscriber has no layer that records spans. `context_of`
            // below then returns `None`.
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

    /// Wraps a span of `tracing`. If `span` is not one of Curfew's own spans, the result is
    /// [`Span::NONE`].
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

    /// Begins a child of `whole`, and assigns it to the session of `whole`. `parent` is the trace
    /// context of `whole`.
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

    /// Returns true if the span is recorded. Callers can skip the computation of attributes if it
    /// is not.
    pub fn is_recorded(&self) -> bool {
        self.0.is_some()
    }

    /// Returns the trace context of the span; `None` if the span is not recorded.
    pub fn context(&self) -> Option<Box<TraceContext>> {
        self.0.as_ref().map(|span| Box::new(span.context.clone()))
    }

    /// Returns the trace of the span; `None` if the span is not recorded.
    pub fn trace(&self) -> Option<curfew_model::TraceId> {
        self.0.as_ref().map(|span| span.context.trace())
    }

    /// Begins a child of the span now. The child is recorded if the span is.
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

    /// Assigns the span, and each of its children that begins later, to `session`.
    pub fn of_session(&mut self, session: SessionId) {
        if let Some(span) = &self.0 {
            mark(&span.span, session);
        }
    }

    /// Adds a link to another span, which may belong to another trace.
    pub fn link(&mut self, other: &TraceContext) {
        if let Some(span) = &self.0 {
            span.span.add_link(foreign(other, true));
        }
    }

    /// Records that the operation was refused. A refusal is not a fault of the node, so the span
    /// does not get the status `error`.
    pub fn refused(&mut self, error_type: &'static str) {
        self.set("error.type", error_type);
    }

    /// Records that the operation has failed. The span gets the status `error`.
    pub fn failed(&mut self, error_type: &'static str) {
        self.set("error.type", error_type);
        if let Some(span) = &self.0 {
            span.span.set_status(Status::error(""));
        }
    }

    /// Sets the start of the span to `at`, a time before its creation.
    pub fn began(&mut self, at: SystemTime) {
        self.set(BEGAN, nanos(at));
    }

    /// Sets the end of the span to `at`, a time before it is dropped.
    pub fn ended(&mut self, at: SystemTime) {
        self.set(ENDED, nanos(at));
    }

    /// Returns the span of `tracing`, which the caller can enter or use to instrument a future. Log
    /// lines within this span have its `trace_id` and `span_id`, and
    /// [`Tracer::within`](super::Tracer::within) begins a child of it.
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

/// The session to which a span is assigned. The value is stored as an extension of the span of
/// `tracing`.
struct Of(SessionId);

fn is_ours(span: &tracing::Span) -> bool {
    span.metadata().is_some_and(|meta| meta.target() == TARGET)
}

/// Assigns a span to `session`. Does nothing if the span is not one of Curfew's own spans.
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

/// Returns the session to which a span is assigned.
fn session_of(span: &tracing::Span) -> Option<SessionId> {
    span.with_subscriber(|(id, dispatch)| {
        let registry = dispatch.downcast_ref::<Registry>()?;
        let of = registry.span(id)?.extensions().get::<Of>()?.0;
        Some(of)
    })
    .flatten()
}

/// Returns a time as Unix time in nanoseconds; 0 for times before 1970, and `i64::MAX` for times
/// that do not fit.
fn nanos(at: SystemTime) -> i64 {
    let since_epoch = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX)
}

/// Returns the time of the machine's clock, because collectors compare the times of several
/// processes. No decision of the node depends on this time.
#[expect(
    clippy::disallowed_methods,
    reason = "a span has the times of this machine, also in tests with a simulated clock"
)]
pub(super) fn now() -> SystemTime {
    SystemTime::now()
}

/// Returns the text that `tracing-opentelemetry` parses as this kind.
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
