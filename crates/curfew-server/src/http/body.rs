//! Reading the body of a request, bounded in size and time.

use std::error::Error;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use tokio::time;

use super::Problem;

/// Maximum time for the body of a request to the public listener to arrive.
pub(crate) const PUBLIC_TIMEOUT: Duration = Duration::from_secs(5);

/// The reasons that a body is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    /// The body has more than the given number of bytes.
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    /// The connection ended or failed before the body was complete.
    #[error("the body is incomplete: it ended early")]
    Incomplete,
    /// A chunk of the body is malformed.
    #[error("the body is not encoded correctly: a chunk is malformed")]
    Malformed,
    /// The body did not arrive in time.
    #[error("the body did not arrive in time")]
    Late,
}

impl BodyError {
    /// The status to answer with.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Incomplete | Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Late => StatusCode::REQUEST_TIMEOUT,
        }
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        let code = match error {
            BodyError::TooLarge(_) => "message_too_large",
            BodyError::Incomplete => "body_incomplete",
            BodyError::Malformed => "bad_request",
            BodyError::Late => "timeout",
        };
        Self::new(error.status(), code, error.to_string())
    }
}

/// Reads a body of at most `most` bytes. Fails if the body has not arrived after the time `within`.
pub(crate) async fn read(
    body: Incoming,
    most: usize,
    within: Duration,
) -> Result<Bytes, BodyError> {
    // A declared length above the limit is refused before anything is read.
    if body.size_hint().lower() > most as u64 {
        return Err(BodyError::TooLarge(most));
    }
    let collected = time::timeout(within, Limited::new(body, most).collect());
    match collected.await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge(most)),
        Ok(Err(error)) => Err(broken(&*error)),
        Err(_) => Err(BodyError::Late),
    }
}

/// Returns the fault of a body that could not be read. hyper reports the fault as an I/O error,
/// which is `error` or one of its sources.
fn broken(error: &(dyn Error + 'static)) -> BodyError {
    let mut error = Some(error);
    while let Some(this) = error {
        if let Some(io) = this.downcast_ref::<io::Error>() {
            return match io.kind() {
                io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => BodyError::Malformed,
                _ => BodyError::Incomplete,
            };
        }
        error = this.source();
    }
    BodyError::Incomplete
}
