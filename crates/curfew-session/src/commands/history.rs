//! `history`: check, authorize, read.

use std::sync::Arc;

use curfew_backend::{BackendError, StreamPage};
use curfew_model::{Action, ErrorCode, HistoryRange, Publication, Reply};
use curfew_telemetry::Origin;
use tracing::Instrument as _;

use crate::SessionSettings;
use crate::commands::span::CommandSpan;
use crate::commands::{Outcome, Reaction, RequestInfo};
use crate::open::SessionState;
use crate::pipeline::{Finished, InFlight};

/// Room for all of a publication in an answer but its data and its publisher, in bytes.
const ENTRY_BYTES: usize = 96;

/// Everything up to the backend.
pub(crate) fn start(
    state: &SessionState,
    settings: &SessionSettings,
    request: RequestInfo,
    name: &str,
    limit: u64,
    range: HistoryRange,
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
    if settings.channels.of(&channel).stream.is_none() {
        span.failed(state, ErrorCode::NotAvailable);
        let message = "the channel keeps no history";
        return Reaction::Done(state.error(&request, ErrorCode::NotAvailable, message));
    }
    let scope = span.scope();
    let read = async move {
        let result = node.history(&channel, range, limit).await;
        Finished {
            request,
            outcome: Outcome::Read(result),
            span,
        }
    };
    Reaction::Waits(InFlight {
        operation: Box::pin(read.instrument(scope)),
        is_publication: false,
    })
}

/// The backend has answered.
pub(crate) fn finish(
    state: &mut SessionState,
    request: &RequestInfo,
    result: Result<StreamPage, BackendError>,
    span: &mut CommandSpan,
) {
    match result {
        Ok(page) => {
            // The other half is for what else waits.
            let room = state.context.settings.load().limits.outbound_bytes / 2;
            let publications = within(&page.publications, room);
            let reply = Reply::History {
                position: page.position,
                publications,
                truncated: publications.len() < page.publications.len(),
            };
            let answer = state.reply(request, &reply);
            state.answer(answer);
        }
        Err(error) => state.backend_error(request, &error, span),
    }
}

/// The first publications, as many as have room in `bytes` of an answer.
fn within(publications: &[Publication], mut bytes: usize) -> &[Publication] {
    let fits = |publication: &&Publication| {
        let from = publication.from.as_ref().map_or(0, |from| from.len());
        let size = ENTRY_BYTES + publication.data.len() + from;
        let left = bytes.checked_sub(size);
        bytes = left.unwrap_or(0);
        left.is_some()
    };
    let count = publications.iter().take_while(fits).count();
    &publications[..count]
}
