//! Revocations by this node, with receipts that name nodes.

use curfew_backend::{BackendError, Receipt};
use curfew_model::{Revocation, RevocationKey};
use tracing::debug;

use crate::Node;

impl Node {
    /// Puts a revocation in force. The receipt has the names of the nodes that have not confirmed.
    ///
    /// # Errors
    ///
    /// The backend is unavailable, or the outcome is unknown.
    pub async fn revoke(
        &self,
        key: RevocationKey,
        revocation: Revocation,
    ) -> Result<Receipt, BackendError> {
        let mut receipt = self.backends.revocations.revoke(key, revocation).await?;
        if receipt.nodes.missing.is_empty() {
            return Ok(receipt);
        }
        match self.backends.nodes.list().await {
            Ok(live) => receipt.nodes.name(&live),
            // Only the names are missing, so the receipt is still correct.
            Err(error) => debug!(error = %error, "nodes not named"),
        }
        Ok(receipt)
    }
}
