//! `publish`: check, authorize, hand to the broker.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use curfew_backend::BackendError;
use curfew_model::{Action, Channel, ErrorCode, Publication, Reply, TraceContext};
use curfew_policy::{Decision, Policy};
use curfew_telemetry::Origin;
use tokio::time::Instant;
use tracing::{Instrument as _, debug};

use crate::commands::span::CommandSpan;
use crate::commands::{Outcome, Reaction, RequestInfo};
use crate::metrics::PublishOutcome;
use crate::open::{Live, SessionState};
use crate::pipeline::{Finished, InFlight};

/// Performs the steps up to the broker, under the lease that ends at `until`. On a subscribed
/// channel, the policy is asked once and its decision cached.
pub(crate) fn start(
    state: &mut SessionState,
    policy: &Policy,
    request: RequestInfo,
    name: &str,
    data: &str,
    trace: Option<TraceContext>,
    until: Duration,
) -> Reaction {
    let Some(live) = &mut state.live else {
        return Reaction::Done(None);
    };
    let origin = Origin::client(trace);
    let known = live.subscriptions.get_key_value(name);
    let (channel, remembered) = match known {
        Some((channel, permissions)) => (channel.clone(), permissions.publish),
        None => match state.parse_channel(&request, name, origin.clone()) {
            Ok(channel) => (channel, None),
            Err(rejected) => return rejected,
        },
    };
    let mut span = state.begin_span(request.command, origin);
    span.name(state, &channel);
    if let Err(message) = authorized(state, policy, &channel, remembered, &span) {
        state.context.count_publish(PublishOutcome::Denied);
        span.forbidden(state, &channel);
        return Reaction::Done(state.error(&request, ErrorCode::Forbidden, message));
    }
    let Some(live) = &mut state.live else {
        return Reaction::Done(None);
    };
    let publication = Publication {
        channel,
        data: Bytes::copy_from_slice(data.as_bytes()),
        from: Some(from(live)),
        trace: span.context(),
    };
    let node = Arc::clone(&state.context.node);
    let began = request.began.map(Instant::into_std);
    let scope = span.is_recorded().then(|| span.scope());
    let publish = async move {
        let result = node.publish(publication, until, began).await;
        if let Err(error) = &result {
            debug!(error = %error, "publication not handed on");
        }
        Finished {
            request,
            outcome: Outcome::Published(result),
            span,
        }
    };
    Reaction::Waits(InFlight {
        operation: match scope {
            None => Box::pin(publish),
            Some(scope) => Box::pin(publish.instrument(scope)),
        },
        is_publication: true,
    })
}

/// Asks the policy, unless a cached decision allows the command. A recorded command asks it anyway,
/// because its span names the rule.
fn authorized(
    state: &mut SessionState,
    policy: &Policy,
    channel: &Channel,
    remembered: Option<bool>,
    span: &CommandSpan,
) -> Result<(), String> {
    if remembered == Some(true) && !span.is_recorded() {
        return Ok(());
    }
    let part = span.part("authorize");
    let Some(decision) = authorize(state, policy, channel) else {
        return Ok(());
    };
    CommandSpan::decided(part, &decision);
    match decision.allowed {
        true => Ok(()),
        false => Err(decision.to_string()),
    }
}

/// Answers the command after the broker has answered.
pub(crate) fn finish(
    state: &mut SessionState,
    request: &RequestInfo,
    result: Result<(), BackendError>,
    span: &mut CommandSpan,
) {
    let outcome = match &result {
        Ok(()) => PublishOutcome::Accepted,
        Err(BackendError::UnknownOutcome(_)) => PublishOutcome::Unknown,
        Err(_) => PublishOutcome::Error,
    };
    state.context.count_publish(outcome);
    match result {
        Ok(()) => {
            let answer = state.reply(request, &Reply::Published);
            state.answer(answer);
        }
        Err(error) => state.backend_error(request, &error, span),
    }
}

/// Asks the policy, and caches the decision if the session is subscribed. `None` if the session is
/// not open.
fn authorize(state: &mut SessionState, policy: &Policy, channel: &Channel) -> Option<Decision> {
    let live = state.live.as_mut()?;
    let principal = live.attachment.member().principal();
    let decision = policy.decide(&principal, Action::Publish, channel);
    state.context.count_decision(&decision);
    if let Some(permissions) = live.subscriptions.get_mut(channel) {
        permissions.publish = Some(decision.allowed);
    }
    Some(decision)
}

fn from(live: &mut Live) -> Arc<str> {
    let from = live
        .from
        .get_or_insert_with(|| live.attachment.member().principal().user().into());
    Arc::clone(from)
}
