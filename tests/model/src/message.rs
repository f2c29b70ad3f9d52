//! Messages on a control connection.

/// A node's request to the primary, one at a time unless a liberty says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Request {
    /// `CLIENT TRACKING ON BCAST`: pushes count from here.
    Track,
    /// `GET` of the epoch.
    Epoch,
    /// Raises the floor and, by the rule, renews the epoch with it.
    Floor,
    /// `SET` of the epoch, if there is none.
    NewEpoch,
    /// `SET` of every revocation the node knows.
    Reassert,
    /// `MGET` of the keys of every session.
    Reconcile,
    /// The fenced write.
    Heartbeat,
    /// The round trip after it.
    Barrier,
    /// `GET` of the keys that were pushed.
    Get,
    /// `MGET` of the keys of every session, after a reload.
    Compare,
    /// `GET` of a key that a receipt asks about.
    Confirm,
}

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reply {
    /// To [`Request::Track`].
    Tracking,
    /// To [`Request::Epoch`], which may be missing.
    Epoch(Option<Epoch>),
    /// To [`Request::Floor`], with the epoch that is now in force.
    FloorRaised(Option<Epoch>),
    /// To [`Request::NewEpoch`], with the epoch that is now in force: ours, or another node's.
    EpochRenewed(Option<Epoch>),
    /// To [`Request::Reassert`].
    Reasserted,
    /// To [`Request::Reconcile`].
    Reconciled {
        /// True if the session is revoked.
        revoked: bool,
    },
    /// To [`Request::Heartbeat`].
    Written,
    /// To [`Request::Barrier`].
    Passed,
    /// To [`Request::Get`].
    Value {
        /// True if the session is revoked.
        revoked: bool,
    },
    /// To [`Request::Compare`].
    Compared {
        /// True when the session is revoked.
        revoked: bool,
    },
    /// To [`Request::Confirm`].
    Found {
        /// True when the revocation is there.
        revoked: bool,
    },
}

/// A message that a node reads from its control connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Message {
    /// An answer.
    Reply(Reply),
    /// An error in place of an answer.
    Refused(Request),
    /// A revocation's key has changed.
    Push,
    /// Any key may have changed.
    NullPush,
}

/// The life of a Redis' data. The model has two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Epoch {
    /// Before a loss.
    First,
    /// After it.
    Second,
}

/// Identity of a primary: a server, and the number of its starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Primary {
    /// Index of the server.
    pub server: usize,
    /// Grows when it restarts.
    pub incarnation: u8,
}

impl Reply {
    /// The request it answers.
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
    /// The request this puts an end to; none for a push.
    pub fn answers(self) -> Option<Request> {
        match self {
            Self::Reply(reply) => Some(reply.request()),
            Self::Refused(request) => Some(request),
            Self::Push | Self::NullPush => None,
        }
    }
}
