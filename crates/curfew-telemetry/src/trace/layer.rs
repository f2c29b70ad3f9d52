//! Converts spans of `tracing` to spans of OpenTelemetry, and puts them into the export queue.

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

/// The path by which ended spans reach the export queue of the [`Tracer`](crate::Tracer). Before
/// the tracer exists, there is no queue, and ended spans are discarded. A clone leads to the same
/// queue.
#[derive(Clone, Default)]
pub struct Spans(Arc<OnceLock<Queue>>);

/// The export queue, and the counter of spans that did not fit into it.
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

/// Returns the layer that converts the spans of [`Tracer`](crate::Tracer) to OpenTelemetry. Log
/// events and the spans of libraries are left out.
pub(crate) fn layer<S>(spans: &Spans) -> impl Layer<S> + Send + Sync + use<S>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let scope = InstrumentationScope::builder(SCOPE)
        .with_version(env!("CARGO_PKG_VERSION"))
        .build();
    let tracer = SdkTracerProvider::builder()
        // `Tracer` decides about sampling before a span exists, so every span that reaches this
        // layer is recorded.
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
                // Without this hint, `tracing` would call the filter for the events of every level.
                .with_max_level_hint(LevelFilter::ERROR),
        )
}

/// This implementation replaces the batch processor of the SDK, which does not report the number of
/// spans that it drops.
impl SpanProcessor for Spans {
    fn on_start(&self, _: &mut opentelemetry_sdk::trace::Span, _: &Context) {}

    fn on_end(&self, mut span: SpanData) {
        // There is no queue before the tracer starts. A span that ends earlier is discarded.
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
        // If the clock was set back while the span was open, its end would precede its start.
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
