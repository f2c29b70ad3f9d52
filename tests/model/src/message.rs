//! Messages on a control connection.

/// A node's request to the primary. A node has at most one unanswered request, unless the liberty
/// V1 allows more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Request {
    /// `CLIENT TRACKING ON BCAST`. After it, Redis sends pushes on the connection.
    Track,
    /// `GET` of the epoch.
    Epoch,
    /// Raises the floor and, by rule M8, renews the epoch in the same step.
    Floor,
    /// `SET` of the epoch. It does nothing if an epoch exists.
    NewEpoch,
    /// `SET` of every revocation that the node knows.
    Reassert,
    /// `MGET` of the keys of every session.
    Reconcile,
    /// The write of a heartbeat, which a fenced server refuses.
    Heartbeat,
    /// The round trip after the heartbeat.
    Barrier,
    /// `GET` of the keys that were pushed.
    Get,
    /// `MGET` of the keys of every session, after a reload.
    Compare,
    /// `GET` of a key that a receipt asks about.
    Confirm,
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reply {
    /// The answer to [`Request::Track`].
    Tracking,
    /// The answer to [`Request::Epoch`]; `None` if the epoch is missing.
    Epoch(Option<Epoch>),
    /// The answer to [`Request::Floor`], with the epoch that is now in force.
    FloorRaised(Option<Epoch>),
    /// The answer to [`Request::NewEpoch`], with the epoch that is now in force. This node or
    /// another node has written it.
    EpochRenewed(Option<Epoch>),
    /// The answer to [`Request::Reassert`].
    Reasserted,
    /// The answer to [`Request::Reconcile`].
    Reconciled {
        /// True if the session is revoked.
        revoked: bool,
    },
    /// The answer to [`Request::Heartbeat`].
    Written,
    /// The answer to [`Request::Barrier`].
    Passed,
    /// The answer to [`Request::Get`].
    Value {
        /// True if the session is revoked.
        revoked: bool,
    },
    /// The answer to [`Request::Compare`].
    Compared {
        /// True if the session is revoked.
        revoked: bool,
    },
    /// The answer to [`Request::Confirm`].
    Found {
        /// True if the revocation's key exists.
        revoked: bool,
    },
}

/// A message that a node reads from its control connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Message {
    /// The answer to a request.
    Reply(Reply),
    /// Redis has refused this request with an error.
    Refused(Request),
    /// A revocation's key has changed.
    Push,
    /// Any key may have changed.
    NullPush,
}

/// An epoch of Redis' data. The model has two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Epoch {
    /// The epoch before a loss.
    First,
    /// The epoch after the loss.
    Second,
}

/// Identity of a primary: a server, and the number of its restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Primary {
    /// Index of the server.
    pub server: usize,
    /// Number of the server's restarts.
    pub incarnation: u8,
}

impl Reply {
    /// The request that this reply answers.
    pub fn request(self) -> Request {
        match self {
            Self::Tracking => Request::Track,
            Self::Epoch(_) => Request::Epoch,
            Self::FloorRaised(_) => Request::Floor,
            Self::EpochRenewed(_) => Request::NewEpoch,
            Self::Reasserted => Request::Reassert,
            Self::Reconciled { .. } => Request::Reconcile,
            Self::Written => Request::Heartbeat,
            Self::Passed => Request::Barrier,
            Self::Value { .. } => Request::Get,
            Self::Compared { .. } => Request::Compare,
            Self::Found { .. } => Request::Confirm,
        }
    }
}

impl Message {
    /// The request that this message answers; `None` for a push.
    pub fn answers(self) -> Option<Request> {
        match self {
            Self::Reply(reply) => Some(reply.request()),
            Self::Refused(request) => Some(request),
            Self::Push | Self::NullPush => None,
        }
    }
}
