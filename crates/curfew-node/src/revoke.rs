//! A revocation by this node, and a receipt for people: with names beside ids.

use curfew_backend::{BackendError, Receipt};
use curfew_model::{Revocation, RevocationKey};
use tracing::debug;

use crate::Node;

impl Node {
    /// Puts a revocation in force; the receipt has the names of the nodes that are missing.
    ///
    /// # Errors
    ///
    /// The backend is away, or what became of it is not known.
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
            // The receipt is true without them.
            Err(error) => debug!(error = %error, "nodes not named"),
        }
        Ok(receipt)
    }
}
