//! `unsubscribe`.

use curfew_model::{CommandId, ErrorCode, Reply};
use curfew_telemetry::Origin;

use crate::open::State;

const NAME: &str = "unsubscribe";

/// All of it: nothing has to be waited for.
pub(crate) fn run(state: &mut State, id: Option<CommandId>, name: &str) {
    let Some(channel) = state.parse_channel(NAME, id.as_ref(), name, Origin::Unknown) else {
        return;
    };
    let mut span = state.begin_span(NAME, Origin::Unknown);
    span.name(state, &channel);
    let _entered = span.scope().entered();
    let Some(live) = &mut state.live else { return };
    if live.subscriptions.remove(&channel).is_none() {
        span.failed(state, ErrorCode::NotSubscribed);
        let message = "the session is not subscribed to this channel";
        return state.error(NAME, id.as_ref(), ErrorCode::NotSubscribed, message);
    }
    state
        .context
        .node
        .unsubscribe(&channel, live.attachment.member());
    state.reply(NAME, id.as_ref(), &Reply::Ok);
}
