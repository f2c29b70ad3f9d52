//! `auth`: the first message of a connection that the upgrade request did not authenticate.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use curfew_auth::AuthError;
use curfew_hub::{Ending, WireId};
use curfew_model::{
    AuthFailure, ClientRequest, Command, Disconnect, ErrorCode, Principal, SubscribeOptions,
};
use curfew_protocol::DecodeError;
use curfew_telemetry::Origin;
use tokio::time::Instant;
use tracing::debug;

use crate::admission::{AdmissionError, Failure};
use crate::commands::server_side::{self, Made, ServerSide};
use crate::commands::span::CommandSpan;
use crate::commands::{Outcome, Reaction, RequestInfo};
use crate::metrics::{CommandOutcome, LostSubscription};
use crate::open::{Live, Refusal, SessionState};
use crate::pipeline::{Finished, InFlight};
use crate::run::End;
use crate::{Context, SessionSettings};

const NAME: &str = "auth";

/// Reason why the first message opens no session.
#[derive(Debug)]
enum NotAdmitted {
    Admission(AdmissionError),
    /// The server could not subscribe the session to the channels that the session must have as it
    /// opens.
    Subscriptions(Disconnect),
}

impl From<AdmissionError> for NotAdmitted {
    fn from(error: AdmissionError) -> Self {
        Self::Admission(error)
    }
}

impl From<NotAdmitted> for Refusal {
    fn from(error: NotAdmitted) -> Self {
        match error {
            NotAdmitted::Admission(error) => error.into(),
            NotAdmitted::Subscriptions(disconnect) => Ending::new(disconnect).into(),
        }
    }
}

impl From<&NotAdmitted> for Failure {
    fn from(error: &NotAdmitted) -> Self {
        match error {
            NotAdmitted::Admission(error) => error.into(),
            NotAdmitted::Subscriptions(disconnect) => (*disconnect).into(),
        }
    }
}

/// Refusal of the first message.
#[derive(Debug)]
pub(crate) struct NotOpened {
    refusal: NotAdmitted,
    /// The verified principal, if verification succeeded.
    principal: Option<Arc<Principal>>,
}

/// A session that is admitted and about to open.
#[derive(Debug)]
pub(crate) struct Opened {
    live: Live,
    server_side: Made,
}

/// The token and the resumed channels with which a connection asks for a session.
struct First {
    token: Result<Option<String>, AuthError>,
    /// The channels that the client resumes.
    subscriptions: Vec<(String, SubscribeOptions<'static>)>,
}

/// Acts on a connection's first request. Every request other than a valid `auth` ends the
/// connection.
pub(crate) fn first(
    state: &mut SessionState,
    decoded: Result<ClientRequest<'_>, DecodeError>,
) -> Reaction {
    let (id, token, subscriptions) = match decoded {
        Ok(ClientRequest::Command {
            id,
            command:
                Command::Auth {
                    token,
                    subscriptions,
                },
        }) => (id, token, subscriptions),
        Ok(_) if state.wire().rules().needs_auth_first => {
            let message = "the first command must be connect";
            return Disconnect::BAD_REQUEST.because(message).into();
        }
        Ok(request) => {
            let id = match request {
                ClientRequest::Command { id, command } => {
                    debug!(
                        command = command.name(),
                        "the client sent a command before auth"
                    );
                    id
                }
                ClientRequest::Pong => None,
            };
            let message = "the first message must be auth with a token";
            state.fail_auth(Failure::of_client(AuthFailure::MissingToken.as_str()));
            let refusal = Refusal::token(AuthFailure::MissingToken, message);
            let end = state.refuse(id.as_ref(), refusal);
            return end.map_or(Reaction::Done(None), Reaction::Ends);
        }
        Err(DecodeError::NotTheProtocol { message }) => {
            debug!(
                problem = message,
                "the message does not follow the protocol"
            );
            return Disconnect::BAD_REQUEST.because(message).into();
        }
        Err(DecodeError::Form { message, .. }) => {
            debug!(problem = %message, "first message is not auth");
            return Disconnect::BAD_REQUEST
                .because("the first message must be auth with a token")
                .into();
        }
    };
    let settings = state.context.settings.load_full();
    if token.is_none() && !state.wire().rules().opens_by_command && settings.anonymous.is_none() {
        debug!(
            "the client sent auth without a token, but sessions without a token are not admitted"
        );
        return Disconnect::BAD_REQUEST
            .because("the first message must be auth with a token")
            .into();
    }
    let span = state.begin_span(NAME, Origin::Unknown);
    let context = Arc::clone(&state.context);
    let (wire, address) = (state.wire, state.address);
    let credentials = state.credentials.take().unwrap_or_default();
    let first = First {
        token: credentials.choose(token.as_deref()),
        subscriptions: owned(subscriptions),
    };
    // The token arrived in time. The deadline now limits the wait for keys and the backend.
    state.deadlines.auth_by = Instant::now().checked_add(settings.auth_timeout);
    let request = RequestInfo {
        command: NAME,
        id,
        began: None,
    };
    Reaction::Waits(InFlight {
        operation: Box::pin(async move {
            let result = open(&context, &settings, wire, address, first, &span).await;
            Finished {
                request,
                outcome: Outcome::Admitted(result),
                span,
            }
        }),
        is_publication: false,
    })
}

fn owned(
    subscriptions: Vec<(Cow<'_, str>, SubscribeOptions<'_>)>,
) -> Vec<(String, SubscribeOptions<'static>)> {
    let owned = subscriptions.into_iter().map(|(name, options)| {
        let place = SubscribeOptions {
            since: options.since,
            join_leave: options.join_leave,
            delta: options.delta,
            ..SubscribeOptions::default()
        };
        (name.into_owned(), place)
    });
    owned.collect()
}

/// Verifies the token and admits the session. In a protocol whose sessions open by a command, also
/// subscribes the session to the channels of [`server_side`].
async fn open(
    context: &Context,
    settings: &SessionSettings,
    wire: WireId,
    address: Option<IpAddr>,
    first: First,
    span: &CommandSpan,
) -> Result<Opened, NotOpened> {
    let verified = match (&first.token, settings.anonymous) {
        (Ok(None), Some(lifetime)) => context.anonymous_part(lifetime, span.whole()).await,
        (Ok(Some(token)), _) => context.verify_part(Ok(token), span.whole()).await,
        (Ok(None), None) => {
            let missing = Err(AuthError::missing_token());
            context.verify_part(missing, span.whole()).await
        }
        (Err(error), _) => context.verify_part(Err(error.clone()), span.whole()).await,
    };
    let verified = verified.map_err(|error| NotOpened {
        refusal: error.into(),
        principal: None,
    })?;
    let principal = Arc::clone(&verified.principal);
    let limit = settings.user_limit();
    let admit = context.admit_part(verified, wire, address, limit, span.whole());
    let admitted = admit.await.map_err(|error| NotOpened {
        refusal: error.into(),
        principal: Some(Arc::clone(&principal)),
    })?;
    let mut live = Live::new(Arc::new(admitted));
    let rules = context.node.hub().wires().get(wire).rules();
    let server_side = match rules.opens_by_command {
        false => Made::default(),
        true => server_side::subscribe(context, settings, &mut live, first.subscriptions)
            .await
            .map_err(|error| NotOpened {
                refusal: NotAdmitted::Subscriptions(error.into()),
                principal: Some(principal),
            })?,
    };
    Ok(Opened { live, server_side })
}

/// Opens the admitted session, or refuses it.
pub(crate) fn finish(
    state: &mut SessionState,
    request: &RequestInfo,
    result: Result<Opened, NotOpened>,
    span: &mut CommandSpan,
) -> Option<End> {
    let outcome = match result.is_ok() {
        true => CommandOutcome::Ok,
        false => CommandOutcome::Error,
    };
    state.context.metrics().commands.inc(NAME, outcome);
    match result {
        Ok(Opened { live, server_side }) => {
            let member = live.attachment.member();
            span.opens(state, member.session(), member.principal().user());
            let subscriptions = server_side.subscriptions.iter();
            let told: Vec<_> = subscriptions.map(ServerSide::told).collect();
            state.open(live, request.id.as_ref(), &told);
            for channel in &server_side.refused {
                state.tell_lost(channel, LostSubscription::NotAvailable);
            }
            state.drop_lost()
        }
        Err(NotOpened { refusal, principal }) => {
            span.failed(state, &refusal);
            if let Some(principal) = principal {
                span.is_of(state, principal.user());
            }
            state.auth_traced = true;
            state.refuse(request.id.as_ref(), refusal.into())
        }
    }
}

impl SessionState {
    /// Records that the connection opens no session, for a reason that no other span records.
    pub(crate) fn fail_auth(&mut self, failure: Failure) -> CommandSpan {
        self.auth_traced = true;
        let mut span = self.begin_span(NAME, Origin::Unknown);
        span.waited(self, self.opened_at.elapsed());
        span.failed(self, failure);
        span
    }
}

/// Refuses `auth` in an open session, because a session authenticates once and then renews its
/// token by `refresh`.
pub(crate) fn again(state: &SessionState, request: &RequestInfo) -> Reaction {
    if state.wire().rules().needs_auth_first {
        let message = "the session is already open: only the first command can be connect";
        return Disconnect::BAD_REQUEST.because(message).into();
    }
    let message = "the session is already authenticated: use refresh to renew its token";
    state.reject(request, Origin::Unknown, ErrorCode::BadRequest, message)
}
