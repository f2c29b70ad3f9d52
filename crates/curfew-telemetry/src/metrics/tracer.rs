//! The tracer of a node.

use super::Metrics;
use crate::config::Config;
use crate::trace::{Spans, TraceError, Tracer};

static OFF: Tracer = Tracer::OFF;

impl Metrics {
    /// Where spans begin: beside the metrics, since what is counted is what is traced.
    pub fn tracer(&self) -> &Tracer {
        self.tracer.get().unwrap_or(&OFF)
    }

    /// Exports spans from now on, where `config` says so; once, within a runtime. They come through
    /// `spans`, from the subscriber; `instance` is the node's id.
    pub fn start_tracing(
        &self,
        config: &Config,
        spans: &Spans,
        instance: &str,
        version: &'static str,
    ) -> Result<(), TraceError> {
        let tracer = Tracer::start(config, spans, instance, version, self)?;
        self.tracer.get_or_init(|| tracer);
        Ok(())
    }
}
