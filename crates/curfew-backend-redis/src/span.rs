//! Spans of what Redis is asked, by OpenTelemetry's conventions for its clients: part of whatever
//! span the caller runs in, none where that is not recorded. Never a key or a value: they name people.

use crate::config::RedisAddress;
use curfew_model::TraceContext;
use curfew_telemetry::{Span, SpanKind, Tracer};

use crate::fault::Fault;
use crate::metrics::RedisCommand;

/// What several commands are called together.
pub(crate) const PIPELINE: &str = RedisCommand::PIPELINE;

/// What several commands are called that are executed as one.
pub(crate) const TRANSACTION: &str = RedisCommand::TRANSACTION;

/// Asking `server` for `commands` commands, together called `name`.
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

/// Likewise for a caller that is traced as `parent`, but in another task.
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

fn described(mut span: Span, name: &'static str, commands: usize, server: &RedisAddress) -> Span {
    if !span.is_recorded() {
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

/// It has failed.
pub(crate) fn failed(span: &mut Span, fault: &Fault) {
    if !span.is_recorded() {
        return;
    }
    if let Some(code) = fault.code() {
        span.set("db.response.status_code", code.to_owned());
    }
    // By the word that it is counted by.
    span.failed(fault.as_broker_error().as_str());
}
