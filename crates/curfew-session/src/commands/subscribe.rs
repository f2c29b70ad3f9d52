//! `subscribe`: check, authorize, then listen.

use std::sync::Arc;

use curfew_backend::BackendError;
use curfew_model::{Action, Channel, CommandId, ErrorCode, Reply};
use curfew_telemetry::Origin;
use tracing::Instrument as _;

use crate::commands::Outcome;
use crate::commands::span::CommandSpan;
use crate::open::{Permissions, State};

const NAME: &str = "subscribe";

/// Everything up to the broker.
pub(crate) fn start(state: &mut State, id: Option<CommandId>, name: &str) {
    let Some(channel) = state.parse_channel(NAME, id.as_ref(), name, Origin::Unknown) else {
        return;
    };
    let Some(live) = &state.live else { return };
    if live.subscriptions.contains_key(&channel) {
        let message = "the session is subscribed to this channel already";
        let code = ErrorCode::AlreadySubscribed;
        return state.reject(NAME, id.as_ref(), Origin::Unknown, code, message);
    }
    let most = state.context.settings.load().limits.subscriptions;
    if live.subscriptions.len() >= most {
        let message = format!("a session may have {most} subscriptions");
        let code = ErrorCode::LimitExceeded;
        return state.reject(NAME, id.as_ref(), Origin::Unknown, code, message);
    }
    let member = Arc::clone(live.attachment.member());
    let policy = state.context.policy.version();
    let mut span = state.begin_span(NAME, Origin::Unknown);
    span.name(state, &channel);
    let authorize = span.part("authorize");
    let decision = state
        .context
        .policy
        .decide(&member.principal(), Action::Subscribe, &channel);
    state.context.count_decision(&decision);
    CommandSpan::decided(authorize, &decision);
    if !decision.allowed {
        span.forbidden(state, &channel);
        return state.error(
            NAME,
            id.as_ref(),
            ErrorCode::Forbidden,
            decision.to_string(),
        );
    }
    let node = Arc::clone(&state.context.node);
    let scope = span.scope();
    let subscribe = async move {
        let result = node.subscribe(&channel, &member).await;
        let outcome = Outcome::Subscribed {
            id,
            channel,
            policy,
            result,
        };
        (outcome, span)
    };
    state.operation = Some(Box::pin(subscribe.instrument(scope)));
}

/// The broker has answered.
pub(crate) fn finish(
    state: &mut State,
    id: Option<CommandId>,
    channel: Channel,
    policy: u64,
    result: Result<(), BackendError>,
    span: &mut CommandSpan,
) {
    match result {
        Ok(()) => {
            if let Some(live) = &mut state.live {
                live.subscriptions.insert(channel, Permissions::default());
            }
            state.reply(NAME, id.as_ref(), &Reply::Ok);
            if state.context.policy.version() != policy {
                // The rules changed while the broker was asked.
                state.reconsider();
            }
        }
        Err(error) => state.backend_error(NAME, id.as_ref(), &error, span),
    }
}
