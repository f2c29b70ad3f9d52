//! Failures of any backend.

use std::error::Error;

/// An operation on the backend failed. Never the user's fault.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The backend cannot be reached or does not answer in time; trying again later may help. Of a
    /// publication: nothing was done.
    #[error("the backend is unavailable")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// A publication may or may not have been delivered, which is unknown. It is not carried
    /// out after the end of the lease under which it was accepted.
    #[error("it is not known whether the backend has it")]
    UnknownOutcome(#[source] Box<dyn Error + Send + Sync>),
    /// The backend answered something that makes no sense; trying again does not help.
    #[error("the backend gave an unusable answer")]
    Unusable(#[source] Box<dyn Error + Send + Sync>),
}

impl BackendError {
    /// [`BackendError::Unavailable`] with a cause in words.
    pub fn unavailable(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable(cause.into())
    }

    /// Its name in spans.
    pub fn error_type(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::UnknownOutcome(_) => "unknown_outcome",
            Self::Unusable(_) => "internal",
        }
    }
}
