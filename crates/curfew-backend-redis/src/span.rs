//! Spans of commands to Redis, by OpenTelemetry's conventions for clients of Redis. Each span is a
//! child of the caller's span, and is recorded only if the caller's span is recorded. Spans never
//! contain keys or values, which may be personal data.

use crate::config::RedisAddress;
use curfew_model::TraceContext;
use curfew_telemetry::{Span, SpanKind, Tracer};

use crate::fault::Fault;
use crate::metrics::RedisCommand;

/// The name of several commands in one pipeline.
pub(crate) const PIPELINE: &str = RedisCommand::PIPELINE;

/// The name of several commands in one transaction.
pub(crate) const TRANSACTION: &str = RedisCommand::TRANSACTION;

/// Begins the span of `commands` commands to `server`. `name` is the name of the command, or
/// [`PIPELINE`] or [`TRANSACTION`].
pub(crate) fn begin(
    tracer: &Tracer,
    name: &'static str,
    commands: usize,
    server: &RedisAddress,
) -> Span {
    described(
        tracer.within(name, SpanKind::Client),
        name,
        commands,
        server,
    )
}

/// Like [`begin`], for a caller in another task whose span is `parent`.
pub(crate) fn begin_below(
    parent: &TraceContext,
    tracer: &Tracer,
    name: &'static str,
    commands: usize,
    server: &RedisAddress,
) -> Span {
    let span = tracer.child(name, SpanKind::Client, parent);
    described(span, name, commands, server)
}

/// Sets the attributes that OpenTelemetry's conventions require.
fn described(mut span: Span, name: &'static str, commands: usize, server: &RedisAddress) -> Span {
    if !span.is_recorded() {
        // Setting attributes of a span that is not recorded would be wasted work.
        return span;
    }
    span.set("db.system.name", "redis");
    span.set("db.operation.name", name);
    if commands > 1 {
        let size = i64::try_from(commands).unwrap_or(i64::MAX);
        span.set("db.operation.batch.size", size);
    }
    span.set("server.address", server.host.clone());
    span.set("server.port", i64::from(server.port));
    span
}

/// Marks the span as failed.
pub(crate) fn failed(span: &mut Span, fault: &Fault) {
    if !span.is_recorded() {
        return;
    }
    if let Some(code) = fault.code() {
        span.set("db.response.status_code", code.to_owned());
    }
    // The error type equals the label in the metric of broker errors.
    span.failed(fault.as_broker_error().as_str());
}
