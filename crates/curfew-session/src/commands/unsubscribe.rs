//! `unsubscribe`.

use curfew_model::{ErrorCode, Reply};
use curfew_telemetry::Origin;

use crate::commands::{Reaction, RequestInfo};
use crate::open::SessionState;

/// Performs the whole command, which never waits.
pub(crate) fn run(state: &mut SessionState, request: &RequestInfo, name: &str) -> Reaction {
    let channel = match state.parse_channel(request, name, Origin::Unknown) {
        Ok(channel) => channel,
        Err(rejected) => return rejected,
    };
    let mut span = state.begin_span(request.command, Origin::Unknown);
    span.name(state, &channel);
    let _entered = span.scope().entered();
    let Some(live) = &mut state.live else {
        return Reaction::Done(None);
    };
    if live.subscriptions.remove(&channel).is_none() {
        span.failed(state, ErrorCode::NotSubscribed);
        let message = "the session is not subscribed to this channel";
        return Reaction::Done(state.error(request, ErrorCode::NotSubscribed, message));
    }
    state
        .context
        .node
        .unsubscribe(&channel, live.attachment.member());
    Reaction::Done(state.reply(request, &Reply::Unsubscribed))
}
