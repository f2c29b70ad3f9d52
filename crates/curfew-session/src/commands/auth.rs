//! `auth`: the first message of a connection whose request carried no token.

use std::sync::Arc;

use curfew_model::{AuthFailure, Command, CommandId, Disconnect, ErrorCode, Request};
use curfew_node::{AdmitError, Attachment};
use curfew_protocol::DecodeError;
use curfew_telemetry::Origin;
use tokio::time::Instant;
use tracing::{Instrument as _, debug};

use crate::commands::Outcome;
use crate::open::{Refusal, State};
use crate::run::Finish;

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
            return Some(Disconnect::BAD_REQUEST.into());
        }
        Err(DecodeError::Form { message, .. }) => {
            debug!(problem = %message, "first message is not auth");
            return Some(Disconnect::BAD_REQUEST.into());
        }
    };
    let mut span = state.begin_span(SPAN, Origin::Unknown);
    let verify = span.part("verify token");
    let result = state.context.authenticator.authenticate(&token);
    drop(verify);
    state.count_authentication(&result);
    match result {
        Ok(principal) => {
            let node = Arc::clone(&state.context.node);
            let protocol = state.protocol;
            // It came in time; what is waited for now is the backend.
            let timeout = state.context.settings.load().auth_timeout;
            state.deadlines.auth_by = Instant::now().checked_add(timeout);
            state.operation = Some(Box::pin(async move {
                let mut admission = span.part("admission");
                let admit = node.admit(Arc::new(principal), protocol);
                let result = admit.instrument(admission.scope()).await;
                if let Err(error) = &result {
                    admission.refused(error.error_type());
                    span.refused(node.metrics().tracer(), error.error_type());
                }
                Outcome::Admitted(result)
            }));
        }
        Err(error) => {
            let tracer = state.context.metrics().tracer();
            span.refused(tracer, error.failure().as_str());
            let _entered = span.scope().entered();
            debug!(reason = error.failure().as_str(), "token refused");
            let refusal = Refusal::token(error.failure(), error.message().to_owned());
            return Some(state.refuse(refusal));
        }
    }
    None
}

/// The session is admitted, or not.
pub(crate) fn finish(state: &mut State, result: Result<Attachment, AdmitError>) -> Option<Finish> {
    match result {
        Ok(attachment) => {
            state.open(attachment);
            None
        }
        Err(error) => {
            debug!(error = %error, "session not admitted");
            Some(state.refuse(error.into()))
        }
    }
}

/// A session authenticates once; afterwards there is `refresh`.
pub(crate) fn again(state: &mut State, id: Option<CommandId>) {
    let message = "the session is authenticated; use refresh to renew its token";
    state.error("auth", id.as_ref(), ErrorCode::BadRequest, message);
}
