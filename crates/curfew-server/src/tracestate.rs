//! `tracestate`: what others in a trace say to each other, passed on as it is.

use curfew_model::TraceContext;
use http::{HeaderMap, HeaderValue};

/// The trace with what a request's headers say beside it; without that where it is none, which costs
/// nothing else.
pub(crate) fn of(trace: TraceContext, headers: &HeaderMap) -> TraceContext {
    // Several headers are one list (W3C Trace Context §3.3.1).
    let lines = headers.get_all("tracestate").iter();
    let lines: Result<Vec<&str>, _> = lines.map(HeaderValue::to_str).collect();
    match lines {
        Ok(lines) if !lines.is_empty() => trace.with_state(&lines.join(",")),
        _ => trace,
    }
}
