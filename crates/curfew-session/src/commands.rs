//! The commands, one file each. A command that asks the backend is under way until its outcome comes
//! back here.

pub(crate) mod auth;
pub(crate) mod publish;
pub(crate) mod refresh;
pub(crate) mod span;
pub(crate) mod subscribe;
pub(crate) mod unsubscribe;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use curfew_backend::BackendError;
use curfew_model::{Channel, CommandId, Disconnect, ErrorCode, Principal};
use curfew_node::Attachment;
use curfew_policy::Policy;
use curfew_telemetry::Origin;
use tokio::time::Instant;
use tracing::warn;

use crate::admission::Failure;
use crate::commands::auth::NotOpened;
use crate::commands::refresh::RefreshError;
use crate::commands::span::CommandSpan;
use crate::open::SessionState;
use crate::pipeline::{Finished, InFlight};
use crate::run::End;

/// A command as far as its answer goes.
#[derive(Debug)]
pub(crate) struct RequestInfo {
    /// The name that it is counted by.
    pub(crate) command: &'static str,
    /// Echoed in the answer.
    pub(crate) id: Option<CommandId>,
    /// The time when it was read, if it is timed.
    pub(crate) began: Option<Instant>,
}

/// The frame that answers a command.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) frame: Bytes,
    /// It tells nothing that access protects.
    pub(crate) is_error: bool,
}

/// The outcome of acting on a request.
pub(crate) enum Reaction {
    /// It is done; with its answer, if it has one.
    Done(Option<Answer>),
    /// It waits for the backend.
    Waits(InFlight),
    /// It ends the session.
    Ends(End),
}

impl From<Disconnect> for Reaction {
    fn from(disconnect: Disconnect) -> Self {
        Self::Ends(disconnect.into())
    }
}

/// The outcome of a command that had to wait.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Of `auth`.
    Admitted(Result<Attachment, NotOpened>),
    /// Of `subscribe`, with the policy that allowed it.
    Subscribed {
        channel: Channel,
        policy: Arc<Policy>,
        result: Result<(), BackendError>,
    },
    /// Of `publish`.
    Published(Result<(), BackendError>),
    /// Of `refresh`.
    Refreshed(Result<Arc<Principal>, RefreshError>),
}

impl SessionState {
    /// Ends a command that waited and whose turn it is. `Some` ends the session.
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
                subscribe::finish(self, &request, channel, &policy, result, &mut span);
            }
            Outcome::Published(result) => publish::finish(self, &request, result, &mut span),
            Outcome::Refreshed(result) => {
                return refresh::finish(self, &request, result, &mut span);
            }
        }
        None
    }

    /// Answers a command that failed for the backend's sake, and logs why.
    pub(crate) fn backend_error(
        &mut self,
        request: &RequestInfo,
        error: &BackendError,
        span: &mut CommandSpan,
    ) {
        span.failed(self, Failure::of_ours(error.error_type()));
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

    /// Answers a command that has no span yet with an error, and records that.
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

    /// Checks a channel's name. The error answers when it is none.
    pub(crate) fn parse_channel(
        &self,
        request: &RequestInfo,
        name: &str,
        origin: Origin,
    ) -> Result<Channel, Reaction> {
        Channel::parse(name).map_err(|error| {
            let message = error.to_string();
            self.reject(request, origin, ErrorCode::InvalidChannel, message)
        })
    }
}
