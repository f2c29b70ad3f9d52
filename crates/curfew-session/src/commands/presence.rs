//! `presence`: checks and authorizes the command, then reads the channel's presence.

use std::sync::Arc;

use curfew_auth::{ConnectionClaims, TokenData};
use curfew_backend::{BackendError, PresenceList};
use curfew_model::{Action, ErrorCode, Present, Principal, Reply};
use curfew_node::count_within;
use curfew_telemetry::Origin;

use crate::SessionSettings;
use crate::commands::span::CommandSpan;
use crate::commands::{Outcome, Reaction, RequestInfo};
use crate::open::SessionState;

/// Estimated size of a session's entry in a reply, in bytes, without the user and the information.
const SESSION_BYTES: usize = 96;

/// Performs the steps up to the call of the backend.
pub(crate) fn start(
    state: &SessionState,
    settings: &SessionSettings,
    request: RequestInfo,
    name: &str,
    is_count: bool,
) -> Reaction {
    let channel = match state.parse_channel(&request, name, Origin::Unknown) {
        Ok(channel) => channel,
        Err(rejected) => return rejected,
    };
    let mut span = match state.authorized(settings, &request, Action::Presence, &channel) {
        Ok(span) => span,
        Err(rejected) => return rejected,
    };
    if !settings.channels.of(&channel).presence {
        span.failed(state, ErrorCode::NotAvailable);
        let message = "the channel has no presence";
        return Reaction::Done(state.error(&request, ErrorCode::NotAvailable, message));
    }
    let node = Arc::clone(&state.context.node);
    Reaction::wait(request, span, async move {
        let result = node.presence(&channel).await;
        Outcome::Present { result, is_count }
    })
}

/// Answers the command after the backend has answered.
pub(crate) fn finish(
    state: &mut SessionState,
    request: &RequestInfo,
    result: Result<PresenceList, BackendError>,
    is_count: bool,
    span: &mut CommandSpan,
) {
    match result {
        Ok(list) if is_count => {
            let reply = Reply::PresenceCount {
                sessions: list.count,
                users: list.users,
            };
            let answer = state.reply(request, &reply);
            state.answer(answer);
        }
        Ok(list) => {
            // The reply may fill half of the outbound queue. The other half is for other frames.
            let room = state.context.settings.load().limits.outbound_bytes / 2;
            let sessions = &list.sessions[..count_within(&list.sessions, room, size)];
            let reply = Reply::Presence {
                sessions,
                users: list.users,
                truncated: (sessions.len() as u64) < list.count,
            };
            let answer = state.reply(request, &reply);
            state.answer(answer);
        }
        Err(error) => state.backend_error(request, &error, span),
    }
}

fn size(present: &Present) -> usize {
    let infos = [&present.info, &present.channel_info];
    let infos = infos.map(|info| info.as_ref().map_or(0, |info| info.len()));
    SESSION_BYTES + present.user.len() + infos[0] + infos[1]
}

/// The `info` of a session in the presence of channels, as JSON: the value of the claim that
/// `session.info_claim` names. Without that setting, a node that speaks the Centrifuge protocol
/// uses the claim `info`, and other nodes use no claim. `None` if the token lacks the claim.
pub(crate) fn info(settings: &SessionSettings, principal: &Principal) -> Option<Arc<str>> {
    let Some(claim) = settings.session.info_claim.as_deref() else {
        // The SDKs of Centrifugo expect the `info` that Centrifugo's tokens carry.
        let info = settings
            .shows_sender
            .then(|| ConnectionClaims::of(principal.claims()).info)?;
        return info?.into_json().map(Into::into);
    };
    let value = principal.claims().parse().remove(claim)?;
    Some(value.to_string().into())
}

/// The subscription's `info` that other clients see, as JSON; `None` if the node does not speak the
/// Centrifuge protocol.
pub(crate) fn channel_info(
    settings: &SessionSettings,
    info: Option<TokenData>,
) -> Option<Arc<str>> {
    let info = info.filter(|_| settings.shows_sender)?;
    info.into_json().map(Into::into)
}
