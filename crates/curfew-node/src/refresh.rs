//! A newer token for a session that lives on.

use std::sync::Arc;
use std::time::Duration;

use curfew_model::Principal;
use tokio::time;

use crate::{AdmitError, Attachment};

/// Between two looks at whether a revocation has been read.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

impl Attachment {
    /// Replaces the session's token. Revocations name the session by the new token's keys before
    /// they are checked, and by the old token's until the new one is in force. On any error the
    /// session goes on with its old token, unless it was revoked.
    pub async fn refresh(&self, principal: Arc<Principal>) -> Result<(), AdmitError> {
        let node = self.node();
        // Given up by whatever ends this early, a dropped future included.
        let pending = Pending(self);
        let keys = node
            .hub()
            .begin_refresh(self.member(), Arc::clone(&principal));
        node.check_revoked(&keys, &principal).await?;
        node.backends()
            .sessions
            .refresh(self.record(principal))
            .await?;
        // A revocation that is being read may be of the old token, which still names the session.
        while self.member().outbox().is_suspended() {
            time::sleep(LOOK_INTERVAL).await;
        }
        if let Some(ending) = self.member().outbox().ending() {
            return Err(AdmitError::Ended(ending));
        }
        pending.commit();
        Ok(())
    }
}

/// A refresh under way: undone unless committed.
struct Pending<'a>(&'a Attachment);

impl Pending<'_> {
    fn commit(self) {
        // There is nothing to undo afterwards.
        let node = self.0.node();
        node.hub().finish_refresh(self.0.member(), &**node.clock());
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.node.hub().abandon_refresh(self.0.member());
    }
}
