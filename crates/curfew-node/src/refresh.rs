//! Refresh: a newer token for an open session.

use std::sync::Arc;
use std::time::Duration;

use curfew_model::Principal;
use tokio::time;

use crate::{AdmitError, Attachment};

/// Interval at which a refresh checks if the session is still suspended.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

impl Attachment {
    /// Replaces the session's token. Revocations already find the session by the keys of the new
    /// token while the new token is checked. Revocations find the session by the keys of the old
    /// token until the new token is in force. On an error the session keeps its old token, unless a
    /// revocation has ended the session.
    pub async fn refresh(&self, principal: Arc<Principal>) -> Result<(), AdmitError> {
        let node = self.node();
        // On an early return, and if this future is dropped, the drop of `pending` abandons the
        // refresh.
        let pending = Pending(self);
        let keys = node
            .hub()
            .begin_refresh(self.member(), Arc::clone(&principal));
        node.check_revoked(&keys, &principal).await?;
        node.backends()
            .sessions
            .refresh(self.record(principal))
            .await?;
        // While the session is suspended, a revocation is being read. This revocation may cover the
        // old token, because the keys of the old token still find the session.
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

/// A refresh in progress, abandoned on drop.
struct Pending<'a>(&'a Attachment);

impl Pending<'_> {
    fn commit(self) {
        // After `finish_refresh`, the drop of `self` has no refresh to abandon.
        let node = self.0.node();
        node.hub().finish_refresh(self.0.member(), &**node.clock());
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.node.hub().abandon_refresh(self.0.member());
    }
}
