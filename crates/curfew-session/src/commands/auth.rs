//! `auth`: the first message of a connection whose request carried no token.

use std::net::IpAddr;
use std::sync::Arc;

use curfew_model::{AuthFailure, Command, CommandId, Disconnect, ErrorCode, Request};
use curfew_node::Attachment;
use curfew_protocol::{DecodeError, ProtocolId};
use curfew_telemetry::{CommandOutcome, Origin};
use tokio::time::Instant;
use tracing::{Instrument as _, debug};

use crate::Context;
use crate::commands::Outcome;
use crate::commands::span::CommandSpan;
use crate::open::{Refusal, State};
use crate::run::Finish;

const NAME: &str = "auth";

/// The span of the command, up to admission.
const SPAN: &str = "curfew.auth";

/// Acts on a connection's first message. Whatever it is but a good `auth` ends the connection.
pub(crate) fn first(
    state: &mut State,
    decoded: Result<Request<'_>, DecodeError>,
) -> Option<Finish> {
    let token = match decoded {
        Ok(Request {
            command: Command::Auth { token },
            ..
        }) => token,
        Ok(Request { command, .. }) => {
            debug!(command = command.name(), "command before auth");
            let message = "the first message must be auth with a token";
            return Some(state.refuse(Refusal::token(AuthFailure::MissingToken, message)));
        }
        Err(DecodeError::NotTheProtocol { message }) => {
            debug!(problem = message, "message is not the protocol");
            return Some(Disconnect::BAD_REQUEST.because(message).into());
        }
        Err(DecodeError::Form { message, .. }) => {
            debug!(problem = %message, "first message is not auth");
            let close = Disconnect::BAD_REQUEST;
            return Some(
                close
                    .because("the first message must be auth with a token")
                    .into(),
            );
        }
    };
    let mut span = state.begin_span(SPAN, Origin::Unknown);
    let context = Arc::clone(&state.context);
    let (protocol, address) = (state.protocol, state.address);
    let token = token.into_owned();
    // It came in time; what is waited for now are keys and the backend.
    let timeout = state.context.settings.load().auth_timeout;
    state.deadlines.auth_by = Instant::now().checked_add(timeout);
    state.operation = Some(Box::pin(async move {
        let result = open(&context, protocol, address, &token, &mut span).await;
        (Outcome::Admitted(result), span.scope())
    }));
    None
}

/// From the token to the session's place.
async fn open(
    context: &Context,
    protocol: ProtocolId,
    address: Option<IpAddr>,
    token: &str,
    span: &mut CommandSpan,
) -> Result<Attachment, Refusal> {
    let tracer = context.metrics().tracer();
    let verify = span.part("verify token");
    let verified = context.verify(token);
    let verified = verified.instrument(verify.scope()).await;
    drop(verify);
    context.count_authentication(&verified);
    let principal = match verified {
        Ok(principal) => principal,
        Err(error) => {
            span.not_verified(tracer, &error);
            let refusal = Refusal::from(error);
            let _entered = span.scope().entered();
            debug!(reason = refusal.reason(), "token refused");
            return Err(refusal);
        }
    };
    let mut admission = span.part("admission");
    let admit = context.node.admit(principal, protocol, address);
    let admitted = admit.instrument(admission.scope()).await;
    admitted.map_err(|error| {
        admission.refused(error.error_type());
        span.not_admitted(tracer, &error);
        debug!(error = %error, "session not admitted");
        error.into()
    })
}

/// The session is admitted, or not.
pub(crate) fn finish(state: &mut State, result: Result<Attachment, Refusal>) -> Option<Finish> {
    let outcome = match result.is_ok() {
        true => CommandOutcome::Ok,
        false => CommandOutcome::Error,
    };
    state.context.metrics().commands.inc(NAME, outcome);
    match result {
        Ok(attachment) => {
            state.open(attachment);
            None
        }
        Err(refusal) => Some(state.refuse(refusal)),
    }
}

/// A session authenticates once; afterwards there is `refresh`.
pub(crate) fn again(state: &mut State, id: Option<CommandId>) {
    let message = "the session is authenticated; use refresh to renew its token";
    state.error(NAME, id.as_ref(), ErrorCode::BadRequest, message);
}
