//! Withdrawn keys and the sessions that depend on them.

use curfew_hub::Ending;
use curfew_model::{Disconnect, Principal};
use tracing::info;

use crate::Node;

impl Node {
    /// Closes the sessions of this node whose token was verified with a key that is `withdrawn`.
    /// Every node does so when it learns of the withdrawal. A session that is being admitted
    /// meanwhile is closed at the next call.
    pub fn close_withdrawn(&self, withdrawn: impl Fn(&Principal) -> bool) {
        let ending = Ending::new(Disconnect::REVOKED);
        let members = self.hub.members();
        let closed = members
            .iter()
            .filter(|member| withdrawn(&member.principal()) && self.hub.end(member, ending))
            .count();
        if closed > 0 {
            self.metrics.sessions_revoked.inc_by(closed as u64);
            info!(closed, "sessions closed whose key was withdrawn");
        }
    }
}
