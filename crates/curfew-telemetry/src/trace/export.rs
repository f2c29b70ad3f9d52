//! Exports the spans in the queue to the collector, by OTLP over gRPC.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::sync::mpsc;
use tokio::time::{self, Instant};

use super::Recorder;
use super::outage::{Fault, Outage};
use crate::Counter;
use crate::standard::Standard;

/// The default for the maximum number of spans in one export. `OTEL_BSP_MAX_EXPORT_BATCH_SIZE`
/// replaces it.
const BATCH: usize = 512;

/// The default for the maximum time for which a span waits for further spans of the same export.
/// `OTEL_BSP_SCHEDULE_DELAY` replaces it.
const DELAY: Duration = Duration::from_millis(500);

/// The default timeout of an export. `OTEL_EXPORTER_OTLP_TIMEOUT` or `OTEL_BSP_EXPORT_TIMEOUT`
/// replaces it. During an export, ended spans wait in the queue. While the queue is full, further
/// spans are dropped.
const PATIENCE: Duration = Duration::from_secs(5);

/// The interval of the checks for dropped spans during one export. It is longer than the default
/// timeout of an export, because the reason for dropped spans is known only when the export has
/// ended.
const LOOK: Duration = Duration::from_secs(10);

/// The resource attribute that names the service.
const SERVICE_NAME: &str = "service.name";

/// The reason why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// `telemetry.otlp_endpoint` cannot be used.
    #[error("telemetry.otlp_endpoint cannot be used")]
    Endpoint(#[from] ExporterBuildError),
}

/// The parameters of exports.
#[derive(Debug)]
pub(super) struct Export {
    batch: usize,
    delay: Duration,
    /// Maximum time of one attempt.
    timeout: Duration,
    /// Maximum time of one export, including its retries.
    patience: Duration,
}

/// The counters of exported and dropped spans.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) exported: Counter,
    pub(super) dropped: Counter,
}

impl Export {
    pub(super) fn new(standard: &Standard) -> Self {
        let timeout = standard.timeout.unwrap_or(PATIENCE);
        let patience = standard.export_timeout.unwrap_or(timeout);
        Self {
            batch: standard.batch.unwrap_or(BATCH.min(standard.queue())),
            delay: standard.delay.unwrap_or(DELAY),
            timeout: timeout.min(patience),
            patience,
        }
    }

    /// Creates the exporter. It connects to the collector at the first export. It also reads
    /// `OTEL_EXPORTER_OTLP_HEADERS`, which Curfew has already checked.
    pub(super) fn exporter(
        &self,
        standard: &Standard,
        endpoint: &str,
        instance: &str,
        version: &'static str,
    ) -> Result<SpanExporter, TraceError> {
        let mut exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(self.timeout)
            .build()?;
        exporter.set_resource(&resource(standard, instance, version));
        Ok(exporter)
    }

    /// Starts a task that exports the spans from `spans`. The task runs until
    /// [`Tracer::shutdown`](super::Tracer::shutdown) is called. `port` is the port of the
    /// collector.
    #[expect(
        clippy::disallowed_methods,
        reason = "the exporter outlives the node's tasks, so that it exports their last spans"
    )]
    pub(super) fn start(
        self,
        recorder: Arc<Recorder>,
        spans: mpsc::Receiver<SpanData>,
        exporter: SpanExporter,
        counted: Counted,
        port: Option<u16>,
    ) {
        let exporting = Exporting {
            how: self,
            recorder,
            spans,
            counted,
            outage: Outage::new(port),
            stopping: false,
        };
        tokio::spawn(exporting.run(exporter));
    }
}

/// The state of the task that exports spans.
struct Exporting {
    how: Export,
    recorder: Arc<Recorder>,
    spans: mpsc::Receiver<SpanData>,
    counted: Counted,
    outage: Outage,
    /// True after the queue was closed. The spans that are still in the queue are exported.
    stopping: bool,
}

impl Exporting {
    async fn run(mut self, exporter: SpanExporter) {
        let mut is_last = false;
        while !is_last {
            let mut batch = Vec::new();
            is_last = self.collect(&mut batch).await;
            let result = self.export(&exporter, batch).await;
            self.look(result);
        }
        self.recorder.stopped.notify_one();
    }

    fn look(&mut self, result: Result<u64, Fault>) {
        let dropped = self.counted.dropped.get();
        self.outage.look(dropped, result, Instant::now());
    }

    /// Closes the queue. If spans are being dropped, logs their number now, because the process may
    /// end before the collector answers.
    fn stop(&mut self) {
        self.stopping = true;
        self.spans.close();
        self.look(Ok(0));
        self.outage.end();
    }

    /// Exports a batch, and returns the number of spans that the collector has accepted. During a
    /// long export, also checks for dropped spans, at the interval [`LOOK`].
    async fn export(
        &mut self,
        exporter: &SpanExporter,
        batch: Vec<SpanData>,
    ) -> Result<u64, Fault> {
        let count = batch.len() as u64;
        if count == 0 {
            return Ok(0);
        }
        let recorder = Arc::clone(&self.recorder);
        let mut export = pin!(time::timeout(self.how.patience, exporter.export(batch)));
        let result = loop {
            tokio::select! {
                biased;
                () = recorder.stop.notified(), if !self.stopping => self.stop(),
                result = &mut export => break result,
                () = time::sleep(LOOK) => self.look(Ok(0)),
            }
        };
        let fault = match result {
            Ok(Ok(())) => {
                self.counted.exported.inc_by(count);
                return Ok(count);
            }
            Ok(Err(error)) => Fault::Failed(error),
            Err(_) => Fault::Silent,
        };
        self.counted.dropped.inc_by(count);
        Err(fault)
    }

    /// Collects spans from the queue into `batch`. Waits for the first span, and then until the
    /// batch is full or its delay has passed. If no span arrives, the wait ends when an outage may
    /// be over. Returns true if the queue is closed and empty.
    async fn collect(&mut self, batch: &mut Vec<SpanData>) -> bool {
        let recorder = Arc::clone(&self.recorder);
        let mut deadline = self.outage.may_be_over_at();
        while batch.len() < self.how.batch {
            let room = self.how.batch - batch.len();
            let full = async move {
                match deadline {
                    Some(deadline) => time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = recorder.stop.notified(), if !self.stopping => self.stop(),
                received = self.spans.recv_many(batch, room) => {
                    if received == 0 {
                        return true;
                    }
                    if batch.len() == received {
                        deadline = Some(Instant::now() + self.how.delay);
                    }
                }
                () = full => return false,
            }
        }
        false
    }
}

/// Returns the resource attributes of all spans.
fn resource(standard: &Standard, instance: &str, version: &'static str) -> Resource {
    let given = standard.resource.iter();
    let name_is_given = given.clone().any(|(key, _)| key == SERVICE_NAME);
    let resource = Resource::builder()
        .with_attribute(KeyValue::new("service.version", version))
        .with_attribute(KeyValue::new("service.instance.id", instance.to_owned()))
        .with_attributes(given.map(|(key, value)| KeyValue::new(key.clone(), value.clone())))
        .with_attribute(KeyValue::new("curfew.node.id", instance.to_owned()));
    match &standard.service_name {
        Some(name) => resource.with_service_name(name.clone()),
        None if name_is_given => resource,
        None => resource.with_service_name("curfew"),
    }
    .build()
}
