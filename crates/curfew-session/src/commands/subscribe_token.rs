//! Tokens of subscriptions, and `sub_refresh`, which replaces such a token.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use curfew_auth::{Overrides, SubscriptionWish, VerifyError, subscription_channel};
use curfew_hub::Member;
use curfew_model::{Channel, Disconnect, ErrorCode, Reply};
use curfew_node::SubscriptionToken;
use curfew_telemetry::Origin;
use tokio::time::Instant;

use crate::Context;
use crate::commands::span::CommandSpan;
use crate::commands::subscribe::SubscribeError;
use crate::commands::{Outcome, Reaction, RequestInfo, presence};
use crate::open::SessionState;
use crate::run::End;

/// A verified token of a subscription, with its claims.
#[derive(Debug)]
pub(crate) struct Grant {
    /// The token, by which revocations find the subscription.
    token: SubscriptionToken,
    /// The token's data for the client.
    pub(crate) data: Option<Box<[u8]>>,
    /// Information about the session that other clients see in the channel, as JSON.
    pub(crate) channel_info: Option<Arc<str>>,
    /// The settings of the channel that the token changes for this subscription.
    pub(crate) overrides: Overrides,
    /// Seconds after which the client should renew the token; `None` if the token has no expiry.
    pub(crate) renew_in: Option<u64>,
}

/// Verifies the token of a subscription, and looks for a revocation that covers it.
pub(crate) async fn verify(
    context: &Context,
    member: &Arc<Member>,
    channel: &Channel,
    token: &str,
) -> Result<Grant, SubscribeError> {
    let principal = member.principal();
    let wish = SubscriptionWish {
        channel: channel.as_str(),
        principal: &principal,
        session: member.session(),
    };
    let verified = context.authenticator.verify_subscription(token, wish).await;
    let grant = context.judge(verified)?;
    let admit = context
        .node
        .admit_subscription(member, channel, grant.principal);
    let token = admit.await?;
    let settings = context.settings.load();
    Ok(Grant {
        channel_info: presence::channel_info(&settings, grant.claims.info),
        overrides: grant.claims.overrides,
        renew_in: context.renew_in(token.principal()),
        data: grant.claims.data.map(|data| data.into_bytes()),
        token,
    })
}

/// Starts the verification of a newer token for a subscription.
pub(crate) fn refresh(
    state: &SessionState,
    request: RequestInfo,
    name: &str,
    token: Cow<'_, str>,
) -> Reaction {
    let Some(live) = &state.live else {
        return Reaction::Done(None);
    };
    // Old SDKs name the channel only in the token, so the channel is read from the unverified
    // token. The verification below compares the token with this channel.
    let of_token = name
        .is_empty()
        .then(|| subscription_channel(&token))
        .flatten();
    let name = of_token.as_deref().unwrap_or(name);
    let known = live.subscriptions.get_key_value(name);
    let Some((channel, _)) = known else {
        let message = "the session is not subscribed to this channel";
        return state.reject(&request, Origin::Unknown, ErrorCode::NotSubscribed, message);
    };
    let channel = channel.clone();
    let mut span = state.begin_span(request.command, Origin::Unknown);
    span.name(state, &channel);
    let context = Arc::clone(&state.context);
    let member = Arc::clone(live.attachment.member());
    let token = token.into_owned();
    Reaction::wait(request, span, async move {
        let result = verify(&context, &member, &channel, &token).await;
        Outcome::SubscriptionRefreshed { channel, result }
    })
}

/// Puts the newer token in force, or answers with the failure. `Some` ends the session, because the
/// client must not retry with a token that can never be accepted.
pub(crate) fn finish(
    state: &mut SessionState,
    request: &RequestInfo,
    channel: &Channel,
    result: Result<Grant, SubscribeError>,
    span: &mut CommandSpan,
) -> Option<End> {
    let (code, message) = match result {
        Ok(grant) => {
            let reply = Reply::SubscriptionRefreshed {
                renew_in: grant.renew_in,
            };
            let live = state.live.as_mut()?;
            if let Some(subscription) = live.subscriptions.get_mut(channel) {
                if subscription.channel_info != grant.channel_info {
                    subscription.channel_info.clone_from(&grant.channel_info);
                    let info = grant.channel_info.clone();
                    let member = live.attachment.member();
                    state.context.node.renew_channel_info(member, channel, info);
                }
                subscription.grant = Some(Box::new(grant));
            }
            state.schedule_subscriptions();
            let answer = state.reply(request, &reply);
            state.answer(answer);
            return None;
        }
        Err(SubscribeError::Backend(error)) => {
            state.backend_error(request, &error, span);
            return None;
        }
        Err(SubscribeError::Token(VerifyError::Refused(error))) if error.is_of_time() => {
            (ErrorCode::Expired, error.message().to_owned())
        }
        Err(SubscribeError::Token(VerifyError::Unknown(_))) => {
            let message = "temporarily unavailable, try again".to_owned();
            (ErrorCode::Unavailable, message)
        }
        Err(SubscribeError::Token(VerifyError::Refused(_))) => {
            span.failed(state, ErrorCode::Forbidden);
            return Some(Disconnect::AUTH_FAILED.into());
        }
        Err(error @ SubscribeError::Revoked(disconnect)) => {
            let code = match disconnect == Disconnect::REAUTH_REQUIRED {
                true => ErrorCode::ReauthRequired,
                false => ErrorCode::Forbidden,
            };
            (code, error.to_string())
        }
    };
    span.failed(state, code);
    let answer = state.error(request, code, message);
    state.answer(answer);
    None
}

impl SessionState {
    /// Schedules the end of the subscription whose token ends first.
    pub(crate) fn schedule_subscriptions(&mut self) {
        let now = self.context.node.clock().now();
        let ends = self
            .live
            .iter()
            .flat_map(|live| live.subscriptions.values());
        let ends = ends.filter_map(|subscription| Some(subscription.grant.as_ref()?.ends_at()));
        let first = ends.min().map(|at| at.saturating_sub(now));
        self.deadlines.subscription_at = first.and_then(|wait| Instant::now().checked_add(wait));
    }
}

impl Grant {
    /// The time since 1970 at which the subscription ends.
    pub(crate) fn ends_at(&self) -> Duration {
        self.token.principal().ends_at()
    }
}
