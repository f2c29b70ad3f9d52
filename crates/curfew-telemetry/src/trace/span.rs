//! One span.

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

/// The target of every span of ours, so that no other becomes one of a trace.
pub(super) const TARGET: &str = "curfew::span";

/// The attribute that says when a span began, nanoseconds of Unix time, where that was before it was
/// made. It does not leave the process.
pub(super) const BEGAN: &str = "curfew.began";

/// The attribute that says when a span ended, in the same way, where it is let go of later.
pub(super) const ENDED: &str = "curfew.ended";

/// The attribute by which everything about a session is found.
const SESSION: &str = "curfew.session.id";

/// The fields that only the log has: an exported span has them by nature.
pub(super) const IN_THE_LOG: [&str; 2] = ["trace_id", "span_id"];

/// A span that is recorded, or nothing. It ends when it is dropped.
#[derive(Debug, Default)]
pub struct Span(Option<Box<Recording>>);

#[derive(Debug)]
struct Recording {
    recorder: Arc<Recorder>,
    context: TraceContext,
    span: tracing::Span,
}

impl Span {
    /// One that is not recorded.
    pub const NONE: Self = Self(None);

    /// Begins a span now; `parent` with whether it may be another process's.
    pub(super) fn begin(
        recorder: &Arc<Recorder>,
        name: Name,
        kind: SpanKind,
        parent: Option<(TraceContext, bool)>,
    ) -> Self {
        // At the highest level: whatever is logged at all within has its ids.
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
            // It fails where the subscriber records nothing; then there is no context either.
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

    /// A span of `tracing` as the one of ours that it is, if it is.
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

    /// A part of `whole`, whose context is `parent`, and of its session.
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

    /// Whether it is recorded. What is costly to find out need not be for one that is not.
    pub fn is_recorded(&self) -> bool {
        self.0.is_some()
    }

    /// What others need to be its children; `None` when it is not recorded.
    pub fn context(&self) -> Option<Box<TraceContext>> {
        self.0.as_ref().map(|span| Box::new(span.context.clone()))
    }

    /// Names its trace; `None` when it is not recorded.
    pub fn trace(&self) -> Option<curfew_model::TraceId> {
        self.0.as_ref().map(|span| span.context.trace())
    }

    /// A part of it, which begins now.
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

    /// Sets an attribute. Never a token, a claim or a payload.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(span) = &self.0 {
            span.span.set_attribute(key, value);
        }
    }

    /// It is of this session; so are parts that it gets from now on.
    pub fn of_session(&mut self, session: SessionId) {
        if let Some(span) = &self.0 {
            mark(&span.span, session);
        }
    }

    /// Points to a span of another trace, or of this one.
    pub fn link(&mut self, other: &TraceContext) {
        if let Some(span) = &self.0 {
            span.span.add_link(foreign(other, true));
        }
    }

    /// It was refused, through no fault of ours.
    pub fn refused(&mut self, error_type: &'static str) {
        self.set("error.type", error_type);
    }

    /// It failed.
    pub fn failed(&mut self, error_type: &'static str) {
        self.set("error.type", error_type);
        if let Some(span) = &self.0 {
            span.span.set_status(Status::error(""));
        }
    }

    /// It began earlier than it was made.
    pub fn began(&mut self, at: SystemTime) {
        self.set(BEGAN, nanos(at));
    }

    /// It ended at that time, which is earlier than it is dropped.
    pub fn ended(&mut self, at: SystemTime) {
        self.set(ENDED, nanos(at));
    }

    /// To be entered, or to instrument a future with: what is logged within has `trace_id` and
    /// `span_id`, and [`Tracer::within`](super::Tracer::within) finds it.
    pub fn scope(&self) -> tracing::Span {
        match &self.0 {
            Some(span) => span.span.clone(),
            None => tracing::Span::none(),
        }
    }
}

/// What a span of `tracing` is in its trace; `None` when it is in none.
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

/// A session, as a span of `tracing` remembers it.
struct Of(SessionId);

fn is_ours(span: &tracing::Span) -> bool {
    span.metadata().is_some_and(|meta| meta.target() == TARGET)
}

/// Notes that a span of ours is of a session.
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

/// The session that a span is of, where that was noted.
fn session_of(span: &tracing::Span) -> Option<SessionId> {
    span.with_subscriber(|(id, dispatch)| {
        let registry = dispatch.downcast_ref::<Registry>()?;
        let of = registry.span(id)?.extensions().get::<Of>()?.0;
        Some(of)
    })
    .flatten()
}

/// Unix time in nanoseconds.
fn nanos(at: SystemTime) -> i64 {
    let since_epoch = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX)
}

/// The machine's own clock, which collectors compare with those of other processes; nothing is
/// decided by it.
#[expect(
    clippy::disallowed_methods,
    reason = "a span's times are about this machine, whatever time a test pretends it is"
)]
pub(super) fn now() -> SystemTime {
    SystemTime::now()
}

/// As the layer reads it.
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
