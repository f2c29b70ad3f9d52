//! From the queue to the collector, by OTLP over gRPC.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::sync::mpsc;
use tokio::time::{self, Instant};
use tracing::{info, warn};

use super::Recorder;
use crate::Counter;

/// Most spans of one export.
const BATCH: usize = 512;

/// How long a span waits for others.
const INTERVAL: Duration = Duration::from_millis(500);

/// How long the collector may take. Meanwhile spans wait in the queue, and are dropped when it is
/// full.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why no traces can be exported.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// `telemetry.otlp_endpoint` is none.
    #[error("telemetry.otlp_endpoint cannot be used")]
    Endpoint(#[from] ExporterBuildError),
}

/// Connects when there is something to export.
pub(super) fn exporter(
    endpoint: &str,
    instance: &str,
    version: &'static str,
) -> Result<SpanExporter, TraceError> {
    let mut exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(PATIENCE)
        .build()?;
    // With OTEL_RESOURCE_ATTRIBUTES, for what only the deployment knows.
    let resource = Resource::builder()
        .with_service_name("curfew")
        .with_attribute(KeyValue::new("service.version", version))
        .with_attribute(KeyValue::new("service.instance.id", instance.to_owned()))
        .build();
    exporter.set_resource(&resource);
    Ok(exporter)
}

/// Exports in a task of its own, which nothing waits for but the end of the process.
#[expect(
    clippy::disallowed_methods,
    reason = "it outlives the node's tasks, to export what they did last"
)]
pub(super) fn start(
    recorder: Arc<Recorder>,
    mut spans: mpsc::Receiver<SpanData>,
    exporter: SpanExporter,
    exported: Counter,
    dropped: Counter,
) {
    tokio::spawn(async move {
        let mut stopping = false;
        let mut well = true;
        loop {
            let mut batch = Vec::new();
            collect(&recorder, &mut spans, &mut batch, &mut stopping).await;
            if batch.is_empty() {
                break;
            }
            let count = batch.len() as u64;
            let result = time::timeout(PATIENCE, exporter.export(batch)).await;
            match result {
                Ok(Ok(())) => {
                    exported.inc_by(count);
                    if !well {
                        info!("spans are exported again");
                    }
                    well = true;
                }
                Ok(Err(error)) => {
                    dropped.inc_by(count);
                    // Said once: the counter has the rest.
                    if well {
                        warn!(error = %error, "spans cannot be exported, they are dropped");
                    }
                    well = false;
                }
                Err(_) => {
                    dropped.inc_by(count);
                    if well {
                        warn!("the collector does not answer, spans are dropped");
                    }
                    well = false;
                }
            }
        }
        recorder.stopped.notify_one();
    });
}

/// Waits for spans, and from the first one on for more of them. Leaves `batch` empty at the end.
async fn collect(
    recorder: &Recorder,
    spans: &mut mpsc::Receiver<SpanData>,
    batch: &mut Vec<SpanData>,
    stopping: &mut bool,
) {
    let mut deadline = None;
    while batch.len() < BATCH {
        let room = BATCH - batch.len();
        let full = async move {
            match deadline {
                Some(deadline) => time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = recorder.stop.notified(), if !*stopping => {
                *stopping = true;
                spans.close();
            }
            received = spans.recv_many(batch, room) => {
                if received == 0 {
                    return;
                }
                deadline.get_or_insert_with(|| Instant::now() + INTERVAL);
            }
            () = full => return,
        }
    }
}
