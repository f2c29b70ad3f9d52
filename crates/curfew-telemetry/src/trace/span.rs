//! One span.

use std::sync::Arc;
use std::time::SystemTime;

use curfew_model::TraceContext;
use opentelemetry::trace::{Link, SpanContext, SpanId, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::{Name, Recorder};
use crate::log::TRACED;

pub use opentelemetry::trace::SpanKind;

/// A span that is recorded, or nothing. It ends when it is dropped.
#[derive(Debug, Default)]
pub struct Span(Option<Box<Recording>>);

#[derive(Debug)]
struct Recording {
    recorder: Arc<Recorder>,
    context: TraceContext,
    data: SpanData,
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
        let trace_id = match parent {
            Some((parent, _)) => parent.trace_id(),
            None => fastrand::u128(1..).to_be_bytes(),
        };
        let span_id = fastrand::u64(1..).to_be_bytes();
        let context = TraceContext::new(trace_id, span_id, true)
            .expect("ids begin at one, and so do parsed ones");
        let now = now();
        let data = SpanData {
            span_context: foreign(&context, false),
            parent_span_id: parent.map_or(SpanId::INVALID, |(parent, _)| {
                SpanId::from_bytes(parent.span_id())
            }),
            parent_span_is_remote: parent.is_some_and(|(_, remote)| remote),
            span_kind: kind,
            name,
            start_time: now,
            end_time: now,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: recorder.scope.clone(),
        };
        Self(Some(Box::new(Recording {
            recorder: Arc::clone(recorder),
            context,
            data,
        })))
    }

    /// Whether it is recorded. What is costly to find out need not be for one that is not.
    pub fn is_recorded(&self) -> bool {
        self.0.is_some()
    }

    /// What others need to be its children; `None` when it is not recorded.
    pub fn context(&self) -> Option<Box<TraceContext>> {
        self.0.as_ref().map(|span| Box::new(span.context))
    }

    /// A part of it, which begins now.
    pub fn child(&self, name: &'static str, kind: SpanKind) -> Self {
        match &self.0 {
            Some(span) => Self::begin(
                &span.recorder,
                name.into(),
                kind,
                Some((span.context, false)),
            ),
            None => Self::NONE,
        }
    }

    /// Sets an attribute. Never a token, a claim or a payload.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(span) = &mut self.0 {
            span.data.attributes.push(KeyValue::new(key, value));
        }
    }

    /// Points to a span of another trace, or of this one.
    pub fn link(&mut self, other: &TraceContext) {
        if let Some(span) = &mut self.0 {
            let link = Link::with_context(foreign(other, true));
            span.data.links.links.push(link);
        }
    }

    /// It was refused, through no fault of ours.
    pub fn refused(&mut self, error_type: &'static str) {
        self.set("error.type", error_type);
    }

    /// It failed.
    pub fn failed(&mut self, error_type: &'static str) {
        self.set("error.type", error_type);
        if let Some(span) = &mut self.0 {
            span.data.status = Status::error("");
        }
    }

    /// It began earlier than it was made.
    pub fn began(&mut self, at: SystemTime) {
        if let Some(span) = &mut self.0 {
            span.data.start_time = at;
        }
    }

    /// For the log: what is logged within has `trace_id` and `span_id`.
    pub fn log(&self) -> tracing::Span {
        match &self.0 {
            // At the highest level: whatever is logged at all has them.
            Some(span) => tracing::error_span!(
                TRACED,
                trace_id = %span.data.span_context.trace_id(),
                span_id = %span.data.span_context.span_id()
            ),
            None => tracing::Span::none(),
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(span) = self.0.take() {
            let Recording {
                recorder, mut data, ..
            } = *span;
            // The clock may have been set back.
            data.end_time = now().max(data.start_time);
            recorder.finish(data);
        }
    }
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

fn foreign(context: &TraceContext, remote: bool) -> SpanContext {
    let flags = if context.is_sampled() {
        TraceFlags::SAMPLED
    } else {
        TraceFlags::default()
    };
    SpanContext::new(
        TraceId::from_bytes(context.trace_id()),
        SpanId::from_bytes(context.span_id()),
        flags,
        remote,
        TraceState::default(),
    )
}
