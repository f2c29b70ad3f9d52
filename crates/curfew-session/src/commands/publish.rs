//! `publish`: check, authorize, hand to the broker.

use std::sync::Arc;

use bytes::Bytes;
use curfew_backend::BackendError;
use curfew_model::{Action, Channel, CommandId, ErrorCode, Publication, Reply, TraceContext};
use curfew_telemetry::{Origin, PublishOutcome, Span, SpanKind};
use tracing::{Instrument as _, debug};

use crate::commands::Outcome;
use crate::open::{Live, State};

const NAME: &str = "publish";

/// The span of the command.
const SPAN: &str = "curfew.publish";

/// Everything up to the broker. In a channel the session listens to, the policy is asked once and
/// its answer remembered.
pub(crate) fn start(
    state: &mut State,
    id: Option<CommandId>,
    name: &str,
    data: &str,
    trace: Option<TraceContext>,
) {
    let Some(live) = &mut state.live else { return };
    let known = live.subscriptions.get_key_value(name);
    let (channel, remembered) = match known {
        Some((channel, permissions)) => (channel.clone(), permissions.publish),
        None => match state.parse_channel(NAME, id.as_ref(), name) {
            Some(channel) => (channel, None),
            None => return,
        },
    };
    let origin = Origin::client(trace);
    let tracer = state.context.metrics().tracer();
    let began = tracer.now();
    let mut span = tracer.request(SPAN, origin);
    if span.is_recorded() {
        describe(state, &channel, &mut span);
    }
    if let Err(message) = authorized(state, &channel, remembered, &span) {
        state.context.count_publish(PublishOutcome::Denied);
        if !span.is_recorded() {
            let tracer = state.context.metrics().tracer();
            span = tracer.unasked(SPAN, origin, began);
            describe(state, &channel, &mut span);
        }
        span.refused(ErrorCode::Forbidden.as_str());
        return state.error(NAME, id.as_ref(), ErrorCode::Forbidden, message);
    }
    let Some(live) = &mut state.live else { return };
    let publication = Publication {
        channel,
        data: Bytes::copy_from_slice(data.as_bytes()),
        from: Some(from(live)),
        trace: span.context(),
    };
    let node = Arc::clone(&state.context.node);
    state.operation = Some(if span.is_recorded() {
        let log = span.scope();
        let publish = async move {
            let result = node.publish(publication).await;
            if let Err(error) = &result {
                debug!(error = %error, "publication not handed on");
                span.failed(error_type(error));
            }
            drop(span);
            Outcome::Published(id, result)
        };
        Box::pin(publish.instrument(log))
    } else {
        Box::pin(async move {
            let result = node.publish(publication).await;
            if let Err(error) = &result {
                let mut span = node.metrics().tracer().unasked(SPAN, origin, began);
                span.failed(error_type(error));
            }
            Outcome::Published(id, result)
        })
    });
}

/// What the span of a publication says beside how it ended.
fn describe(state: &State, channel: &Channel, span: &mut Span) {
    span.set("network.protocol.name", "websocket");
    span.set("curfew.command", NAME);
    if let Some(upgrade) = &state.trace {
        span.link(upgrade);
    }
    if !state.context.metrics().tracer().names_users() {
        return;
    }
    span.set("messaging.destination.name", channel.as_str().to_owned());
    if let Some(live) = &state.live {
        let user = live.attachment.member().principal().user().to_owned();
        span.set("user.id", user);
    }
}

fn error_type(error: &BackendError) -> &'static str {
    match error {
        BackendError::Unavailable(_) => ErrorCode::Unavailable.as_str(),
        BackendError::Unusable(_) => ErrorCode::Internal.as_str(),
    }
}

/// Asks the policy unless it has said yes before.
fn authorized(
    state: &mut State,
    channel: &Channel,
    remembered: Option<bool>,
    span: &Span,
) -> Result<(), String> {
    let mut authorize_span = span.child("authorize", SpanKind::Internal);
    let remembered = remembered == Some(true);
    let result = match remembered {
        true => Ok(()),
        false => authorize(state, channel),
    };
    let decision = if result.is_ok() { "allowed" } else { "denied" };
    authorize_span.set("curfew.authz.decision", decision);
    authorize_span.set("curfew.authz.remembered", remembered);
    result
}

/// The broker has answered.
pub(crate) fn finish(state: &mut State, id: Option<CommandId>, result: Result<(), BackendError>) {
    let outcome = if result.is_ok() {
        PublishOutcome::Accepted
    } else {
        PublishOutcome::Error
    };
    state.context.count_publish(outcome);
    match result {
        Ok(()) => state.reply(NAME, id.as_ref(), &Reply::Ok),
        Err(error) => state.backend_error(NAME, id.as_ref(), &error),
    }
}

/// Asks the policy; remembers a yes where the session is subscribed.
fn authorize(state: &mut State, channel: &Channel) -> Result<(), String> {
    let Some(live) = &mut state.live else {
        return Ok(());
    };
    let principal = live.attachment.member().principal();
    let decision = state
        .context
        .policy
        .decide(&principal, Action::Publish, channel);
    state.context.count_decision(&decision);
    if let Some(permissions) = live.subscriptions.get_mut(channel) {
        permissions.publish = Some(decision.allowed);
    }
    if decision.allowed {
        Ok(())
    } else {
        Err(decision.to_string())
    }
}

fn from(live: &mut Live) -> Arc<str> {
    let from = live
        .from
        .get_or_insert_with(|| live.attachment.member().principal().user().into());
    Arc::clone(from)
}
