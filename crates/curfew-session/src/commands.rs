//! The commands, one file each. A command that asks the backend leaves an operation behind; its
//! outcome comes back here.

pub(crate) mod auth;
pub(crate) mod publish;
pub(crate) mod refresh;
pub(crate) mod span;
pub(crate) mod subscribe;
pub(crate) mod unsubscribe;

use std::sync::Arc;

use curfew_backend::{BackendError, BoxFuture};
use curfew_model::{Channel, CommandId, ErrorCode, Principal};
use curfew_node::Attachment;
use tracing::{Span, warn};

use crate::commands::refresh::RefreshError;
use crate::open::{Refusal, State};
use crate::run::Finish;

/// A command that waits; in the end what became of it, and the scope of its span, where that is
/// recorded, for what is logged of it.
pub(crate) type Operation = BoxFuture<'static, (Outcome, Span)>;

/// What became of a command that had to wait.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Of `auth`.
    Admitted(Result<Attachment, Refusal>),
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
    pub(crate) fn on_outcome(&mut self, outcome: Outcome, scope: Span) -> Option<Finish> {
        let _entered = scope.entered();
        match outcome {
            Outcome::Admitted(result) => return auth::finish(self, result),
            Outcome::Subscribed {
                id,
                channel,
                policy,
                result,
            } => {
                subscribe::finish(self, id, channel, policy, result);
            }
            Outcome::Published(id, result) => publish::finish(self, id, result),
            Outcome::Refreshed(id, result) => return refresh::finish(self, id, result),
        }
        None
    }

    /// Answers a command that failed for the backend's sake, and logs why.
    pub(crate) fn backend_error(
        &mut self,
        command: &'static str,
        id: Option<&CommandId>,
        error: &BackendError,
    ) {
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

    /// Checks a channel's name; answers when it is none.
    pub(crate) fn parse_channel(
        &mut self,
        command: &'static str,
        id: Option<&CommandId>,
        name: &str,
    ) -> Option<Channel> {
        match Channel::parse(name) {
            Ok(channel) => Some(channel),
            Err(error) => {
                self.error(command, id, ErrorCode::InvalidChannel, error.to_string());
                None
            }
        }
    }
}
