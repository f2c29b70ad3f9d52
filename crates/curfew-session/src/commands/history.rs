//! `history`: checks and authorizes the command, then reads the channel's history.

use std::sync::Arc;

use curfew_backend::BackendError;
use curfew_model::{Action, Epoch, ErrorCode, HistoryRange, Reply};
use curfew_node::History;
use curfew_telemetry::Origin;

use crate::SessionSettings;
use crate::commands::span::CommandSpan;
use crate::commands::{Outcome, Reaction, RequestInfo};
use crate::open::SessionState;

/// The part of a channel's history that a client asks for.
pub(crate) struct Wanted {
    pub(crate) limit: u64,
    pub(crate) range: HistoryRange,
    /// The epoch that the channel's history must have; `None` if the client accepts any epoch.
    pub(crate) epoch: Option<Epoch>,
}

/// Performs the steps up to the call of the backend.
pub(crate) fn start(
    state: &SessionState,
    settings: &SessionSettings,
    request: RequestInfo,
    name: &str,
    wanted: Wanted,
) -> Reaction {
    let channel = match state.parse_channel(&request, name, Origin::Unknown) {
        Ok(channel) => channel,
        Err(rejected) => return rejected,
    };
    let mut span = match state.authorized(settings, &request, Action::History, &channel) {
        Ok(span) => span,
        Err(rejected) => return rejected,
    };
    let node = Arc::clone(&state.context.node);
    let options = settings.channels.of(&channel);
    let lack = match options.stream {
        None => Some("the channel keeps no history"),
        Some(_) if options.is_binary && !state.wire().rules().carries_bytes => Some(
            "the channel carries binary data, which this protocol cannot: read its history by one that can",
        ),
        Some(_) => None,
    };
    if let Some(message) = lack {
        span.failed(state, ErrorCode::NotAvailable);
        return Reaction::Done(state.error(&request, ErrorCode::NotAvailable, message));
    }
    let outbound_bytes = settings.limits.outbound_bytes;
    let Wanted {
        limit,
        range,
        epoch,
    } = wanted;
    Reaction::wait(request, span, async move {
        let result = node.history(&channel, range, limit, outbound_bytes).await;
        Outcome::Read { result, epoch }
    })
}

/// Answers the command after the backend has answered.
pub(crate) fn finish(
    state: &mut SessionState,
    request: &RequestInfo,
    result: Result<History, BackendError>,
    epoch: Option<Epoch>,
    span: &mut CommandSpan,
) {
    match result {
        Ok(history) if epoch.is_some_and(|epoch| epoch != history.position.epoch) => {
            let answer = state.reply(request, &Reply::Unrecoverable);
            state.answer(answer);
        }
        Ok(mut history) => {
            if !state.wire().rules().carries_bytes {
                // Binary publications from before a change of the channel's format are left out.
                history.publications.retain(|found| !found.is_binary);
            }
            let reply = Reply::History {
                position: history.position,
                publications: &history.publications,
                truncated: history.truncated,
            };
            let answer = state.reply(request, &reply);
            state.answer(answer);
        }
        Err(error) => state.backend_error(request, &error, span),
    }
}
