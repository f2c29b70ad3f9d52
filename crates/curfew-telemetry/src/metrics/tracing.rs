//! The metrics of spans.

use super::Counter;
use super::labels::Unasked;
use super::table::Counters;

crate::metrics! {
    /// The metrics of a tracer.
    pub struct TraceMetrics {
        trace_spans_exported: Counter, "Spans that the collector has";
        trace_spans_dropped: Counter, "Spans that were recorded and could not be exported";
        trace_spans_suppressed: Counters<Unasked>, "Refusals, failures, ends of sessions and revocations without effect that were not recorded beside the sampled share: there were too many of them in a second, of all or of one client";
    }
}
