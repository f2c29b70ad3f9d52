//! `refresh`: a newer token of the same user takes the place of the session's.

use std::sync::Arc;

use curfew_hub::Ending;
use curfew_model::{Action, Channel, CommandId, ErrorCode, Principal, Push, Reply};
use curfew_node::AdmitError;
use curfew_telemetry::Origin;
use tracing::{Instrument as _, debug};

use crate::commands::Outcome;
use crate::open::State;
use crate::run::Finish;

const NAME: &str = "refresh";

/// The span of the command.
const SPAN: &str = "curfew.refresh";

/// The claim that names a login (OpenID Connect Back-Channel Logout 1.0 §2.1).
const LOGIN_CLAIM: &str = "sid";

/// Everything up to the revocation check. A token that is refused leaves the session as it was.
pub(crate) fn start(state: &mut State, id: Option<CommandId>, token: &str) -> Option<Finish> {
    let live = state.live.as_ref()?;
    let attachment = Arc::clone(&live.attachment);
    let current = attachment.member().principal();
    let mut span = state.begin_span(SPAN, Origin::Unknown);
    let verify = span.part("verify token");
    let result = state.context.authenticator.authenticate(token);
    drop(verify);
    state.count_authentication(&result);
    let tracer = state.context.metrics().tracer();
    let principal = match result {
        Ok(principal) => Arc::new(principal),
        Err(error) => {
            span.refused(tracer, error.failure().as_str());
            let message = error.message().to_owned();
            state.error(NAME, id.as_ref(), error.failure().into(), message);
            return None;
        }
    };
    if !current.same_user(&principal) || !same_login(&current, &principal) {
        span.refused(tracer, ErrorCode::DifferentUser.as_str());
        let message = "the token is of another user, issuer or login";
        state.error(NAME, id.as_ref(), ErrorCode::DifferentUser, message);
        return None;
    }
    if principal.expires_at() < current.expires_at() {
        span.refused(tracer, ErrorCode::BadRequest.as_str());
        let message = "the token expires before the one in force";
        state.error(NAME, id.as_ref(), ErrorCode::BadRequest, message);
        return None;
    }
    let node = Arc::clone(&state.context.node);
    let scope = span.scope();
    let refresh = async move {
        let result = attachment.refresh(Arc::clone(&principal)).await;
        if let Err(error) = &result {
            let tracer = node.metrics().tracer();
            match error {
                AdmitError::Backend(error) => span.failed(tracer, error),
                _ => span.refused(tracer, error.error_type()),
            }
        }
        drop(span);
        Outcome::Refreshed(id, principal, result)
    };
    state.operation = Some(Box::pin(refresh.instrument(scope)));
    None
}

/// The new token is in force, or not.
pub(crate) fn finish(
    state: &mut State,
    id: Option<CommandId>,
    principal: &Principal,
    result: Result<(), AdmitError>,
) -> Option<Finish> {
    match result {
        Ok(()) => {
            let reply = Reply::Refreshed {
                expires_at: principal.expires_at(),
            };
            state.reply(NAME, id.as_ref(), &reply);
            state.schedule_expiry(principal);
            state.reconsider();
            None
        }
        Err(AdmitError::Revoked(revoked)) => {
            // Whoever shows a revoked token has no access, whatever the old token says.
            let message = "access with this token was revoked".into();
            let reply = Reply::Error {
                code: ErrorCode::Revoked,
                message,
            };
            state.last_words = state.encode_reply(NAME, id.as_ref(), &reply);
            Some(Finish::Ended(Ending::new(revoked.disconnect())))
        }
        Err(AdmitError::Backend(error)) => {
            state.backend_error(NAME, id.as_ref(), &error);
            None
        }
        Err(AdmitError::Ended(ending)) => Some(Finish::Ended(ending)),
        Err(error @ (AdmitError::SessionLimit { .. } | AdmitError::Draining)) => {
            debug!(error = %error, "refresh refused");
            state.error(
                NAME,
                id.as_ref(),
                ErrorCode::Unavailable,
                "temporarily unavailable, try again",
            );
            None
        }
    }
}

/// A session that began with a login stays with it.
fn same_login(current: &Principal, new: &Principal) -> bool {
    let login = current.claims().parse().remove(LOGIN_CLAIM);
    login.is_none() || login == new.claims().parse().remove(LOGIN_CLAIM)
}

impl State {
    /// Decides every subscription anew, and forgets what was remembered of publishing: the claims
    /// or the policy have changed.
    pub(crate) fn reconsider(&mut self) {
        let Some(live) = &mut self.live else { return };
        if live.subscriptions.is_empty() {
            return;
        }
        let member = Arc::clone(live.attachment.member());
        let principal = member.principal();
        let subject = self.context.policy.subject(&principal);
        let mut lost: Vec<Channel> = Vec::new();
        for (channel, permissions) in &mut live.subscriptions {
            permissions.publish = None;
            let decision = subject.decide(Action::Subscribe, channel);
            self.context.count_decision(&decision);
            if !decision.allowed {
                lost.push(channel.clone());
            }
        }
        for channel in &lost {
            live.subscriptions.remove(channel);
            self.context.node.unsubscribe(channel, &member);
        }
        for channel in &lost {
            self.push(&Push::Unsubscribed {
                channel,
                reason: ErrorCode::Forbidden,
            });
        }
    }
}
