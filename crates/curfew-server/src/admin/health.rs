//! Health and metrics, which need no key.
//!
//! Neither health endpoint fails when a backend that was in use becomes unavailable. That happens
//! to every node at once, and restarting the nodes or sending clients elsewhere would make the
//! outage worse.

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

/// The process counts as stuck if its last heartbeat is older than this. The main task beats once a
/// second.
const STUCK: Duration = Duration::from_secs(10);

/// The only switch that sets `AuthConfig::development`.
const DEVELOPMENT: &str = "curfew dev --centrifuge";

/// The state of the process. If the endpoint gives no answer, no part of the process works.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Live {
    alive: bool,
    /// The reason, if the process is not alive.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// The state of the node's service.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Ready {
    /// False until the backend has been available once and some issuer has had keys. False also
    /// while the node drains.
    ready: bool,
    /// While the backend is `unavailable`, the node admits no session, and upgrades get 503.
    backend: Backend,
    /// The reason that the node is not ready. If it is ready, the reason that its backend is
    /// unavailable.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Cow<'static, str>>,
    /// The setting that stops a former primary from accepting revocations after a failover of
    /// Redis, or `none`. Absent if Redis has no replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    fencing: Option<&'static str>,
    /// The issuers whose transmitters have stopped their event streams, as far as this node was
    /// notified. Security events of these issuers do not end access meanwhile. Absent if there are
    /// none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stopped_streams: Vec<String>,
    /// The switch of `curfew dev` that makes this node accept tokens that every other node refuses.
    /// Absent if there is none.
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

/// Answers that the process is alive, as long as its main task beats. The check covers only the
/// main task, because no thread takes over from it: while it is stuck, nothing is reloaded and
/// SIGTERM has no effect. A stuck worker thread delays only the connection that it serves at the
/// moment.
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
