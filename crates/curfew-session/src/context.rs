//! What every session of a node shares.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use curfew_auth::{Authenticator, VerifyError};
use curfew_model::Principal;
use curfew_node::{Node, UserLimit};
use curfew_policy::Policy;

use crate::{LimitsConfig, SessionConfig, SessionMetrics};

/// What of the configuration a request is decided by: a snapshot, swapped once by a reload. A command,
/// and an admission, takes one and goes by nothing else, so that it sees limits and policy together.
#[derive(Debug, Clone)]
pub struct SessionSettings {
    /// `[session]`.
    pub session: SessionConfig,
    /// `[limits]`.
    pub limits: LimitsConfig,
    /// Largest message before authentication, in bytes: what `auth.max_token_bytes` asks for.
    pub auth_frame_bytes: usize,
    /// `auth.timeout`: how long a connection may stay without a token.
    pub auth_timeout: Duration,
    /// `auth.login_claim`: what names the login that a token is of.
    pub login_claim: String,
    /// `[policy]`: authorizes.
    pub policy: Arc<Policy>,
}

impl SessionSettings {
    /// `session.max_per_user` and `session.over_limit`.
    pub fn user_limit(&self) -> UserLimit {
        UserLimit {
            max_per_user: self.session.max_per_user,
            over_limit: self.session.over_limit,
        }
    }
}

/// What every session of a node shares.
#[derive(Debug)]
pub struct Context {
    /// The node: admission, subscriptions, publishing.
    pub node: Arc<Node>,
    /// Verifies tokens.
    pub authenticator: Arc<Authenticator>,
    /// The metrics of sessions.
    pub metrics: Arc<SessionMetrics>,
    /// The settings in force.
    pub settings: ArcSwap<SessionSettings>,
}

impl Context {
    /// Verifies a token, as far as this node can.
    ///
    /// # Errors
    ///
    /// As [`Authenticator::verify`] and [`Context::judge`].
    pub async fn verify(&self, token: &str) -> Result<Arc<Principal>, VerifyError> {
        self.judge(self.authenticator.verify(token).await)
    }

    /// What is to be told of a verification. Everything that is verified goes through here: while this
    /// node's clock is not known to be right, what it decides is not told as the token's fault.
    ///
    /// # Errors
    ///
    /// That of the verification, or [`Unverified::Clock`](curfew_auth::Unverified::Clock) in its
    /// place.
    pub fn judge<T>(&self, verified: Result<T, VerifyError>) -> Result<T, VerifyError> {
        verified.map_err(|error| match self.node.backends().nodes.clocks_agree() {
            true => error,
            false => error.without_clock(),
        })
    }

    /// Closes the sessions that rest upon keys which their issuers took back, where that is
    /// configured. To be called when keys have changed.
    pub fn close_withdrawn(&self) {
        if !self.authenticator.closes_withdrawn() {
            return;
        }
        self.node
            .close_withdrawn(|principal| self.authenticator.is_withdrawn(principal));
    }

    pub(crate) fn metrics(&self) -> &SessionMetrics {
        &self.metrics
    }
}
