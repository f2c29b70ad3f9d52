//! The faults of operations on Redis. No request of a user causes them.

use curfew_backend::BackendError;
use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::metrics::BrokerError;

/// The reason why an operation on Redis failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The connection broke, Redis did not answer in time, or Redis refused the command.
    #[error("{0}")]
    Redis(#[from] RedisError),
    /// No connection was made in time.
    #[error("could not connect to {0} in time")]
    Connect(String),
    /// A file named in the settings cannot be read.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: String,
        /// The error from reading the file.
        error: std::io::Error,
    },
    /// The primary is unknown.
    #[error("{0}")]
    NoPrimary(String),
    /// The server's settings make it unfit for use.
    #[error("{0}")]
    Unsuitable(String),
    /// There is no connection at the moment.
    #[error("not connected to redis")]
    NotConnected,
    /// The node's clock differs too much from Redis' clock.
    #[error("the clocks of this node and of redis differ by more than {0} s")]
    Clock(u64),
    /// Redis lacks a revocation that this node knows.
    #[error(
        "redis lacks a revocation that this node knows, and the node is still resolving the difference"
    )]
    Disagreement,
    /// The revocation to be confirmed does not exist.
    #[error("the revocation does not exist any more")]
    NotThere,
    /// The node may not find every session that the revocation covers.
    #[error(
        "this node's settings lack the kind of the revocation, or the node does not find every session by this kind yet"
    )]
    Unfound,
    /// Other clients kept writing the same key.
    #[error("other clients keep writing the same revocation, try again")]
    Contended,
    /// Another node did not answer.
    #[error("the session's node did not answer in time")]
    NoAnswer,
    /// The lease ended before the publication was sent, or before Redis executed the command.
    #[error("this node's lease has ended")]
    LeaseOver,
    /// Redis had forgotten the script that publishes, and executed later publications before this
    /// publication was sent again.
    #[error(
        "redis had lost the publishing script, and executed later publications before this publication could be sent again"
    )]
    Overtaken,
    /// Redis executed the script after the end of the publication's lease, so the script refused
    /// the publication.
    #[error("redis refused the publication, because it arrived after the node's lease had ended")]
    Fenced,
    /// The command was sent, and its outcome is unknown.
    #[error("the command was sent, but its outcome is unknown: {0}")]
    Unanswered(Box<Self>),
    /// Redis' answer is malformed.
    #[error("unexpected answer to {0}")]
    Unexpected(&'static str),
}

impl Fault {
    /// True if the server that answered cannot execute the command: another server must execute it,
    /// or no server can at the moment.
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
                    // The error of an aborted transaction does not name its cause, which may be a
                    // misrouted command.
                    | ServerErrorKind::ExecAbort
            )
        )
    }

    /// The first word of Redis' error.
    pub(crate) fn code(&self) -> Option<&str> {
        match self {
            Self::Redis(error) => error.code(),
            Self::Unanswered(fault) => fault.code(),
            _ => None,
        }
    }

    /// True if Redis did not answer in time. The connection may still be good.
    pub(crate) fn is_timeout(&self) -> bool {
        match self {
            Self::Redis(error) => error.is_timeout(),
            Self::Unanswered(fault) => fault.is_timeout(),
            _ => false,
        }
    }

    /// The label of this fault in the metrics.
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

    /// True if a connection that returned this fault must be replaced.
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
