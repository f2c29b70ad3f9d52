//! Requests to the control connection, from the admin API and from other nodes.

use curfew_backend::{BackendError, Ended};
use curfew_model::{Revocation, RevocationKey};
use tokio::sync::{mpsc, oneshot};

use crate::fault::Fault;

/// A request to the control connection.
#[derive(Debug)]
pub(crate) enum ControlRequest {
    /// Writes a revocation.
    Revoke {
        key: RevocationKey,
        revocation: Revocation,
        reply: oneshot::Sender<Result<WriteReceipt, BackendError>>,
    },
    /// Lifts a revocation.
    Restore {
        key: RevocationKey,
        reply: oneshot::Sender<Result<bool, BackendError>>,
    },
    /// Ensures that a revocation is in force on this node.
    Confirm {
        id: String,
        key: RevocationKey,
        reply: oneshot::Sender<Result<Ended, BackendError>>,
    },
    /// Compares every session with Redis. The request waits while Redis is unreachable.
    Compare { reply: oneshot::Sender<()> },
}

/// The result of writing a revocation.
#[derive(Debug)]
pub(crate) struct WriteReceipt {
    /// The id of this write. The key's value contains it, so that nodes can count the sessions that
    /// this write has ended.
    pub(crate) id: String,
    /// The number of replicas that have the write, and the number of replicas that should have it;
    /// `None` without replicas.
    pub(crate) replicas: Option<(u64, u64)>,
}

/// The sending side of the requests.
pub(crate) type ControlRequests = mpsc::Sender<ControlRequest>;

/// Maximum number of requests that wait at the same time.
pub(crate) const MAX_REQUESTS: usize = 4096;

impl ControlRequest {
    /// True if the requester no longer waits. The requester has reported a failure, so the request
    /// must not be executed later.
    pub(crate) fn is_given_up(&self) -> bool {
        match self {
            Self::Revoke { reply, .. } => reply.is_closed(),
            Self::Restore { reply, .. } => reply.is_closed(),
            Self::Confirm { reply, .. } => reply.is_closed(),
            Self::Compare { reply } => reply.is_closed(),
        }
    }

    /// Answers that Redis is unreachable. A request for a comparison gets no answer, and the
    /// requester repeats it.
    pub(crate) fn refuse(self) {
        let error = || BackendError::from(Fault::NotConnected);
        // A send fails if the requester has given up.
        match self {
            Self::Revoke { reply, .. } => drop(reply.send(Err(error()))),
            Self::Restore { reply, .. } => drop(reply.send(Err(error()))),
            Self::Confirm { reply, .. } => drop(reply.send(Err(error()))),
            Self::Compare { reply } => drop(reply),
        }
    }
}
