//! The shared state of a node's sessions.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use curfew_auth::{Authenticator, ConnectionClaims, VerifyError};
use curfew_model::Principal;
use curfew_node::{ChannelEntries, Node, UserLimit};
use curfew_policy::Policy;

use crate::{LimitsConfig, SessionConfig, SessionMetrics};

/// A snapshot of all settings that a reload replaces. A reload completes a new snapshot and then
/// replaces the old snapshot by one atomic store. Each command and each request loads the snapshot
/// once.
#[derive(Debug, Clone)]
pub struct SessionSettings {
    /// `[session]`.
    pub session: SessionConfig,
    /// `[limits]`.
    pub limits: LimitsConfig,
    /// The largest message before authentication, in bytes: `auth.max_token_bytes` and some room
    /// for the fields beside the token.
    pub auth_frame_bytes: usize,
    /// `auth.timeout`: the time a connection may stay without a token.
    pub auth_timeout: Duration,
    /// `auth.anonymous_lifetime` with `auth.anonymous`: the lifetime of a session without a token;
    /// `None` if every session needs a token.
    pub anonymous: Option<Duration>,
    /// `auth.login_claim`: the claim whose value identifies the login that a token belongs to.
    pub login_claim: String,
    /// `[policy]`, which authorizes commands.
    pub policy: Arc<Policy>,
    /// `[[channels]]`: the options of each channel.
    pub channels: ChannelEntries,
    /// True if publications name the publishing session, because a protocol of the node shows that
    /// session to subscribers.
    pub shows_sender: bool,
    /// `centrifuge.personal_channels`.
    pub personal_channels: bool,
    /// `centrifuge.subscription_tokens`: a subscription's own token can give the right to
    /// subscribe.
    pub subscription_tokens: bool,
    /// The settings of the crate that opens sessions. They are in this snapshot because a request
    /// reads them together with the settings of sessions. Sessions do not read these settings of
    /// the listeners, and do not know their type.
    pub listeners: Arc<dyn Any + Send + Sync>,
}

impl SessionSettings {
    /// `session.max_per_user`, `session.over_limit` and `limits.anonymous_per_address`.
    pub fn user_limit(&self) -> UserLimit {
        UserLimit {
            max_per_user: self.session.max_per_user,
            over_limit: self.session.over_limit,
            anonymous_per_address: self.limits.anonymous_per_address,
        }
    }
}

/// The shared state of a node's sessions.
#[derive(Debug)]
pub struct Context {
    /// The node, which admits sessions, subscribes them to channels and publishes.
    pub node: Arc<Node>,
    /// The authenticator, which verifies tokens.
    pub authenticator: Arc<Authenticator>,
    /// The metrics of sessions.
    pub metrics: Arc<SessionMetrics>,
    /// The settings in force. A reload replaces the whole snapshot.
    pub settings: ArcSwap<SessionSettings>,
}

impl Context {
    /// Verifies a token by the keys and the clock of this node.
    ///
    /// # Errors
    ///
    /// The errors of [`Authenticator::verify`] and [`Context::judge`].
    pub async fn verify(&self, token: &str) -> Result<Arc<Principal>, VerifyError> {
        self.judge(self.authenticator.verify(token).await)
    }

    /// Adjusts the result of a verification: while this node's clock is not known to be right, a
    /// refusal that the clock decided is not blamed on the token. The results of all verifications
    /// pass through this method.
    ///
    /// # Errors
    ///
    /// The error of the verification, or [`Unverified::Clock`](curfew_auth::Unverified::Clock) in
    /// its place.
    pub fn judge<T>(&self, verified: Result<T, VerifyError>) -> Result<T, VerifyError> {
        verified.map_err(|error| match self.node.backends().nodes.clocks_agree() {
            true => error,
            false => error.without_clock(),
        })
    }

    /// Seconds until the client should renew a token; at least 1. Renewal is due
    /// `session.expiring_notice` before the token's end. If the token has at most twice that time
    /// left, renewal is due after half of the time left. This limits the requests of a client whose
    /// application keeps returning the same token. `None` if the token has no expiry.
    pub(crate) fn renew_in(&self, principal: &Principal) -> Option<u64> {
        if !ConnectionClaims::of(principal.claims()).expires {
            return None;
        }
        let expires_at = principal.expires_at();
        let notice = self.settings.load().session.expiring_notice.as_secs();
        let left = expires_at.saturating_sub(self.node.clock().unix());
        let renew_in = match left > 2 * notice {
            true => left - notice,
            false => left / 2,
        };
        Some(renew_in.max(1))
    }

    /// If `auth.close_on_key_withdrawal` is set, closes the sessions whose token was verified with
    /// a key that its issuer has withdrawn. The caller calls this after keys have changed.
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
