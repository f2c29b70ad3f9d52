//! What is asked of the control connection: the way in from the admin API and from other nodes.

use curfew_backend::{BackendError, Ended};
use curfew_model::{Revocation, RevocationKey};
use tokio::sync::{mpsc, oneshot};

use crate::fault::Fault;

/// What the admin API and other nodes ask of the control connection.
#[derive(Debug)]
pub(crate) enum Request {
    /// Put a revocation in force.
    Revoke {
        key: RevocationKey,
        revocation: Revocation,
        reply: oneshot::Sender<Result<WriteReceipt, BackendError>>,
    },
    /// Lift one.
    Restore {
        key: RevocationKey,
        reply: oneshot::Sender<Result<bool, BackendError>>,
    },
    /// See to it that a revocation is in force here.
    Confirm {
        id: String,
        key: RevocationKey,
        reply: oneshot::Sender<Result<Ended, BackendError>>,
    },
    /// Compare every session with Redis; asked while Redis is away, it waits.
    Compare { reply: oneshot::Sender<()> },
}

/// A revocation was written.
#[derive(Debug)]
pub(crate) struct WriteReceipt {
    /// Names this writing; in the key's value, for nodes to count by.
    pub(crate) id: String,
    /// Replicas that have it, and replicas that should; `None` where there are none.
    pub(crate) replicas: Option<(u64, u64)>,
}

/// The way to the control connection.
pub(crate) type Requests = mpsc::Sender<Request>;

/// Operations that may wait.
pub(crate) const MAX_REQUESTS: usize = 4096;

impl Request {
    /// Whether nobody waits for it any more: it was told as failed, and must not be done later.
    pub(crate) fn is_given_up(&self) -> bool {
        match self {
            Self::Revoke { reply, .. } => reply.is_closed(),
            Self::Restore { reply, .. } => reply.is_closed(),
            Self::Confirm { reply, .. } => reply.is_closed(),
            Self::Compare { reply } => reply.is_closed(),
        }
    }

    /// Answers that it cannot be done now; a comparison goes unanswered, and is asked for again.
    pub(crate) fn refuse(self) {
        let error = || BackendError::from(Fault::NotConnected);
        // Whoever asked may have gone.
        match self {
            Self::Revoke { reply, .. } => drop(reply.send(Err(error()))),
            Self::Restore { reply, .. } => drop(reply.send(Err(error()))),
            Self::Confirm { reply, .. } => drop(reply.send(Err(error()))),
            Self::Compare { reply } => drop(reply),
        }
    }
}
