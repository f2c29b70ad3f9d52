//! Failures of any backend.

use std::error::Error;

/// A failed operation on the backend. The user is never the cause.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The backend cannot be reached or does not answer in time. Another attempt may succeed later.
    /// A publication that fails with this error was not delivered, and never will be.
    #[error("the backend is unavailable")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// The publication may or may not have been delivered. If it was not delivered yet, it may
    /// still be delivered, but only until the end of the lease under which it was accepted.
    #[error("it is unknown whether the backend accepted the publication")]
    UnknownOutcome(#[source] Box<dyn Error + Send + Sync>),
    /// The backend gave a malformed answer. Another attempt does not help.
    #[error("the backend gave an unusable answer")]
    Unusable(#[source] Box<dyn Error + Send + Sync>),
}

impl BackendError {
    /// [`BackendError::Unavailable`] with this cause.
    pub fn unavailable(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable(cause.into())
    }

    /// The error's name in spans.
    pub fn error_type(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::UnknownOutcome(_) => "unknown_outcome",
            Self::Unusable(_) => "internal",
        }
    }
}
