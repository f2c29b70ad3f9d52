//! Health and metrics, which need no key.
//!
//! Neither turns bad when a backend that was in use goes away: that happens on every node at
//! once, so that restarting them, or sending clients elsewhere, makes an outage worse.

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

/// After so long without a beat the process is taken for stuck: ten beats were due.
const STUCK: Duration = Duration::from_secs(10);

/// The one switch that sets `AuthConfig::development`.
const DEVELOPMENT: &str = "curfew dev --centrifuge";

/// The state of the process. No answer at all means that nothing of it runs.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Live {
    alive: bool,
    /// The reason, where it is not alive.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// The state of the node's service.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Ready {
    /// False until the backend was in use once and some issuer's keys were there, and while draining.
    ready: bool,
    /// While it is `unavailable` the node admits no session, and upgrades get 503.
    backend: Backend,
    /// The reason for which the node is not ready, or else for which its backend is unavailable.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Cow<'static, str>>,
    /// The setting that keeps a Redis which was replaced by a replica from accepting revocations, or
    /// `none`. Left out where there are no replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    fencing: Option<&'static str>,
    /// The issuers whose streams of events were stopped by their transmitters, as far as this node
    /// was told: what they see does not end access meanwhile. Left out where there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stopped_streams: Vec<String>,
    /// The switch of `curfew dev` that makes the node accept tokens which no other node would. Left
    /// out where there is none.
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

/// A worker thread that is stuck leaves the others to answer, and only its own connection waits; the
/// main task has no other to take over: without it nothing is reloaded and SIGTERM does nothing.
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
    // Only those that are fetched can be missing.
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
