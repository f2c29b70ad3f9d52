//! The health endpoints and the metrics endpoint. None of them needs a key.
//!
//! Neither health endpoint fails if the backend becomes unavailable after it has been available
//! once. Such an outage affects every node at once, and it would get worse if the nodes were
//! restarted or clients were sent elsewhere.

use std::borrow::Cow;
use std::time::Duration;

use curfew_backend::Standing;
use curfew_telemetry::CONTENT_TYPE as METRICS_CONTENT_TYPE;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use http_body_util::Full;
use schemars::JsonSchema;
use serde::Serialize;

use super::Admin;
use crate::config::Snapshot;
use crate::http::{Problem, Response, json};

/// The process counts as stuck if its main task has sent no heartbeat for this time. The main task
/// sends a heartbeat each second.
const STUCK: Duration = Duration::from_secs(10);

/// The command that sets `AuthConfig::development`. Nothing else sets this field.
const DEVELOPMENT: &str = "curfew dev --centrifuge";

/// The state of the process.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Live {
    alive: bool,
    /// The reason, if the process is not alive.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// The readiness of the node and the state of its backend.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Ready {
    /// False until the backend has been available once and at least one issuer has had keys. False
    /// also while the node drains.
    ready: bool,
    /// While the backend is `unavailable`, the node admits no session, and upgrades get 503.
    backend: Backend,
    /// The reason that the node is not ready. If the node is ready, the reason that its backend is
    /// unavailable. Absent if the node is ready and its backend is available.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Cow<'static, str>>,
    /// The setting that stops a former primary from accepting revocations after a failover of
    /// Redis, or `none`. Absent if Redis has no replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    fencing: Option<&'static str>,
    /// The issuers whose transmitters have notified this node that they stopped their event
    /// streams. As long as such a stream is stopped, the issuer's security events do not end
    /// access. Absent if no stream is stopped.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stopped_streams: Vec<String>,
    /// The command that makes this node accept tokens that every other node refuses: `curfew dev
    /// --centrifuge`. Absent if the node was started by another command.
    #[serde(skip_serializing_if = "Option::is_none")]
    development: Option<&'static str>,
}

/// The state of the backend.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Backend {
    Available,
    Unavailable,
}

/// Answers that the process is alive, as long as its main task sends heartbeats. While the main
/// task is stuck, no file is reloaded and SIGTERM has no effect, and no other task takes over this
/// work. Worker threads are not checked, because a stuck worker thread delays only the connection
/// that it serves at the moment.
pub(super) fn livez(admin: &Admin) -> Result<Response, Problem> {
    let alive = admin.context.node.since_beat() < STUCK;
    let live = Live {
        alive,
        reason: (!alive).then_some("the task that reloads and drains is stuck"),
    };
    Ok(json(status(alive), &live))
}

pub(super) fn readyz(admin: &Admin) -> Result<Response, Problem> {
    let node = &admin.context.node;
    let (started, backend, mut reason) = match node.backends().nodes.standing() {
        Standing::InTouch => (true, Backend::Available, None),
        Standing::OutOfTouch(why) => (true, Backend::Unavailable, Some(why)),
        Standing::Starting(why) => (false, Backend::Unavailable, Some(why)),
    };
    let draining = node.is_draining();
    // `keyed` is false only if every issuer's keys come from a URL and no fetch has succeeded yet.
    let keyed = admin.context.authenticator.had_keys();
    if draining {
        reason = Some("draining".into());
    } else if !keyed && started {
        reason = Some("the keys of no issuer have been fetched yet; see GET /v1/issuers".into());
    }
    let ready = Ready {
        ready: started && keyed && !draining,
        backend,
        reason,
        fencing: node.backends().nodes.fencing(),
        stopped_streams: admin.context.authenticator.stopped_streams(),
        development: Snapshot::take(&admin.context)
            .auth
            .development
            .then_some(DEVELOPMENT),
    };
    Ok(json(status(ready.ready), &ready))
}

fn status(good: bool) -> StatusCode {
    match good {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    }
}

pub(super) fn metrics(admin: &Admin) -> Result<Response, Problem> {
    let metrics = &admin.metrics;
    admin.context.node.hub().measure();
    let stopped = admin.context.authenticator.stopped_streams().len();
    metrics
        .event_streams_stopped
        .set(i64::try_from(stopped).unwrap_or(i64::MAX));
    let mut response = Response::new(Full::new(metrics.registry().encode().into()));
    let content_type = HeaderValue::from_static(METRICS_CONTENT_TYPE);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(response)
}
