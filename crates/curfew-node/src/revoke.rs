//! Revocations that this node writes, and their receipts.

use curfew_backend::{BackendError, Receipt};
use curfew_model::{Revocation, RevocationKey, Spelling};
use tracing::{debug, warn};

use crate::Node;

/// The value of `error.type` on the span of a call whose revocation some live node has not
/// confirmed.
const UNCONFIRMED: &str = "unconfirmed";

impl Node {
    /// Puts a revocation in force. The receipt has the names of the nodes that have not confirmed,
    /// if the names can be read.
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
            Err(error) => {
                debug!(error = %error, "the names of the nodes that have not confirmed could not be read")
            }
        }
        Ok(receipt)
    }

    /// Sets the receipt's numbers on the caller's span, and warns if a node has not confirmed. The
    /// log line has the key with a digest of its value. The line names a user only if spans may
    /// name users.
    pub fn tell_receipt(&self, key: &RevocationKey, receipt: &Receipt) {
        let tracer = self.metrics.tracer();
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let nodes = &receipt.nodes;
        let missing: Vec<String> = nodes.missing.iter().map(ToString::to_string).collect();
        let missing = missing.join(",");
        let user = (key.kind() == "user" && tracer.names_users()).then(|| key.value());
        let mut span = tracer.here();
        span.set("curfew.revocation.kind", key.kind().to_owned());
        span.set("curfew.nodes.live", count(nodes.live));
        span.set("curfew.nodes.confirmed", count(nodes.confirmed));
        span.set("curfew.nodes.missing", missing.clone());
        span.set("curfew.sessions.closed", count(receipt.closed));
        if let Some(user) = &user {
            tracer.name_user(&mut span, user);
        }
        if nodes.missing.is_empty() {
            return;
        }
        span.failed(UNCONFIRMED);
        warn!(
            revocation = key.written(Spelling::Digest),
            user = user.as_deref(),
            live = nodes.live,
            confirmed = nodes.confirmed,
            missing,
            names = ?nodes.names,
            closed = receipt.closed,
            took_ms = receipt.took_ms,
            "a revocation is not confirmed by every node"
        );
    }
}
