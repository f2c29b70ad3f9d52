//! `subscribe`: checks and authorizes the command, then subscribes the session to the channel.

use std::sync::Arc;

use curfew_auth::{Overrides, VerifyError};
use curfew_backend::BackendError;
use curfew_hub::Joined;
use curfew_model::{
    Action, Channel, Disconnect, ErrorCode, Principal, Publication, Reply, SubscribeOptions,
    Subscribed,
};
use curfew_node::{ChannelOptions, JoinLeave, SubscribeOutcome, SubscriptionTokenError, Wish};
use curfew_policy::{Decision, Policy, Why};
use curfew_telemetry::Origin;

use crate::commands::span::CommandSpan;
use crate::commands::subscribe_token::{self, Grant};
use crate::commands::{Outcome, Reaction, RequestInfo, presence};
use crate::open::{SessionState, Subscription};
use crate::run::End;
use crate::{Context, SessionSettings};

/// Reason why a session is not subscribed to a channel.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubscribeError {
    /// The backend failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The subscription's token is refused, or cannot be verified now.
    #[error(transparent)]
    Token(#[from] VerifyError),
    /// A revocation covers the subscription's token.
    #[error("access with this token was revoked")]
    Revoked(Disconnect),
}

impl From<SubscriptionTokenError> for SubscribeError {
    fn from(error: SubscriptionTokenError) -> Self {
        match error {
            SubscriptionTokenError::Revoked(disconnect) => Self::Revoked(disconnect),
            SubscriptionTokenError::Backend(error) => Self::Backend(error),
        }
    }
}

impl SubscribeError {
    /// True if a newer token could be accepted in place of the refused token.
    fn asks_for_newer_token(&self) -> bool {
        match self {
            Self::Backend(_) | Self::Token(VerifyError::Unknown(_)) => false,
            Self::Token(VerifyError::Refused(error)) => error.is_of_time(),
            Self::Revoked(disconnect) => *disconnect == Disconnect::REAUTH_REQUIRED,
        }
    }
}

/// The outcome of a subscription, with the subscription's own token, if any.
pub(crate) type Result = std::result::Result<(SubscribeOutcome, Option<Grant>), SubscribeError>;

/// Performs the steps up to the call of the broker.
pub(crate) fn start(
    state: &SessionState,
    settings: &SessionSettings,
    request: RequestInfo,
    name: &str,
    asked: SubscribeOptions<'_>,
) -> Reaction {
    let channel = match state.parse_channel(&request, name, Origin::Unknown) {
        Ok(channel) => channel,
        Err(rejected) => return rejected,
    };
    let Some(live) = &state.live else {
        return Reaction::Done(None);
    };
    if live.subscriptions.contains_key(&channel) {
        let message = "the session is already subscribed to this channel";
        let code = ErrorCode::AlreadySubscribed;
        return state.reject(&request, Origin::Unknown, code, message);
    }
    let most = settings.limits.subscriptions;
    if live.subscriptions.len() >= most {
        let message = format!("a session may have at most {most} subscriptions");
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
    // A token can allow a subscription that no rule allows, but not a subscription that a rule
    // denies.
    let grants = asked.token.is_some() && settings.subscription_tokens;
    if !allows(&decision, grants) {
        span.forbidden(state, &channel);
        let message = decision.to_string();
        return Reaction::Done(state.error(&request, ErrorCode::Forbidden, message));
    }
    if options.is_binary && !state.wire().rules().carries_bytes {
        span.failed(state, ErrorCode::NotAvailable);
        let message = "the channel carries binary data, which this protocol cannot: subscribe by one that can";
        return Reaction::Done(state.error(&request, ErrorCode::NotAvailable, message));
    }
    let mut wish = wish(settings, options, &member.principal(), &asked);
    let mut options = options;
    let context = Arc::clone(&state.context);
    let (wire, id) = (state.wire, request.id.clone());
    let token = asked.token.map(|token| token.into_owned());
    Reaction::wait(request, span, async move {
        let allowed = || {
            // A revocation may have arrived while the broker was asked.
            member.withdrawn(&channel).is_none()
                && still_allowed(&context, &policy, &member.principal(), &channel, grants)
        };
        let result = async {
            let grant = match &token {
                Some(token) => {
                    Some(subscribe_token::verify(&context, &member, &channel, token).await?)
                }
                None => None,
            };
            if let Some(grant) = &grant {
                options = narrowed(options, grant.overrides);
                wish.channel_info.clone_from(&grant.channel_info);
            }
            // The reply is queued as the session joins the channel, so that no frame of the channel
            // precedes the reply.
            let answer = |joined: Joined, missed: &[Publication]| {
                let mut subscribed = subscribed(joined, &wish, options, missed);
                if let Some(grant) = &grant {
                    subscribed.data = grant.data.as_deref();
                    subscribed.renew_in = grant.renew_in;
                }
                let wires = context.node.hub().wires();
                wires
                    .get(wire)
                    .reply(id.as_ref(), &Reply::Subscribed(subscribed))
            };
            let subscribe =
                context
                    .node
                    .subscribe(&channel, &member, options, wish.clone(), allowed, answer);
            let outcome = subscribe.await?;
            Ok((outcome, grant))
        };
        Outcome::Subscribed {
            result: result.await,
            policy: Arc::clone(&policy),
            channel: channel.clone(),
        }
    })
}

/// Returns true if the decision allows a subscription. With `grants`, the subscription's own token
/// allows a subscription that no rule denies.
pub(crate) fn allows(decision: &Decision, grants: bool) -> bool {
    decision.allowed || (grants && decision.why == Why::NoRule)
}

/// Returns true if the rules in force allow a subscription that `policy` has allowed. The rules may
/// change while the broker is asked, and recovered publications must not be sent under the old
/// rules.
pub(crate) fn still_allowed(
    context: &Context,
    policy: &Arc<Policy>,
    principal: &Principal,
    channel: &Channel,
    grants: bool,
) -> bool {
    let current = &context.settings.load().policy;
    Arc::ptr_eq(current, policy) || {
        let decision = current.decide(principal, Action::Subscribe, channel);
        allows(&decision, grants)
    }
}

/// The options of a channel, as changed by the token of a subscription. The token cannot turn on
/// presence, joins or leaves that the channel lacks.
pub(crate) fn narrowed(mut options: ChannelOptions, overrides: Overrides) -> ChannelOptions {
    if overrides.presence == Some(false) {
        options.presence = false;
    }
    options.join_leave = match (overrides.join_leave, overrides.force_push_join_leave) {
        _ if options.join_leave == JoinLeave::Never => JoinLeave::Never,
        (Some(false), _) => JoinLeave::Never,
        (_, Some(true)) => JoinLeave::All,
        (_, Some(false)) => JoinLeave::Asked,
        (_, None) => options.join_leave,
    };
    options
}

/// The subscription that a session asks for by `asked`, in a channel with `options`.
pub(crate) fn wish(
    settings: &SessionSettings,
    options: ChannelOptions,
    principal: &Principal,
    asked: &SubscribeOptions<'_>,
) -> Wish {
    Wish {
        since: asked.since,
        info: match options.presence {
            true => presence::info(settings, principal),
            false => None,
        },
        channel_info: None,
        join_leave: asked.join_leave,
        must_recover: asked.must_recover,
        delta: asked.delta,
    }
}

/// The subscription as the client receives it.
pub(crate) fn subscribed<'a>(
    joined: Joined,
    wish: &Wish,
    options: ChannelOptions,
    missed: &'a [Publication],
) -> Subscribed<'a> {
    Subscribed {
        position: joined.position,
        since: wish.since,
        recovered: joined.recovered,
        is_recoverable: options.recover && joined.position.is_some(),
        publications: missed,
        is_delta: joined.is_delta,
        ..Subscribed::default()
    }
}

/// Completes the subscription after the broker has answered. `Some` ends the session.
pub(crate) fn finish(
    state: &mut SessionState,
    request: &RequestInfo,
    channel: Channel,
    policy: &Arc<Policy>,
    result: Result,
    span: &mut CommandSpan,
) -> Option<End> {
    let (code, message) = match result {
        Ok((SubscribeOutcome::Joined(joined), grant)) => {
            span.joined(state, joined);
            if let Some(live) = &mut state.live {
                let channel_info = grant.as_ref().and_then(|grant| grant.channel_info.clone());
                let subscription = Subscription {
                    channel_info,
                    grant: grant.map(Box::new),
                    ..Subscription::default()
                };
                live.subscriptions.insert(channel, subscription);
            }
            state.schedule_subscriptions();
            // The reply was queued as the session joined.
            state.count_command(request, &Reply::Subscribed(Subscribed::default()));
            if !Arc::ptr_eq(&state.context.settings.load().policy, policy) {
                // The policy changed while the broker was asked.
                state.reconsider();
            }
            // A gap may have ended the subscription before it was stored here.
            return state.drop_lost();
        }
        Ok((SubscribeOutcome::Unrecoverable, _)) => {
            let answer = state.reply(request, &Reply::Unrecoverable);
            state.answer(answer);
            return None;
        }
        Ok((SubscribeOutcome::Forbidden, _)) => {
            span.forbidden(state, &channel);
            let message = "the rules or a revocation no longer allow this subscription";
            (ErrorCode::Forbidden, message.to_owned())
        }
        Err(SubscribeError::Backend(error)) => {
            state.backend_error(request, &error, span);
            return None;
        }
        Err(error) if error.asks_for_newer_token() => {
            span.failed(state, ErrorCode::Expired);
            let answer = state.reply(request, &Reply::SubscriptionExpired);
            state.answer(answer);
            return None;
        }
        // The token is for another user or channel, so asking the application again would not help.
        Err(SubscribeError::Token(VerifyError::Refused(error))) if error.is_for_another() => {
            span.failed(state, ErrorCode::Forbidden);
            return Some(Disconnect::AUTH_FAILED.into());
        }
        Err(SubscribeError::Token(VerifyError::Refused(error))) => {
            (ErrorCode::Forbidden, error.message().to_owned())
        }
        Err(error @ SubscribeError::Revoked(_)) => (ErrorCode::Forbidden, error.to_string()),
        Err(SubscribeError::Token(VerifyError::Unknown(_))) => {
            let message = "temporarily unavailable, try again".to_owned();
            (ErrorCode::Unavailable, message)
        }
    };
    span.failed(state, code);
    let answer = state.error(request, code, message);
    state.answer(answer);
    None
}
