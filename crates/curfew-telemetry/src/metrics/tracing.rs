//! The metrics of recorded and dropped spans.

use super::Counter;
use super::labels::Unasked;
use super::table::Counters;

crate::metrics! {
    /// The metrics of a tracer.
    pub struct TraceMetrics {
        trace_spans_exported: Counter, "Spans that the collector has accepted";
        trace_spans_dropped: Counter, "Spans that were recorded and could not be exported";
        trace_spans_suppressed: Counters<Unasked>, "Spans of refusals, failures, ends of sessions and revocations without effect that were dropped before they were recorded, because too many occurred in one second, in total or from one client. Sampled spans are never dropped for this reason";
    }
}
