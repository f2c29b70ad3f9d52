//! `auth`: the first message of a connection whose request carried no token.

use std::net::IpAddr;
use std::sync::Arc;

use curfew_hub::WireId;
use curfew_model::{AuthFailure, ClientRequest, Command, Disconnect, ErrorCode, Principal};
use curfew_node::{Attachment, UserLimit};
use curfew_protocol::DecodeError;
use curfew_telemetry::Origin;
use tokio::time::Instant;
use tracing::debug;

use crate::Context;
use crate::admission::{AdmissionError, Failure};
use crate::commands::span::CommandSpan;
use crate::commands::{Outcome, Reaction, RequestInfo};
use crate::metrics::CommandOutcome;
use crate::open::{Refusal, SessionState};
use crate::pipeline::{Finished, InFlight};
use crate::run::End;

const NAME: &str = "auth";

/// Refusal of the first message.
#[derive(Debug)]
pub(crate) struct NotOpened {
    error: AdmissionError,
    /// The verified principal, if verification succeeded.
    principal: Option<Arc<Principal>>,
}

/// Acts on a connection's first request. Every request other than a good `auth` ends the
/// connection.
pub(crate) fn first(
    state: &mut SessionState,
    decoded: Result<ClientRequest<'_>, DecodeError>,
) -> Reaction {
    let (id, token) = match decoded {
        Ok(ClientRequest::Command {
            id,
            command: Command::Auth { token },
        }) => (id, token),
        Ok(request) => {
            let id = match request {
                ClientRequest::Command { id, command } => {
                    debug!(command = command.name(), "command before auth");
                    id
                }
                ClientRequest::Pong => None,
            };
            let message = "the first message must be auth with a token";
            state.fail_auth(Failure::of_client(AuthFailure::MissingToken.as_str()));
            let refusal = Refusal::token(AuthFailure::MissingToken, message);
            return Reaction::Ends(state.refuse(id.as_ref(), refusal));
        }
        Err(DecodeError::NotTheProtocol { message }) => {
            debug!(problem = message, "message is not the protocol");
            return Disconnect::BAD_REQUEST.because(message).into();
        }
        Err(DecodeError::Form { message, .. }) => {
            debug!(problem = %message, "first message is not auth");
            return Disconnect::BAD_REQUEST
                .because("the first message must be auth with a token")
                .into();
        }
    };
    let span = state.begin_span(NAME, Origin::Unknown);
    let context = Arc::clone(&state.context);
    let (wire, address) = (state.wire, state.address);
    let token = token.into_owned();
    // The token arrived in time. The deadline now limits the wait for keys and the backend.
    let settings = context.settings.load();
    state.deadlines.auth_by = Instant::now().checked_add(settings.auth_timeout);
    let limit = settings.user_limit();
    drop(settings);
    let request = RequestInfo {
        command: NAME,
        id,
        began: None,
    };
    Reaction::Waits(InFlight {
        operation: Box::pin(async move {
            let result = open(&context, wire, address, limit, &token, &span).await;
            Finished {
                request,
                outcome: Outcome::Admitted(result),
                span,
            }
        }),
        is_publication: false,
    })
}

/// Verifies the token and admits the session.
async fn open(
    context: &Context,
    wire: WireId,
    address: Option<IpAddr>,
    limit: UserLimit,
    token: &str,
    span: &CommandSpan,
) -> Result<Attachment, NotOpened> {
    let verified = context.verify_part(Ok(token), span.whole()).await;
    let verified = verified.map_err(|error| NotOpened {
        error,
        principal: None,
    })?;
    let principal = Arc::clone(&verified.principal);
    let admit = context.admit_part(verified, wire, address, limit, span.whole());
    admit.await.map_err(|error| NotOpened {
        error,
        principal: Some(principal),
    })
}

/// Opens the admitted session, or refuses it.
pub(crate) fn finish(
    state: &mut SessionState,
    request: &RequestInfo,
    result: Result<Attachment, NotOpened>,
    span: &mut CommandSpan,
) -> Option<End> {
    let outcome = match result.is_ok() {
        true => CommandOutcome::Ok,
        false => CommandOutcome::Error,
    };
    state.context.metrics().commands.inc(NAME, outcome);
    match result {
        Ok(attachment) => {
            let member = attachment.member();
            span.opens(state, member.session(), member.principal().user());
            state.open(attachment, request.id.as_ref());
            None
        }
        Err(NotOpened { error, principal }) => {
            span.failed(state, &error);
            if let Some(principal) = principal {
                span.is_of(state, principal.user());
            }
            state.auth_traced = true;
            Some(state.refuse(request.id.as_ref(), error.into()))
        }
    }
}

impl SessionState {
    /// Records that the connection opens no session, for a reason that no other span has.
    pub(crate) fn fail_auth(&mut self, failure: Failure) -> CommandSpan {
        self.auth_traced = true;
        let mut span = self.begin_span(NAME, Origin::Unknown);
        span.waited(self, self.opened_at.elapsed());
        span.failed(self, failure);
        span
    }
}

/// Rejects an `auth` after the first, because a session authenticates once and then uses `refresh`.
pub(crate) fn again(state: &SessionState, request: &RequestInfo) -> Reaction {
    let message = "the session is authenticated; use refresh to renew its token";
    state.reject(request, Origin::Unknown, ErrorCode::BadRequest, message)
}
