//! The credentials of an upgrade request, which the first message of the connection may complete.

use curfew_auth::AuthError;
use curfew_model::AuthFailure;

/// The credentials of a connection that authenticates by its first message.
#[derive(Debug, Default)]
pub struct Credentials {
    /// The token of the upgrade request, or the fault of the request's credential; `None` if the
    /// request has no credential. The first message need not repeat the token.
    pub of_request: Option<Result<String, AuthError>>,
    /// True if the first message may carry a token: `message` is among `auth.token_sources`.
    pub takes_message: bool,
}

impl Credentials {
    /// Chooses between the token of the upgrade request and `token`, the token of the first
    /// message. `None` if neither has a token.
    ///
    /// # Errors
    ///
    /// The request's credential is at fault, or the two tokens differ.
    pub(crate) fn choose(self, token: Option<&str>) -> Result<Option<String>, AuthError> {
        let token = token.filter(|_| self.takes_message);
        match (self.of_request.transpose()?, token) {
            (Some(of_request), Some(token)) if of_request != token => Err(AuthError::new(
                AuthFailure::AmbiguousToken,
                "the request and the first message carry different tokens",
            )),
            (Some(of_request), _) => Ok(Some(of_request)),
            (None, token) => Ok(token.map(str::to_owned)),
        }
    }
}
