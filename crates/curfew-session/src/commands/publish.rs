//! `publish`: checks and authorizes the command, then hands the publication to the broker.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use curfew_backend::BackendError;
use curfew_model::json::Fault;
use curfew_model::{
    Action, Channel, ErrorCode, Payload, Position, Present, Publication, PublicationKey, Publisher,
    Reply, TraceContext,
};
use curfew_node::Append;
use curfew_policy::{Decision, Policy};
use curfew_protocol::native;
use curfew_telemetry::Origin;
use tokio::time::Instant;
use tracing::{Instrument as _, debug};

use crate::SessionSettings;
use crate::commands::span::CommandSpan;
use crate::commands::{Outcome, Reaction, RequestInfo, presence};
use crate::metrics::PublishOutcome;
use crate::open::{Live, SessionState};
use crate::pipeline::{Finished, InFlight};

/// The fields of a `publish` besides its channel.
pub(crate) struct Asked<'a> {
    /// The data, exactly as sent.
    pub(crate) data: Payload<'a>,
    /// The client's idempotency key for the publication.
    pub(crate) key: Option<&'a str>,
    /// The trace context that the client sent.
    pub(crate) trace: Option<TraceContext>,
}

/// Performs the steps up to the call of the broker, under the lease that ends at `until`. If the
/// session is subscribed to the channel, later publications reuse the policy's permission.
pub(crate) fn start(
    state: &mut SessionState,
    settings: &SessionSettings,
    request: RequestInfo,
    name: &str,
    Asked { data, key, trace }: Asked<'_>,
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
    if let Err(message) = authorized(state, &settings.policy, &channel, remembered, &span) {
        state.context.count_publish(PublishOutcome::Denied);
        span.forbidden(state, &channel);
        return Reaction::Done(state.error(&request, ErrorCode::Forbidden, message));
    }
    let options = settings.channels.of(&channel);
    if key.is_some() && options.stream.is_none() {
        span.failed(state, ErrorCode::NotAvailable);
        let message = "the channel keeps no history, which `key` needs";
        return Reaction::Done(state.error(&request, ErrorCode::NotAvailable, message));
    }
    if let Err(problem) = check(&data, options.is_binary) {
        span.failed(state, ErrorCode::BadRequest);
        return Reaction::Done(state.error(&request, ErrorCode::BadRequest, problem));
    }
    let Some(live) = &mut state.live else {
        return Reaction::Done(None);
    };
    let sender = settings
        .shows_sender
        .then(|| sender(live, settings, &channel));
    let from = from(live);
    let append = options.stream.map(|bounds| Append {
        bounds,
        key: key.map(|key| PublicationKey::new(Publisher::User(&from), key)),
    });
    let publication = Publication {
        channel,
        data: Bytes::copy_from_slice(data.as_bytes()),
        from: Some(from),
        sender,
        is_binary: options.is_binary,
        entry: None,
        trace: span.context(),
    };
    let node = Arc::clone(&state.context.node);
    let began = request.began.map(Instant::into_std);
    let scope = span.is_recorded().then(|| span.scope());
    let publish = async move {
        let result = node.publish(publication, until, began, append).await;
        if let Err(error) = &result {
            debug!(error = %error, "the publication could not be handed to the backend");
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

/// Asks the policy, unless a cached decision allows the command and the command's span is not
/// recorded. A recorded span names the deciding rule, which only the policy can tell.
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
    result: Result<Option<Position>, BackendError>,
    span: &mut CommandSpan,
) {
    let outcome = match &result {
        Ok(_) => PublishOutcome::Accepted,
        Err(BackendError::UnknownOutcome(_)) => PublishOutcome::Unknown,
        Err(_) => PublishOutcome::Error,
    };
    state.context.count_publish(outcome);
    match result {
        Ok(position) => {
            let answer = state.reply(request, &Reply::Published { position });
            state.answer(answer);
        }
        Err(error) => state.backend_error(request, &error, span),
    }
}

/// Asks the policy, and caches the decision if the session is subscribed to the channel. `None` if
/// the session is not open.
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

/// Checks that the data has the channel's `format`: bytes if the format is `binary`, otherwise
/// JSON. The error describes the fault.
fn check(data: &Payload<'_>, is_binary: bool) -> Result<(), &'static str> {
    match data {
        Payload::Bytes(_) if is_binary => Ok(()),
        Payload::Json(_) if is_binary => Err(
            "the channel carries binary data, which this protocol cannot: publish by one that can",
        ),
        Payload::Json(_) => Ok(()),
        Payload::Bytes(bytes) => native::check_data(bytes).map_err(|fault| match fault {
            Fault::TooDeep => "arrays and objects are nested deeper than 32",
            _ => "the data must be JSON in UTF-8, unless the channel's format is binary",
        }),
    }
}

/// The session as other clients see it in the channel.
fn sender(live: &mut Live, settings: &SessionSettings, channel: &Channel) -> Arc<Present> {
    let sender = session_sender(live, settings);
    let subscription = live.subscriptions.get(channel);
    match subscription.and_then(|subscription| subscription.channel_info.clone()) {
        None => sender,
        channel_info => Arc::new(Present {
            channel_info,
            ..Present::clone(&sender)
        }),
    }
}

/// The session as other clients see it, without information about a subscription.
fn session_sender(live: &mut Live, settings: &SessionSettings) -> Arc<Present> {
    if let Some(sender) = &live.sender {
        return Arc::clone(sender);
    }
    let user = from(live);
    let member = live.attachment.member();
    let sender = Arc::new(Present {
        session: member.session(),
        user,
        info: presence::info(settings, &member.principal()),
        channel_info: None,
    });
    live.sender = Some(Arc::clone(&sender));
    sender
}

fn from(live: &mut Live) -> Arc<str> {
    let from = live
        .from
        .get_or_insert_with(|| live.attachment.member().principal().user().into());
    Arc::clone(from)
}
