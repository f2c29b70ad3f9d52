//! `subscribe`: check, authorize, then listen.

use std::sync::Arc;

use curfew_backend::BackendError;
use curfew_model::{Action, Channel, ErrorCode, Reply};
use curfew_policy::Policy;
use curfew_telemetry::Origin;
use tracing::Instrument as _;

use crate::SessionSettings;
use crate::commands::span::CommandSpan;
use crate::commands::{Outcome, Reaction, RequestInfo};
use crate::open::{Permissions, SessionState};
use crate::pipeline::{Finished, InFlight};

/// Performs the steps up to the broker.
pub(crate) fn start(
    state: &SessionState,
    settings: &SessionSettings,
    request: RequestInfo,
    name: &str,
) -> Reaction {
    let channel = match state.parse_channel(&request, name, Origin::Unknown) {
        Ok(channel) => channel,
        Err(rejected) => return rejected,
    };
    let Some(live) = &state.live else {
        return Reaction::Done(None);
    };
    if live.subscriptions.contains_key(&channel) {
        let message = "the session is subscribed to this channel already";
        let code = ErrorCode::AlreadySubscribed;
        return state.reject(&request, Origin::Unknown, code, message);
    }
    let most = settings.limits.subscriptions;
    if live.subscriptions.len() >= most {
        let message = format!("a session may have {most} subscriptions");
        let code = ErrorCode::LimitExceeded;
        return state.reject(&request, Origin::Unknown, code, message);
    }
    let member = Arc::clone(live.attachment.member());
    let policy = Arc::clone(&settings.policy);
    let mut span = state.begin_span(request.command, Origin::Unknown);
    span.name(state, &channel);
    let authorize = span.part("authorize");
    let decision = policy.decide(&member.principal(), Action::Subscribe, &channel);
    state.context.count_decision(&decision);
    CommandSpan::decided(authorize, &decision);
    if !decision.allowed {
        span.forbidden(state, &channel);
        let message = decision.to_string();
        return Reaction::Done(state.error(&request, ErrorCode::Forbidden, message));
    }
    let node = Arc::clone(&state.context.node);
    let scope = span.scope();
    let subscribe = async move {
        let result = node.subscribe(&channel, &member).await;
        let outcome = Outcome::Subscribed {
            channel,
            policy,
            result,
        };
        Finished {
            request,
            outcome,
            span,
        }
    };
    Reaction::Waits(InFlight {
        operation: Box::pin(subscribe.instrument(scope)),
        is_publication: false,
    })
}

/// Completes the subscription after the broker has answered.
pub(crate) fn finish(
    state: &mut SessionState,
    request: &RequestInfo,
    channel: Channel,
    policy: &Arc<Policy>,
    result: Result<(), BackendError>,
    span: &mut CommandSpan,
) {
    match result {
        Ok(()) => {
            if let Some(live) = &mut state.live {
                live.subscriptions.insert(channel, Permissions::default());
            }
            let answer = state.reply(request, &Reply::Subscribed);
            state.answer(answer);
            if !Arc::ptr_eq(&state.context.settings.load().policy, policy) {
                // The policy changed while the broker was asked.
                state.reconsider();
            }
        }
        Err(error) => state.backend_error(request, &error, span),
    }
}
