//! `publish`: check, authorize, hand to the broker.

use std::sync::Arc;

use bytes::Bytes;
use curfew_backend::BackendError;
use curfew_model::{Action, Channel, CommandId, ErrorCode, Publication, Reply};
use curfew_telemetry::PublishOutcome;

use crate::commands::Outcome;
use crate::open::{Live, State};

const NAME: &str = "publish";

/// Everything up to the broker. In a channel the session listens to, the policy is asked once and
/// its answer remembered.
pub(crate) fn start(state: &mut State, id: Option<CommandId>, name: &str, data: &str) {
    let Some(live) = &mut state.live else { return };
    let known = live.subscriptions.get_key_value(name);
    let (channel, remembered) = match known {
        Some((channel, permissions)) => (channel.clone(), permissions.publish),
        None => match state.parse_channel(NAME, id.as_ref(), name) {
            Some(channel) => (channel, None),
            None => return,
        },
    };
    if remembered != Some(true)
        && let Err(message) = authorize(state, &channel)
    {
        state.context.count_publish(PublishOutcome::Denied);
        return state.error(NAME, id.as_ref(), ErrorCode::Forbidden, message);
    }
    let Some(live) = &mut state.live else { return };
    let publication = Publication {
        channel,
        data: Bytes::copy_from_slice(data.as_bytes()),
        from: Some(from(live)),
    };
    let node = Arc::clone(&state.context.node);
    state.operation = Some(Box::pin(async move {
        let result = node.publish(publication).await;
        Outcome::Published(id, result)
    }));
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
