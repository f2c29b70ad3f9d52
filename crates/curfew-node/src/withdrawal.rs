//! Withdrawn signing keys, and the sessions whose tokens were verified with them.

use curfew_hub::Ending;
use curfew_model::{Disconnect, Principal};
use tracing::info;

use crate::Node;

impl Node {
    /// Closes the sessions of this node whose token was verified with a withdrawn key: `withdrawn`
    /// returns true for their principals. Ends the subscriptions whose own token was verified with
    /// such a key. Every node does so when it learns of the withdrawal. A session that is being
    /// admitted meanwhile is closed by the next call of this method.
    pub fn close_withdrawn(&self, withdrawn: impl Fn(&Principal) -> bool) {
        let ending = Ending::new(Disconnect::REVOKED);
        let (mut closed, mut subscriptions) = (0, 0);
        for member in self.hub.members() {
            if withdrawn(&member.principal()) {
                closed += u64::from(self.hub.end(&member, ending));
            } else {
                subscriptions += self.hub.revoke_subscriptions(&member, |principal| {
                    withdrawn(principal).then_some(Disconnect::REVOKED)
                });
            }
        }
        if closed > 0 || subscriptions > 0 {
            self.metrics.sessions_revoked.inc_by(closed);
            info!(
                closed,
                subscriptions,
                "sessions or subscriptions ended because the key of their token was withdrawn"
            );
        }
    }
}
