//! `unsubscribe`: removes the subscription and the session's presence entry in the channel.

use curfew_model::{Channel, ErrorCode, Reply};
use curfew_telemetry::Origin;

use crate::commands::{Outcome, Reaction, RequestInfo};
use crate::open::SessionState;

/// Performs the command. The only wait is for the removal of the session's presence entry.
pub(crate) fn run(state: &mut SessionState, request: RequestInfo, name: &str) -> Reaction {
    let always = state.wire().rules().unsubscribes_always;
    if always && Channel::parse(name).is_err() {
        return Reaction::Done(state.reply(&request, &Reply::Unsubscribed));
    }
    let channel = match state.parse_channel(&request, name, Origin::Unknown) {
        Ok(channel) => channel,
        Err(rejected) => return rejected,
    };
    let mut span = state.begin_span(request.command, Origin::Unknown);
    span.name(state, &channel);
    let scope = span.scope();
    let entered = scope.enter();
    let Some(live) = &mut state.live else {
        return Reaction::Done(None);
    };
    if live.subscriptions.remove(&channel).is_none() {
        if always {
            return Reaction::Done(state.reply(&request, &Reply::Unsubscribed));
        }
        span.failed(state, ErrorCode::NotSubscribed);
        let message = "the session is not subscribed to this channel";
        return Reaction::Done(state.error(&request, ErrorCode::NotSubscribed, message));
    }
    let member = live.attachment.member();
    let Some(departure) = state.context.node.unsubscribe(&channel, member) else {
        return Reaction::Done(state.reply(&request, &Reply::Unsubscribed));
    };
    drop(entered);
    Reaction::wait(request, span, async move {
        departure.wait().await;
        Outcome::Unsubscribed
    })
}
