//! `refresh`: replaces the session's token by a newer token of the same user.

use std::borrow::Cow;
use std::sync::Arc;

use curfew_auth::VerifyError;
use curfew_hub::Ending;
use curfew_model::{Disconnect, ErrorCode, Principal, Reply};
use curfew_node::{AdmitError, Attachment};
use curfew_telemetry::Origin;
use tracing::{Instrument as _, debug};

use crate::Context;
use crate::admission::{AdmissionError, Failure};
use crate::commands::span::CommandSpan;
use crate::commands::{Outcome, Reaction, RequestInfo, presence};
use crate::open::{SessionState, revoked};
use crate::pipeline::{Finished, InFlight};
use crate::run::End;

/// Reason why a token does not replace the token in force.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RefreshError {
    /// The token is refused, or cannot be verified or admitted now.
    #[error(transparent)]
    NotAdmitted(#[from] AdmissionError),
    /// The token belongs to another user, issuer or login.
    #[error("the token belongs to another user, issuer or login than the session's token")]
    DifferentUser,
    /// The token expires before the token in force.
    #[error("the token expires before the session's token")]
    EndsEarlier,
}

/// Starts the verification and admission of the new token. Until both succeed, the old token stays
/// in force.
pub(crate) fn start(state: &SessionState, request: RequestInfo, token: Cow<'_, str>) -> Reaction {
    let Some(live) = &state.live else {
        return Reaction::Done(None);
    };
    let attachment = Arc::clone(&live.attachment);
    let span = state.begin_span(request.command, Origin::Unknown);
    let context = Arc::clone(&state.context);
    let token = token.into_owned();
    let scope = span.scope();
    let refresh = async move {
        let result = refresh(&context, &attachment, &token, &span).await;
        Finished {
            request,
            outcome: Outcome::Refreshed(result),
            span,
        }
    };
    Reaction::Waits(InFlight {
        operation: Box::pin(refresh.instrument(scope)),
        is_publication: false,
    })
}

async fn refresh(
    context: &Context,
    attachment: &Attachment,
    token: &str,
    span: &CommandSpan,
) -> Result<Arc<Principal>, RefreshError> {
    let verified = context.verify_part(Ok(token), span.whole()).await?;
    let principal = verified.principal;
    let current = attachment.member().principal();
    let same_login = || {
        let settings = context.settings.load();
        same_login(&current, &principal, &settings.login_claim)
    };
    if !current.same_user(&principal) || !same_login() {
        return Err(RefreshError::DifferentUser);
    }
    if principal.expires_at() < current.expires_at() {
        return Err(RefreshError::EndsEarlier);
    }
    let renewed = Arc::clone(&principal);
    context.renew(attachment, renewed, span.whole()).await?;
    Ok(principal)
}

/// Answers with the new token's expiry and schedules the session's end, or answers with the
/// failure. `Some` ends the session.
pub(crate) fn finish(
    state: &mut SessionState,
    request: &RequestInfo,
    result: Result<Arc<Principal>, RefreshError>,
    span: &mut CommandSpan,
) -> Option<End> {
    use RefreshError::{DifferentUser, EndsEarlier, NotAdmitted};

    let error = match result {
        Ok(principal) => {
            let reply = Reply::Refreshed {
                expires_at: principal.expires_at(),
                renew_in: state.context.renew_in(&principal),
            };
            if let Some(live) = &mut state.live {
                // The cached sender shows claims of the old token.
                live.sender = None;
            }
            let answer = state.reply(request, &reply);
            state.answer(answer);
            state.schedule_expiry(&principal);
            state.renew_presence(&principal);
            state.reconsider();
            return None;
        }
        Err(error) => error,
    };
    span.failed(state, &error);
    if matches!(error, DifferentUser | EndsEarlier) {
        debug!(error = %error, "refresh refused");
    }
    let ends_session = state.wire().rules().refusal_ends_session;
    let (code, message) = match error {
        NotAdmitted(AdmissionError::Token(VerifyError::Refused(error)))
            if ends_session && !error.is_of_time() =>
        {
            return Some(Disconnect::AUTH_FAILED.into());
        }
        DifferentUser if ends_session => return Some(Disconnect::AUTH_FAILED.into()),
        // On the code `expired`, a client of this protocol asks its application for another token
        // and tries again.
        EndsEarlier if ends_session => (ErrorCode::Expired, error.to_string()),
        NotAdmitted(AdmissionError::Session(AdmitError::Revoked(disconnect))) => {
            // A client whose new token is revoked has lost access, even if its old token is still
            // valid.
            let (failure, message) = revoked(disconnect);
            let reply = Reply::Error {
                code: failure.into(),
                message: message.into(),
                trace: None,
            };
            if let Some(answer) = state.reply(request, &reply) {
                state.notify(answer.frame);
            }
            return Some(End::ByServer(Ending::new(disconnect)));
        }
        NotAdmitted(AdmissionError::Session(AdmitError::Ended(ending))) => {
            return Some(End::ByServer(ending));
        }
        NotAdmitted(AdmissionError::Session(AdmitError::Backend(error))) => {
            state.answer_backend_error(request, &error);
            return None;
        }
        NotAdmitted(AdmissionError::Token(VerifyError::Refused(error))) => {
            (error.failure().into(), error.message().to_owned())
        }
        DifferentUser => (ErrorCode::DifferentUser, error.to_string()),
        EndsEarlier => (ErrorCode::BadRequest, error.to_string()),
        NotAdmitted(
            AdmissionError::Token(VerifyError::Unknown(_))
            | AdmissionError::Session(AdmitError::SessionLimit { .. } | AdmitError::Draining),
        ) => {
            let message = "temporarily unavailable, try again".to_owned();
            (ErrorCode::Unavailable, message)
        }
    };
    let answer = state.error(request, code, message);
    state.answer(answer);
    None
}

impl From<&RefreshError> for Failure {
    fn from(error: &RefreshError) -> Self {
        match error {
            RefreshError::DifferentUser => ErrorCode::DifferentUser.into(),
            RefreshError::EndsEarlier => ErrorCode::BadRequest.into(),
            RefreshError::NotAdmitted(error) => error.into(),
        }
    }
}

/// Returns true if both tokens have the same login: the value of `claim`. If the token in force has
/// no login, every login is accepted.
fn same_login(current: &Principal, new: &Principal, claim: &str) -> bool {
    let login = current.claims().parse().remove(claim);
    login.is_none() || login == new.claims().parse().remove(claim)
}

impl SessionState {
    /// Renews the session's presence entries, because they show claims of the session's token.
    fn renew_presence(&self, principal: &Principal) {
        let Some(live) = &self.live else { return };
        let settings = self.context.settings.load();
        let member = live.attachment.member();
        let info = || presence::info(&settings, principal);
        self.context.node.renew_presence(member, info);
    }
}
