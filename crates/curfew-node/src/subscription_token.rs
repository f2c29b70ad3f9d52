//! Tokens that sessions present for one channel, besides the session's own token.

use std::sync::Arc;

use curfew_backend::BackendError;
use curfew_hub::Member;
use curfew_model::{Channel, Disconnect, Principal};

use crate::Node;

/// Reason why a verified token allows no subscription.
#[derive(Debug, thiserror::Error)]
pub enum SubscriptionTokenError {
    /// A revocation covers the token. This revocation ends sessions with the given [`Disconnect`].
    #[error("access with this token was revoked")]
    Revoked(Disconnect),
    /// The backend failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// The token of a subscription. While this value exists, revocations find the session by the
/// token's keys.
#[derive(Debug)]
pub struct SubscriptionToken {
    node: Arc<Node>,
    member: Arc<Member>,
    channel: Channel,
    principal: Arc<Principal>,
}

impl Node {
    /// Registers a verified token, so that its revocation ends the subscription. Then looks for a
    /// revocation that already covers the token.
    ///
    /// # Errors
    ///
    /// A revocation covers the token, or the backend failed.
    pub async fn admit_subscription(
        self: &Arc<Self>,
        member: &Arc<Member>,
        channel: &Channel,
        principal: Arc<Principal>,
    ) -> Result<SubscriptionToken, SubscriptionTokenError> {
        // The token is registered before the check, as a session is, so that a revocation written
        // in between finds the token.
        let keys = self.hub.bind(member, channel, Arc::clone(&principal));
        let token = SubscriptionToken {
            node: Arc::clone(self),
            member: Arc::clone(member),
            channel: channel.clone(),
            principal,
        };
        match self.find_revocation(&keys, &token.principal).await? {
            Some(disconnect) => Err(SubscriptionTokenError::Revoked(disconnect)),
            None => Ok(token),
        }
    }
}

impl SubscriptionToken {
    /// The content of the token.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }
}

impl Drop for SubscriptionToken {
    fn drop(&mut self) {
        let hub = self.node.hub();
        hub.unbind(&self.member, &self.channel, &self.principal);
    }
}
