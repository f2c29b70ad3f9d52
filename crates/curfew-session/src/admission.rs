//! Verification of a token, then admission of its session. The upgrade, `auth` and `refresh` share
//! this code. The same failure is therefore decided, counted, traced and logged in the same way in
//! all three.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use curfew_auth::{AuthError, VerifyError};
use curfew_hub::WireId;
use curfew_model::{Disconnect, Principal};
use curfew_node::{AdmitError, Attachment, UserLimit};
use curfew_telemetry::{Span, SpanKind};
use tracing::{Instrument as _, debug};

use crate::{Context, Refusal};

/// The failure of an operation, as the operation's span records it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// The value of the span attribute `error.type`.
    pub error_type: &'static str,
    /// True for a fault of the node or of its dependencies, false for a fault of the client.
    pub is_ours: bool,
}

impl Failure {
    /// A fault of the client, or a missing permission.
    pub(crate) fn of_client(error_type: &'static str) -> Self {
        Self {
            error_type,
            is_ours: false,
        }
    }

    /// A fault of the node or of its dependencies.
    pub(crate) fn of_ours(error_type: &'static str) -> Self {
        Self {
            error_type,
            is_ours: true,
        }
    }
}

impl From<Disconnect> for Failure {
    fn from(disconnect: Disconnect) -> Self {
        let ours = [
            Disconnect::UNAVAILABLE,
            Disconnect::INTERNAL,
            Disconnect::DRAINING,
        ];
        match ours.contains(&disconnect) {
            true => Self::of_ours(disconnect.reason),
            false => Self::of_client(disconnect.reason),
        }
    }
}

impl From<&Refusal> for Failure {
    fn from(refusal: &Refusal) -> Self {
        Self {
            error_type: refusal.reason(),
            ..refusal.ending.disconnect.into()
        }
    }
}

/// Reason why a token opens or renews no session.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// The token is refused, or cannot be verified now.
    #[error(transparent)]
    Token(#[from] VerifyError),
    /// The session is refused, or cannot be admitted now.
    #[error(transparent)]
    Session(#[from] AdmitError),
}

impl From<&AdmissionError> for Failure {
    fn from(error: &AdmissionError) -> Self {
        match error {
            AdmissionError::Token(VerifyError::Refused(error)) => {
                Self::of_client(error.failure().as_str())
            }
            AdmissionError::Token(VerifyError::Unknown(why)) => Self::of_ours(why.error_type()),
            AdmissionError::Session(error) => {
                let error_type = error.error_type();
                match error {
                    AdmitError::Backend(_) | AdmitError::Draining => Self::of_ours(error_type),
                    AdmitError::Revoked(_) | AdmitError::SessionLimit { .. } => {
                        Self::of_client(error_type)
                    }
                    AdmitError::Ended(ending) => ending.disconnect.into(),
                }
            }
        }
    }
}

impl From<AdmissionError> for Refusal {
    fn from(error: AdmissionError) -> Self {
        match error {
            AdmissionError::Token(error) => error.into(),
            AdmissionError::Session(error) => error.into(),
        }
    }
}

/// A verified token, or the principal of a connection that is admitted without one. It also holds
/// the span of the verification, so that [`Context::admit_part`] can add the session's id to the
/// span.
#[derive(Debug)]
pub struct VerifiedToken {
    /// The token's content, or an anonymous principal.
    pub principal: Arc<Principal>,
    span: Span,
}

impl Context {
    /// Verifies the token of a connection in a child span of `whole`. Counts the result, and logs a
    /// failure. `token` is an `Err` if the credential could not be read.
    ///
    /// # Errors
    ///
    /// The error in `token`, or an error of [`Context::verify`].
    pub async fn verify_part(
        &self,
        token: Result<&str, AuthError>,
        whole: &Span,
    ) -> Result<VerifiedToken, AdmissionError> {
        let mut span = whole.child("verify token", SpanKind::Internal);
        let verified = match token {
            Ok(token) => self.verify(token).instrument(span.scope()).await,
            Err(error) => Err(error.into()),
        };
        span.ended(self.metrics().tracer().now());
        self.count_authentication(&verified);
        match verified {
            Ok(principal) => Ok(VerifiedToken { principal, span }),
            Err(error) => {
                let error = AdmissionError::from(error);
                let reason = Failure::from(&error);
                span.failed(reason.error_type);
                whole.scope().in_scope(|| match reason.is_ours {
                    true => debug!(%error, "the token could not be verified"),
                    false => debug!(reason = reason.error_type, "token refused"),
                });
                Err(error)
            }
        }
    }

    /// Makes the principal of a connection without a token, for `lifetime`
    /// ([`SessionSettings::anonymous`](crate::SessionSettings::anonymous)). The time of issue is
    /// read from the backend's clock, so that the cutoff of a revocation applies to the principal
    /// as it applies to a token. The expiry is computed from the clock of this node, because this
    /// node later compares the expiry with the same clock. The caller runs this method in the scope
    /// of `whole`.
    ///
    /// # Errors
    ///
    /// The backend failed.
    pub async fn anonymous_part(
        &self,
        lifetime: Duration,
        whole: &Span,
    ) -> Result<VerifiedToken, AdmissionError> {
        let span = Span::default();
        let time = self.node.backends().revocations.time().await;
        let time = time.map_err(|error| not_admitted(error.into(), &mut Span::default(), whole))?;
        let expires_at = self.node.clock().unix().saturating_add(lifetime.as_secs());
        let principal = Arc::new(Principal::anonymous(time.as_secs(), expires_at));
        Ok(VerifiedToken { principal, span })
    }

    /// Admits the session of a verified token in a child span of `whole`. `limit` comes from the
    /// same snapshot of the settings as the rest of the request or command.
    ///
    /// # Errors
    ///
    /// The errors of [`Node::admit`](curfew_node::Node::admit).
    pub async fn admit_part(
        &self,
        verified: VerifiedToken,
        wire: WireId,
        address: Option<IpAddr>,
        limit: UserLimit,
        whole: &Span,
    ) -> Result<Attachment, AdmissionError> {
        let VerifiedToken {
            principal,
            span: mut verify,
        } = verified;
        let mut span = whole.child("admission", SpanKind::Internal);
        let admit = self.node.admit(principal, wire, address, limit);
        let admitted = admit.instrument(span.scope()).await;
        if let Ok(attachment) = &admitted {
            verify.of_session(attachment.member().session());
        }
        admitted.map_err(|error| not_admitted(error, &mut span, whole))
    }

    /// Replaces the token of a session by a verified token. `whole` is the span of the command.
    ///
    /// # Errors
    ///
    /// The errors of [`Attachment::refresh`].
    pub(crate) async fn renew(
        &self,
        attachment: &Attachment,
        principal: Arc<Principal>,
        whole: &Span,
    ) -> Result<(), AdmissionError> {
        let renewed = attachment.refresh(principal).await;
        // The command's own span records the failure, so the span given here is empty.
        renewed.map_err(|error| not_admitted(error, &mut Span::default(), whole))
    }

    /// Counts a verified or refused token. [`VerifyError::Unknown`] is not counted, because it does
    /// not say if the token is valid.
    pub fn count_authentication(&self, result: &Result<Arc<Principal>, VerifyError>) {
        let authentications = &self.metrics().authentications;
        match result {
            Ok(_) => authentications.accepted(),
            Err(VerifyError::Refused(error)) => {
                authentications.refused(error.failure().as_str());
            }
            Err(VerifyError::Unknown(_)) => {}
        }
    }
}

fn not_admitted(error: AdmitError, part: &mut Span, whole: &Span) -> AdmissionError {
    let scope = whole.scope();
    scope.in_scope(|| debug!(error = %error, "session not admitted"));
    let error = AdmissionError::from(error);
    part.failed(Failure::from(&error).error_type);
    error
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use curfew_auth::{MissingKeys, Unverified};
    use curfew_backend::BackendError;
    use curfew_hub::Ending;

    use super::*;

    /// Regression: the same failure was recorded as the client's fault on one path and as the
    /// node's fault on another path.
    #[test]
    fn a_failure_is_ours_exactly_where_the_client_is_told_so() {
        let keys = MissingKeys {
            issuer: "main".into(),
            retry_after: Duration::ZERO,
            may_be_good: true,
        };
        let ours = [
            AdmissionError::Token(Unverified::Keys(keys).into()),
            AdmissionError::Token(Unverified::Clock.into()),
            AdmitError::Backend(BackendError::unavailable("away")).into(),
            AdmitError::Draining.into(),
            AdmitError::Ended(Ending::new(Disconnect::DRAINING)).into(),
        ];
        let clients = [
            AdmissionError::Token(AuthError::missing_token().into()),
            AdmitError::Revoked(Disconnect::REVOKED).into(),
            AdmitError::Ended(Ending::new(Disconnect::REVOKED)).into(),
            AdmitError::Ended(Ending::new(Disconnect::REPLACED)).into(),
        ];
        let all = ours.into_iter().map(|error| (true, error));
        for (is_ours, error) in all.chain(clients.into_iter().map(|error| (false, error))) {
            let failure = Failure::from(&error);
            assert_eq!(failure.is_ours, is_ours, "{error:?}");
            let told = Failure::from(&Refusal::from(error));
            assert_eq!(told.is_ours, is_ours, "{failure:?}");
        }
    }
}
