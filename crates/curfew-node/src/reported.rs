//! Revocations that an identity provider reports. It does so once: what cannot be written at the
//! moment is kept and tried again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use curfew_backend::{BackendError, Receipt};
use curfew_model::{Revocation, RevocationKey};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{self, Instant};
use tracing::{error, info, warn};

use crate::Node;

/// Revocations that may wait to be written; more are lost, and logged as that.
const MAX_WAITING: usize = 10_000;

/// How long one is tried: providers' tokens that it is about end on their own, sooner or later.
const PATIENCE: Duration = Duration::from_secs(600);

/// Wait after a failure.
const RETRY_DELAY: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct Reported {
    waiting: Mutex<VecDeque<Waiting>>,
    added: Notify,
}

#[derive(Debug)]
struct Waiting {
    key: RevocationKey,
    revocation: Revocation,
    until: Instant,
}

impl Node {
    /// Puts a revocation in force that nobody will report again.
    ///
    /// # Errors
    ///
    /// The backend is away. Sessions of this node that it names have ended all the same; it is
    /// written as soon as that is possible, for ten minutes and as long as the node lives.
    pub async fn revoke_reported(
        &self,
        key: RevocationKey,
        revocation: Revocation,
    ) -> Result<Receipt, BackendError> {
        let revocations = &self.backends.revocations;
        let error = match revocations.revoke(key.clone(), revocation.clone()).await {
            Ok(receipt) => return Ok(receipt),
            Err(error) => error,
        };
        let closed = self.hub.revoke(&key, &revocation).len();
        self.metrics.revocation_applied(key.kind(), closed as u64);
        let mut waiting = self.reported.waiting.lock();
        if waiting.len() >= MAX_WAITING {
            error!(kind = key.kind(), error = %error, "too many revocations wait to be written, one is lost");
            return Err(error);
        }
        warn!(kind = key.kind(), closed, error = %error, "revocation not written, will retry");
        waiting.push_back(Waiting {
            key,
            revocation,
            until: Instant::now() + PATIENCE,
        });
        drop(waiting);
        self.reported.added.notify_one();
        Err(error)
    }
}

/// Writes what waits, for as long as the runtime lives.
pub(crate) async fn run(node: Arc<Node>) {
    loop {
        node.reported.added.notified().await;
        loop {
            let next = node.reported.waiting.lock().pop_front();
            let Some(next) = next else { break };
            let kind = next.key.kind().to_owned();
            let revocations = &node.backends.revocations;
            match revocations
                .revoke(next.key.clone(), next.revocation.clone())
                .await
            {
                Ok(receipt) => info!(
                    kind,
                    live = receipt.nodes.live,
                    confirmed = receipt.nodes.confirmed,
                    closed = receipt.closed,
                    "revocation written after all"
                ),
                Err(error) if next.until <= Instant::now() => {
                    error!(kind, error = %error, "revocation never written, given up");
                }
                Err(_) => {
                    node.reported.waiting.lock().push_front(next);
                    time::sleep(RETRY_DELAY).await;
                }
            }
        }
    }
}
