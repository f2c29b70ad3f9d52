//! Conversion of `tracing`'s spans to OpenTelemetry's, and their path into the export queue.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Context, InstrumentationScope, Value};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanData, SpanProcessor};
use tokio::sync::mpsc;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::registry::LookupSpan;

use super::span::{BEGAN, ENDED, IN_THE_LOG, TARGET};
use crate::Counter;

/// The instrumentation scope of every span.
const SCOPE: &str = "curfew";

/// The path by which ended spans reach the queue of the [`Tracer`](crate::Tracer). Before the
/// tracer exists, the path has no queue. A clone leads to the same queue.
#[derive(Clone, Default)]
pub struct Spans(Arc<OnceLock<Queue>>);

/// The export queue and the count of spans that did not fit.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) ended: mpsc::Sender<SpanData>,
    pub(super) dropped: Counter,
}

impl Spans {
    /// Directs ended spans into `queue` from now on. Only the first call has an effect.
    pub(super) fn lead_to(&self, queue: Queue) {
        self.0.get_or_init(|| queue);
    }
}

impl fmt::Debug for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spans")
    }
}

/// The layer that converts the spans of [`Tracer`](crate::Tracer) to OpenTelemetry. Spans of
/// libraries and log events are left out.
pub(crate) fn layer<S>(spans: &Spans) -> impl Layer<S> + Send + Sync + use<S>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let scope = InstrumentationScope::builder(SCOPE)
        .with_version(env!("CARGO_PKG_VERSION"))
        .build();
    let tracer = SdkTracerProvider::builder()
        // Sampling happens before a span exists, so every span that reaches this point is recorded.
        .with_sampler(Sampler::AlwaysOn)
        .with_span_processor(spans.clone())
        .build()
        .tracer_with_scope(scope);
    tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_level(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_context_activation(false)
        .with_filter(
            filter_fn(|meta| meta.is_span() && meta.target() == TARGET)
                // Without this hint, `tracing` would ask the filter about each event of every
                // level.
                .with_max_level_hint(LevelFilter::ERROR),
        )
}

/// This replaces the SDK's batch processor, which does not report how many spans it loses.
impl SpanProcessor for Spans {
    fn on_start(&self, _: &mut opentelemetry_sdk::trace::Span, _: &Context) {}

    fn on_end(&self, mut span: SpanData) {
        // Before the tracer starts there is no queue, so the span is not exported.
        let Some(queue) = self.0.get() else { return };
        span.attributes.retain(|attribute| {
            let name = attribute.key.as_str();
            if let (BEGAN | ENDED, Value::I64(nanos)) = (name, &attribute.value) {
                let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos.unsigned_abs());
                match name {
                    BEGAN => span.start_time = at,
                    _ => span.end_time = at,
                }
            }
            ![BEGAN, ENDED].contains(&name) && !IN_THE_LOG.contains(&name)
        });
        // The clock may have been set back while the span was open.
        span.end_time = span.end_time.max(span.start_time);
        if queue.ended.try_send(span).is_err() {
            queue.dropped.inc();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}
