//! `subscribe`: check, authorize, then listen.

use std::sync::Arc;

use curfew_backend::BackendError;
use curfew_hub::Joined;
use curfew_model::{Action, Channel, ErrorCode, Position, Reply};
use curfew_node::Wish;
use curfew_policy::Policy;
use curfew_telemetry::Origin;
use tracing::Instrument as _;

use crate::SessionSettings;
use crate::commands::span::CommandSpan;
use crate::commands::{Outcome, Reaction, RequestInfo, presence};
use crate::open::{Permissions, SessionState};
use crate::pipeline::{Finished, InFlight};

/// Performs the steps up to the broker.
pub(crate) fn start(
    state: &SessionState,
    settings: &SessionSettings,
    request: RequestInfo,
    name: &str,
    since: Option<Position>,
    join_leave: bool,
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
    let options = settings.channels.of(&channel);
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
    let wish = Wish {
        since,
        info: match options.presence {
            true => presence::info(settings, &member.principal()),
            false => None,
        },
        join_leave,
    };
    let context = Arc::clone(&state.context);
    let (wire, id) = (state.wire, request.id.clone());
    let scope = span.scope();
    let subscribe = async move {
        // The rules may change while the broker is asked, and what is recovered must not leave by
        // the old ones.
        let may = || {
            let current = &context.settings.load().policy;
            Arc::ptr_eq(current, &policy) || {
                let principal = member.principal();
                current
                    .decide(&principal, Action::Subscribe, &channel)
                    .allowed
            }
        };
        // Queued where the session joins, so that nothing of the channel comes before it.
        let answer = |joined: Joined| {
            let reply = subscribed(joined);
            context
                .node
                .hub()
                .wires()
                .get(wire)
                .reply(id.as_ref(), &reply)
        };
        let subscribe = context
            .node
            .subscribe(&channel, &member, options, wish, may, answer);
        let outcome = Outcome::Subscribed {
            result: subscribe.await,
            policy,
            channel,
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

fn subscribed(joined: Joined) -> Reply<'static> {
    Reply::Subscribed {
        position: joined.position,
        recovered: joined.recovered,
    }
}

/// Completes the subscription after the broker has answered.
pub(crate) fn finish(
    state: &mut SessionState,
    request: &RequestInfo,
    channel: Channel,
    policy: &Arc<Policy>,
    result: Result<Option<Joined>, BackendError>,
    span: &mut CommandSpan,
) {
    match result {
        Ok(Some(joined)) => {
            span.joined(state, joined);
            if let Some(live) = &mut state.live {
                live.subscriptions.insert(channel, Permissions::default());
            }
            // The answer was queued with it.
            state.count_command(request, &subscribed(joined));
            if !Arc::ptr_eq(&state.context.settings.load().policy, policy) {
                // The policy changed while the broker was asked.
                state.reconsider();
            }
        }
        Ok(None) => {
            span.forbidden(state, &channel);
            let message = "the rules have changed and do not allow it any more";
            let answer = state.error(request, ErrorCode::Forbidden, message);
            state.answer(answer);
        }
        Err(error) => state.backend_error(request, &error, span),
    }
}
