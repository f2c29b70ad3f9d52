//! The metrics of spans.

use super::Counter;
use super::labels::Unasked;
use super::table::Counters;

crate::metrics! {
    /// The metrics of a tracer.
    pub struct TraceMetrics {
        trace_spans_exported: Counter, "Spans that the collector has accepted";
        trace_spans_dropped: Counter, "Spans that were recorded and could not be exported";
        trace_spans_suppressed: Counters<Unasked>, "Spans of refusals, failures, session ends and revocations without effect that are recorded outside the sampled share and were left out, because too many of them came in one second, from all clients or from one";
    }
}
