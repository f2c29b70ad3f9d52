//! The server-side channels, to which the server subscribes a session as the session opens. They
//! are the channels that the session's token names, the user's personal channel, and the channels
//! that the client resumes.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use curfew_auth::{ConnectionClaims, Overrides};
use curfew_backend::BackendError;
use curfew_hub::Joined;
use curfew_model::{
    Action, Channel, Disconnect, Principal, Publication, SubscribeOptions, Subscribed,
};
use curfew_node::{ChannelOptions, SubscribeOutcome, Wish};
use tracing::debug;

use crate::commands::presence;
use crate::commands::subscribe::{narrowed, still_allowed, subscribed, wish};
use crate::open::{Live, Subscription};
use crate::{Context, SessionSettings};

/// Prefix of a user's personal channel; the user's name follows it.
const PERSONAL: char = '#';

/// A channel that the server has subscribed a session to.
#[derive(Debug)]
pub(crate) struct ServerSide {
    channel: Channel,
    joined: Joined,
    wish: Wish,
    options: ChannelOptions,
    missed: Vec<Publication>,
    data: Option<Box<[u8]>>,
}

impl ServerSide {
    /// The subscription as the client receives it.
    pub(crate) fn told(&self) -> (Channel, Subscribed<'_>) {
        let mut subscribed = subscribed(self.joined, &self.wish, self.options, &self.missed);
        subscribed.data = self.data.as_deref();
        (self.channel.clone(), subscribed)
    }
}

/// Reason why a session with server-side channels does not open.
#[derive(Debug)]
pub(crate) enum ServerSideError {
    Backend(BackendError),
    /// There are more channels than `limits.subscriptions`.
    TooMany,
}

impl From<ServerSideError> for Disconnect {
    fn from(error: ServerSideError) -> Self {
        match error {
            ServerSideError::TooMany => Self::CHANNEL_LIMIT,
            ServerSideError::Backend(BackendError::Unusable(_)) => Self::INTERNAL,
            ServerSideError::Backend(_) => Self::UNAVAILABLE,
        }
    }
}

/// Result of subscribing an opening session to the server-side channels.
#[derive(Debug, Default)]
pub(crate) struct Made {
    /// The subscriptions that the server has made.
    pub(crate) subscriptions: Vec<ServerSide>,
    /// The channels whose data the session's protocol cannot carry. The client is notified about
    /// each of them.
    pub(crate) refused: Vec<Channel>,
}

/// Subscribes an opening session to the server-side channels. A channel that the policy does not
/// allow is left out. `asked` contains the channels that the client resumes, with the client's
/// positions.
pub(crate) async fn subscribe(
    context: &Context,
    settings: &SessionSettings,
    live: &mut Live,
    asked: Vec<(String, SubscribeOptions<'static>)>,
) -> Result<Made, ServerSideError> {
    let member = Arc::clone(live.attachment.member());
    let principal = member.principal();
    let wanted = wanted(settings, &principal, asked);
    if wanted.len() > settings.limits.subscriptions {
        return Err(ServerSideError::TooMany);
    }
    if !wanted.is_empty() {
        // From here on, the channels' frames wait in the session's queue. The reply is later put
        // ahead of them.
        live.attachment.open(curfew_hub::Lanes::default());
    }
    let wires = context.node.hub().wires();
    let carries_bytes = wires.get(member.wire()).rules().carries_bytes;
    let mut made = Made::default();
    for (channel, wanted) in wanted {
        let Wanted {
            place,
            data,
            channel_info,
            overrides,
        } = wanted;
        let decision = settings
            .policy
            .decide(&principal, Action::Subscribe, &channel);
        context.count_decision(&decision);
        let options = narrowed(settings.channels.of(&channel), overrides);
        if !decision.allowed {
            debug!(channel = %channel, reason = %decision, "the rules do not allow a channel to which the server subscribes the session");
            continue;
        }
        if options.is_binary && !carries_bytes {
            made.refused.push(channel);
            continue;
        }
        let wish = Wish {
            channel_info: channel_info.clone(),
            ..wish(settings, options, &principal, &place)
        };
        let missed = OnceLock::new();
        // The reply to `connect` includes the subscription, so no frame is queued here.
        let answer = |_: Joined, publications: &[Publication]| {
            // The cell is still empty, because the session joins once.
            missed.set(publications.to_vec()).ok();
            None
        };
        let policy = &settings.policy;
        let allowed = || still_allowed(context, policy, &principal, &channel, false);
        let subscribe =
            context
                .node
                .subscribe(&channel, &member, options, wish.clone(), allowed, answer);
        match subscribe.await {
            Ok(SubscribeOutcome::Joined(joined)) => {
                let subscription = Subscription {
                    by_server: true,
                    channel_info,
                    ..Subscription::default()
                };
                live.subscriptions.insert(channel.clone(), subscription);
                made.subscriptions.push(ServerSide {
                    channel,
                    joined,
                    wish,
                    options,
                    missed: missed.into_inner().unwrap_or_default(),
                    data,
                });
            }
            Ok(SubscribeOutcome::Forbidden | SubscribeOutcome::Unrecoverable) => {}
            Err(error) => return Err(ServerSideError::Backend(error)),
        }
    }
    Ok(made)
}

/// The parameters of one server-side subscription.
#[derive(Default)]
struct Wanted {
    place: SubscribeOptions<'static>,
    data: Option<Box<[u8]>>,
    channel_info: Option<Arc<str>>,
    overrides: Overrides,
}

fn wanted(
    settings: &SessionSettings,
    principal: &Principal,
    asked: Vec<(String, SubscribeOptions<'static>)>,
) -> BTreeMap<Channel, Wanted> {
    let mut wanted = BTreeMap::new();
    for named in ConnectionClaims::of(principal.claims()).channels {
        let options = named.options;
        let of_token = Wanted {
            place: SubscribeOptions::default(),
            data: options.data.map(|data| data.into_bytes()),
            channel_info: presence::channel_info(settings, options.info),
            overrides: options.overrides,
        };
        wanted.insert(named.channel, of_token);
    }
    if settings.personal_channels
        && !principal.user().is_empty()
        && let Ok(own) = Channel::parse(&format!("{PERSONAL}{}", principal.user()))
    {
        wanted.entry(own).or_default();
    }
    for (name, place) in asked {
        // A resumed channel whose name is not valid is left out.
        let Ok(channel) = Channel::parse(&name) else {
            continue;
        };
        wanted.entry(channel).or_default().place = place;
    }
    wanted
}
