//! A newer token for a session that lives on.

use std::sync::Arc;
use std::time::Duration;

use curfew_model::{Principal, RevocationKey};

use tokio::time;

use crate::{AdmitError, Attachment, Settings};

/// Between two looks at whether a revocation has been read.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

impl Attachment {
    /// Replaces the session's token. Revocations name the session by the new token's keys before
    /// they are checked, and by the old token's until the new one is in force. On any error the
    /// session goes on with its old token, unless it was revoked.
    pub async fn refresh(&self, principal: Arc<Principal>) -> Result<(), AdmitError> {
        let node = self.node();
        let settings = node.settings();
        let new_keys =
            principal.revocation_keys(self.member().session(), &settings.revocable_claims);
        node.hub()
            .begin_refresh(self.member(), Arc::clone(&principal), &new_keys);
        // Given up by whatever ends this early, a dropped future included.
        let mut pending = Pending {
            attachment: self,
            settings,
            new_keys: Some(new_keys),
        };
        let keys = pending.new_keys.as_deref().unwrap_or_default();
        node.check_revoked(keys, &principal).await?;
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
struct Pending<'a> {
    attachment: &'a Attachment,
    /// What `new_keys` were made by.
    settings: Arc<Settings>,
    new_keys: Option<Vec<RevocationKey>>,
}

impl Pending<'_> {
    fn commit(&mut self) {
        if self.new_keys.take().is_some() {
            let old_keys = self.attachment.keys();
            self.attachment.set_keyed_by(Arc::clone(&self.settings));
            let node = self.attachment.node();
            node.hub()
                .finish_refresh(self.attachment.member(), &old_keys, &**node.clock());
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(new_keys) = self.new_keys.take() {
            self.attachment
                .node
                .hub()
                .abandon_refresh(self.attachment.member(), &new_keys);
        }
    }
}
