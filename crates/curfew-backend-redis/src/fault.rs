//! What can go wrong with Redis. Never the fault of a user.

use curfew_backend::BackendError;
use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::metrics::BrokerError;

/// An operation on Redis failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The connection broke, Redis did not answer in time, or it refused.
    #[error("{0}")]
    Redis(#[from] RedisError),
    /// No connection was made in time.
    #[error("no connection to {0} was made in time")]
    Connect(String),
    /// A file the configuration names cannot be read.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        error: std::io::Error,
    },
    /// Nobody knows the primary.
    #[error("{0}")]
    NoPrimary(String),
    /// The server may not be used as it is set up.
    #[error("{0}")]
    Unsuitable(String),
    /// There is no connection at the moment.
    #[error("not connected to redis")]
    NotConnected,
    /// The node's clock is too far off.
    #[error("the clocks of this node and of redis differ by more than {0} s")]
    Clock(u64),
    /// Redis lacks a revocation that this node knows.
    #[error("redis lacks a revocation that this node knows; it is being looked into")]
    Disagreement,
    /// The revocation that was to be confirmed is not there.
    #[error("there is no such revocation any more")]
    NotThere,
    /// Not every session that a revocation of this kind names is found by it.
    #[error("this node's settings lack the kind, or sessions are yet to be found by them")]
    Unfound,
    /// Others wrote the same key again and again.
    #[error("others write the same revocation, try again")]
    Contended,
    /// Another node did not answer.
    #[error("the session's node did not answer in time")]
    NoAnswer,
    /// The lease under which it was accepted was over before it was sent.
    #[error("the lease was over before it could be sent")]
    LeaseOver,
    /// Redis had forgotten the script that publishes, and others were published meanwhile that came
    /// later.
    #[error("redis had forgotten the script that publishes")]
    Overtaken,
    /// Redis was asked after the lease under which it was accepted, and refused.
    #[error("redis was reached after the lease and refused")]
    Fenced,
    /// It was sent, and what Redis made of it is not known.
    #[error("sent, and not known to be done: {0}")]
    Unanswered(Box<Self>),
    /// Redis said something that makes no sense.
    #[error("unexpected answer to {0}")]
    Unexpected(&'static str),
}

impl Fault {
    /// Whether the server that answered is not, or no longer, the right one.
    pub(crate) fn is_misrouted(&self) -> bool {
        let error = match self {
            Self::Unanswered(fault) => return fault.is_misrouted(),
            Self::Redis(error) => error,
            _ => return false,
        };
        matches!(
            error.kind(),
            ErrorKind::Server(
                ServerErrorKind::Moved
                    | ServerErrorKind::Ask
                    | ServerErrorKind::TryAgain
                    | ServerErrorKind::ClusterDown
                    | ServerErrorKind::MasterDown
                    | ServerErrorKind::ReadOnly
                    // What was wrong within a transaction is not told apart.
                    | ServerErrorKind::ExecAbort
            )
        )
    }

    /// The first word of the error that Redis answered with.
    pub(crate) fn code(&self) -> Option<&str> {
        match self {
            Self::Redis(error) => error.code(),
            Self::Unanswered(fault) => fault.code(),
            _ => None,
        }
    }

    /// Whether Redis did not answer in time. The connection may be good all the same.
    pub(crate) fn is_timeout(&self) -> bool {
        match self {
            Self::Redis(error) => error.is_timeout(),
            Self::Unanswered(fault) => fault.is_timeout(),
            _ => false,
        }
    }

    /// In the words of the metrics.
    pub(crate) fn as_broker_error(&self) -> BrokerError {
        match self {
            _ if self.is_misrouted() => BrokerError::Misrouted,
            _ if self.is_timeout() => BrokerError::Timeout,
            Self::Unanswered(fault) => fault.as_broker_error(),
            Self::LeaseOver | Self::Fenced => BrokerError::Late,
            Self::NotConnected => BrokerError::NotConnected,
            Self::NoPrimary(_) => BrokerError::Misrouted,
            Self::Connect(_) => BrokerError::Connection,
            Self::Redis(error) if error.is_io_error() || error.is_unrecoverable_error() => {
                BrokerError::Connection
            }
            Self::Redis(error) if matches!(error.kind(), ErrorKind::Parse) => {
                BrokerError::Unexpected
            }
            Self::Unexpected(_) => BrokerError::Unexpected,
            _ => BrokerError::Refused,
        }
    }

    /// Whether a connection that gave this is of no further use.
    pub(crate) fn is_fatal(&self) -> bool {
        match self {
            _ if self.is_timeout() || self.is_misrouted() => false,
            Self::NotThere | Self::Contended => false,
            Self::LeaseOver | Self::Overtaken | Self::Fenced => false,
            Self::Unanswered(fault) => fault.is_fatal(),
            Self::Redis(error) => {
                error.is_unrecoverable_error()
                    || error.is_io_error()
                    || matches!(
                        error.kind(),
                        ErrorKind::AuthenticationFailed
                            | ErrorKind::Parse
                            | ErrorKind::Server(ServerErrorKind::NoPerm)
                    )
                    || error.code() == Some("NOAUTH")
            }
            _ => true,
        }
    }
}

impl From<Fault> for BackendError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Fenced | Fault::Unanswered(_) => Self::UnknownOutcome(Box::new(fault)),
            Fault::Unexpected(_) => Self::Unusable(Box::new(fault)),
            _ => Self::Unavailable(Box::new(fault)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn io(kind: io::ErrorKind) -> Fault {
        Fault::Redis(io::Error::from(kind).into())
    }

    fn server(kind: ServerErrorKind) -> Fault {
        Fault::Redis((ErrorKind::Server(kind), "said by the server").into())
    }

    #[test]
    fn failures_are_counted_by_what_an_operator_would_do() {
        for (fault, counted) in [
            (Fault::NotConnected, BrokerError::NotConnected),
            (Fault::Connect("here".into()), BrokerError::Connection),
            (io(io::ErrorKind::BrokenPipe), BrokerError::Connection),
            (io(io::ErrorKind::TimedOut), BrokerError::Timeout),
            (server(ServerErrorKind::ReadOnly), BrokerError::Misrouted),
            (Fault::NoPrimary("gone".into()), BrokerError::Misrouted),
            (server(ServerErrorKind::NoPerm), BrokerError::Refused),
            (Fault::Unexpected("MGET"), BrokerError::Unexpected),
            (Fault::Fenced, BrokerError::Late),
            (
                Fault::Unanswered(Box::new(io(io::ErrorKind::TimedOut))),
                BrokerError::Timeout,
            ),
        ] {
            assert_eq!(fault.as_broker_error(), counted, "{fault}");
        }
    }
}
