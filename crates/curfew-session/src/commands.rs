//! The commands, one file each. A command that calls the backend stays in flight until
//! `on_finished` receives its outcome.

pub(crate) mod auth;
pub(crate) mod history;
pub(crate) mod lost;
pub(crate) mod presence;
pub(crate) mod publish;
pub(crate) mod refresh;
pub(crate) mod server_side;
pub(crate) mod span;
pub(crate) mod subscribe;
pub(crate) mod subscribe_token;
pub(crate) mod unsubscribe;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use curfew_backend::{BackendError, PresenceList};
use curfew_model::{
    Action, Channel, ChannelError, CommandId, Disconnect, Epoch, ErrorCode, Position, Principal,
    Reply,
};
use curfew_policy::Policy;
use curfew_telemetry::Origin;
use tokio::time::Instant;
use tracing::{Instrument as _, warn};

use crate::SessionSettings;
use crate::admission::Failure;
use crate::commands::auth::{NotOpened, Opened};
use crate::commands::refresh::RefreshError;
use crate::commands::span::CommandSpan;
use crate::commands::subscribe::SubscribeError;
use crate::commands::subscribe_token::Grant;
use crate::open::SessionState;
use crate::pipeline::{Finished, InFlight};
use crate::run::End;

/// The parts of a command that its answer needs.
#[derive(Debug)]
pub(crate) struct RequestInfo {
    /// The name under which the command is counted.
    pub(crate) command: &'static str,
    /// The id that the client gave the command. The answer repeats this id.
    pub(crate) id: Option<CommandId>,
    /// The time at which the command was read; `None` if the command is not timed.
    pub(crate) began: Option<Instant>,
}

/// The frame that answers a command.
#[derive(Debug)]
pub(crate) struct AnswerFrame {
    pub(crate) frame: Bytes,
    /// True for an error reply. It contains no channel data, so the client may receive it even if
    /// the session has lost access.
    pub(crate) is_error: bool,
}

/// Result of acting on a request.
pub(crate) enum Reaction {
    /// The command is done; `None` if it has no answer.
    Done(Option<AnswerFrame>),
    /// The command waits for the backend.
    Waits(InFlight),
    /// The session ends.
    Ends(End),
}

impl Reaction {
    /// Keeps a command in flight until its operation ends. The operation runs in the command's span.
    fn wait(
        request: RequestInfo,
        span: CommandSpan,
        operation: impl Future<Output = Outcome> + Send + 'static,
    ) -> Self {
        let scope = span.scope();
        let finished = async move {
            Finished {
                outcome: operation.await,
                request,
                span,
            }
        };
        Self::Waits(InFlight {
            operation: Box::pin(finished.instrument(scope)),
            is_publication: false,
        })
    }
}

impl From<Disconnect> for Reaction {
    fn from(disconnect: Disconnect) -> Self {
        Self::Ends(disconnect.into())
    }
}

/// Result of a command that waited for the backend.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The result of `auth`.
    Admitted(Result<Opened, NotOpened>),
    /// The result of `subscribe`, with the policy that was in force when the command was
    /// authorized.
    Subscribed {
        channel: Channel,
        policy: Arc<Policy>,
        result: subscribe::Result,
    },
    /// The result of `publish`.
    Published(Result<Option<Position>, BackendError>),
    /// The result of `history`.
    Read {
        result: Result<curfew_node::History, BackendError>,
        /// The epoch that the stream must have, if the client named one.
        epoch: Option<Epoch>,
    },
    /// The result of `presence`.
    Present {
        result: Result<PresenceList, BackendError>,
        /// True if the client asked only for the numbers of sessions and users.
        is_count: bool,
    },
    /// `unsubscribe` is done.
    Unsubscribed,
    /// The result of `refresh`.
    Refreshed(Result<Arc<Principal>, RefreshError>),
    /// The result of `sub_refresh`.
    SubscriptionRefreshed {
        channel: Channel,
        result: Result<Grant, SubscribeError>,
    },
}

impl SessionState {
    /// Completes a finished command, once all earlier commands are answered. `Some` ends the
    /// session.
    pub(crate) fn on_finished(&mut self, finished: Finished) -> Option<End> {
        let Finished {
            request,
            outcome,
            mut span,
        } = finished;
        let _entered = span.scope().entered();
        match outcome {
            Outcome::Admitted(result) => return auth::finish(self, &request, result, &mut span),
            Outcome::Subscribed {
                channel,
                policy,
                result,
            } => {
                return subscribe::finish(self, &request, channel, &policy, result, &mut span);
            }
            Outcome::Published(result) => publish::finish(self, &request, result, &mut span),
            Outcome::Read { result, epoch } => {
                history::finish(self, &request, result, epoch, &mut span);
            }
            Outcome::Present { result, is_count } => {
                presence::finish(self, &request, result, is_count, &mut span);
            }
            Outcome::Unsubscribed => {
                let answer = self.reply(&request, &Reply::Unsubscribed);
                self.answer(answer);
            }
            Outcome::Refreshed(result) => {
                return refresh::finish(self, &request, result, &mut span);
            }
            Outcome::SubscriptionRefreshed { channel, result } => {
                return subscribe_token::finish(self, &request, &channel, result, &mut span);
            }
        }
        None
    }

    /// Answers a command that failed because of the backend, and marks the command's span as
    /// failed.
    pub(crate) fn backend_error(
        &mut self,
        request: &RequestInfo,
        error: &BackendError,
        span: &mut CommandSpan,
    ) {
        span.failed(self, Failure::of_ours(error.error_type()));
        self.answer_backend_error(request, error);
    }

    /// Answers a command that failed because of the backend, and whose span has already recorded
    /// the failure. Logs the error only if it is [`BackendError::Unusable`].
    pub(crate) fn answer_backend_error(&mut self, request: &RequestInfo, error: &BackendError) {
        let (code, message) = match error {
            BackendError::Unavailable(_) => {
                (ErrorCode::Unavailable, "temporarily unavailable, try again")
            }
            BackendError::UnknownOutcome(_) => (
                ErrorCode::UnknownOutcome,
                "the publication may or may not have been delivered",
            ),
            BackendError::Unusable(cause) => {
                let command = request.command;
                warn!(command, error = %error, cause = %cause, "command failed");
                (ErrorCode::Internal, "an internal error")
            }
        };
        let answer = self.error(request, code, message);
        self.answer(answer);
    }

    /// Rejects a command that has no span yet. Begins the command's span and marks it as failed,
    /// because the answer is an error.
    pub(crate) fn reject<'a>(
        &self,
        request: &RequestInfo,
        origin: Origin,
        code: ErrorCode,
        message: impl Into<Cow<'a, str>>,
    ) -> Reaction {
        let mut span = self.begin_span(request.command, origin);
        span.failed(self, code);
        let _entered = span.scope().entered();
        Reaction::Done(self.error(request, code, message))
    }

    /// Parses a channel's name. The `Err` is the answer to a command whose channel's name is
    /// malformed or reserved.
    pub(crate) fn parse_channel(
        &self,
        request: &RequestInfo,
        name: &str,
        origin: Origin,
    ) -> Result<Channel, Reaction> {
        Channel::parse(name).map_err(|error| {
            let denies = self.wire().rules().denies_reserved_names;
            let code = match error {
                ChannelError::Reserved if denies => ErrorCode::Forbidden,
                _ => ErrorCode::InvalidChannel,
            };
            self.reject(request, origin, code, error.to_string())
        })
    }

    /// Asks the policy about a command that reads from a channel. Begins the command's span. The
    /// `Err` is the answer to a command that the policy does not allow.
    fn authorized(
        &self,
        settings: &SessionSettings,
        request: &RequestInfo,
        action: Action,
        channel: &Channel,
    ) -> Result<CommandSpan, Reaction> {
        let Some(live) = &self.live else {
            return Err(Reaction::Done(None));
        };
        let mut span = self.begin_span(request.command, Origin::Unknown);
        span.name(self, channel);
        let authorize = span.part("authorize");
        let principal = live.attachment.member().principal();
        let decision = settings.policy.decide(&principal, action, channel);
        self.context.count_decision(&decision);
        CommandSpan::decided(authorize, &decision);
        if decision.allowed {
            return Ok(span);
        }
        span.forbidden(self, channel);
        let message = decision.to_string();
        Err(Reaction::Done(self.error(
            request,
            ErrorCode::Forbidden,
            message,
        )))
    }
}
