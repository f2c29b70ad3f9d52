//! The commands, one file each. A command that asks the backend leaves an operation behind; its
//! outcome comes back here.

pub(crate) mod auth;
pub(crate) mod publish;
pub(crate) mod refresh;
pub(crate) mod span;
pub(crate) mod subscribe;
pub(crate) mod unsubscribe;

use std::borrow::Cow;
use std::sync::Arc;

use curfew_backend::{BackendError, BoxFuture};
use curfew_model::{Channel, CommandId, ErrorCode, Principal};
use curfew_node::Attachment;
use curfew_telemetry::Origin;
use tracing::warn;

use crate::commands::auth::NotOpened;
use crate::commands::refresh::RefreshError;
use crate::commands::span::{CommandSpan, Failure};
use crate::open::State;
use crate::run::Finish;

/// A command that waits; in the end what became of it, and its span.
pub(crate) type Operation = BoxFuture<'static, (Outcome, CommandSpan)>;

/// What became of a command that had to wait.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Of `auth`.
    Admitted(Result<Attachment, NotOpened>),
    /// Of `subscribe`, with the version of the policy that allowed it.
    Subscribed {
        id: Option<CommandId>,
        channel: Channel,
        policy: u64,
        result: Result<(), BackendError>,
    },
    /// Of `publish`.
    Published(Option<CommandId>, Result<(), BackendError>),
    /// Of `refresh`.
    Refreshed(Option<CommandId>, Result<Arc<Principal>, RefreshError>),
}

impl State {
    /// Ends the command that waited. `Some` ends the session.
    pub(crate) fn on_outcome(&mut self, outcome: Outcome, mut span: CommandSpan) -> Option<Finish> {
        let _entered = span.scope().entered();
        match outcome {
            Outcome::Admitted(result) => return auth::finish(self, result, &mut span),
            Outcome::Subscribed {
                id,
                channel,
                policy,
                result,
            } => {
                subscribe::finish(self, id, channel, policy, result, &mut span);
            }
            Outcome::Published(id, result) => publish::finish(self, id, result, &mut span),
            Outcome::Refreshed(id, result) => return refresh::finish(self, id, result, &mut span),
        }
        None
    }

    /// Answers a command that failed for the backend's sake, and logs why.
    pub(crate) fn backend_error(
        &mut self,
        command: &'static str,
        id: Option<&CommandId>,
        error: &BackendError,
        span: &mut CommandSpan,
    ) {
        span.failed(self, Failure::of_ours(error.error_type()));
        match error {
            BackendError::Unavailable(_) => {
                self.error(
                    command,
                    id,
                    ErrorCode::Unavailable,
                    "temporarily unavailable, try again",
                );
            }
            BackendError::UnknownOutcome(_) => {
                self.error(
                    command,
                    id,
                    ErrorCode::UnknownOutcome,
                    "the publication may or may not have been delivered",
                );
            }
            BackendError::Unusable(cause) => {
                warn!(command, error = %error, cause = %cause, "command failed");
                self.error(command, id, ErrorCode::Internal, "an internal error");
            }
        }
    }

    /// Answers a command that has no span yet with an error, and records that.
    pub(crate) fn reject<'a>(
        &mut self,
        command: &'static str,
        id: Option<&CommandId>,
        origin: Origin,
        code: ErrorCode,
        message: impl Into<Cow<'a, str>>,
    ) {
        let mut span = self.begin_span(command, origin);
        span.failed(self, code);
        let _entered = span.scope().entered();
        self.error(command, id, code, message);
    }

    /// Checks a channel's name; answers when it is none.
    pub(crate) fn parse_channel(
        &mut self,
        command: &'static str,
        id: Option<&CommandId>,
        name: &str,
        origin: Origin,
    ) -> Option<Channel> {
        match Channel::parse(name) {
            Ok(channel) => Some(channel),
            Err(error) => {
                let message = error.to_string();
                self.reject(command, id, origin, ErrorCode::InvalidChannel, message);
                None
            }
        }
    }
}
