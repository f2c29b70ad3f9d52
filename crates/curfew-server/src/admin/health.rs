//! Health and metrics: open to whoever reaches the admin listener.

use std::borrow::Cow;

use curfew_telemetry::CONTENT_TYPE as METRICS_CONTENT_TYPE;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use http_body_util::Full;
use schemars::JsonSchema;
use serde::Serialize;

use super::Admin;
use crate::respond::{Problem, Response, json};

/// The process is alive.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Live {
    alive: bool,
}

/// Whether new connections are accepted.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Ready {
    ready: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Cow<'static, str>>,
    /// What keeps a Redis that was replaced by a replica from accepting revocations: `none`, or the
    /// setting that does. Left out where there are no replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    fencing: Option<&'static str>,
}

pub(super) fn livez() -> Result<Response, Problem> {
    Ok(json(StatusCode::OK, &Live { alive: true }))
}

pub(super) fn readyz(admin: &Admin) -> Result<Response, Problem> {
    let node = &admin.context.node;
    let reason = match node.is_draining() {
        true => Some("draining".into()),
        false => node.backends().nodes.unready(),
    };
    let status = match reason {
        None => StatusCode::OK,
        Some(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    Ok(json(
        status,
        &Ready {
            ready: reason.is_none(),
            reason,
            fencing: node.backends().nodes.fencing(),
        },
    ))
}

pub(super) fn metrics(admin: &Admin) -> Result<Response, Problem> {
    let metrics = admin.context.node.metrics();
    let hub = admin.context.node.hub();
    metrics
        .send_queue_bytes
        .set(i64::try_from(hub.queued_bytes()).unwrap_or(i64::MAX));
    metrics
        .channels
        .set(i64::try_from(hub.channel_count()).unwrap_or(i64::MAX));
    let mut response = Response::new(Full::new(metrics.encode().into()));
    let content_type = HeaderValue::from_static(METRICS_CONTENT_TYPE);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(response)
}
