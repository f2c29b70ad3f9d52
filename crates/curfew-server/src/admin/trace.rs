//! The span of a call of the admin API.

use curfew_model::TraceContext;
use curfew_model::json::object_text;
use curfew_telemetry::Span;
use http::HeaderMap;
use serde::Deserialize;
use serde_json::Value;

use super::api::Operation;
use crate::http::span::traceparent;

/// Returns the trace that the caller states. A `traceparent` in the body of a publication takes
/// precedence over the header, because intermediaries do not change a body.
pub(super) fn origin(
    operation: &Operation,
    headers: &HeaderMap,
    body: &[u8],
) -> Option<TraceContext> {
    #[derive(Deserialize)]
    struct Traced {
        traceparent: Option<Value>,
        tracestate: Option<Value>,
    }
    let in_body = || {
        let traced: Traced = serde_json::from_str(object_text(body)?).ok()?;
        let trace = TraceContext::parse(traced.traceparent?.as_str()?)?;
        let state = traced.tracestate.as_ref().and_then(Value::as_str);
        Some(trace.with_state(state.unwrap_or_default()))
    };
    let of_body = if operation.publishes { in_body() } else { None };
    of_body.or_else(|| traceparent(headers))
}

/// Sets the attributes of a call on its span, by the semantic conventions for HTTP. The span has
/// neither the URL nor the body, because they may identify people.
pub(super) fn describe(
    span: &mut Span,
    operation: &Operation,
    status: u16,
    code: Option<&'static str>,
) {
    span.set("http.request.method", operation.method.as_str().to_owned());
    span.set("http.route", operation.path);
    span.set("http.response.status_code", i64::from(status));
    match status {
        500.. => span.failed(code.unwrap_or("internal")),
        400.. => span.refused(code.unwrap_or("bad_request")),
        _ => {}
    }
}
