//! Revocations that identity providers report. A provider reports each revocation once, so a
//! revocation that cannot be written is stored and retried.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use curfew_backend::{BackendError, Receipt, Revoked};
use curfew_model::{Revocation, RevocationKey};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::{self, Instant};
use tracing::{debug, error, info, warn};

use crate::Node;

/// Maximum number of revocations that are being written, or wait to be written, at a time. Further
/// revocations are refused.
const MAX_WAITING: usize = 10_000;

/// Time for which a revocation is retried.
const PATIENCE: Duration = Duration::from_secs(600);

/// Pause before the waiting revocations are written again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Reason why a reported revocation is not in force everywhere.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// Too many revocations wait to be written.
    #[error("too many revocations wait to be written")]
    Full,
    /// The backend failed.
    #[error("write the revocation")]
    Backend(#[source] BackendError),
}

/// Revocations that wait to be written. They are already in force on this node.
#[derive(Debug, Default)]
pub(crate) struct PendingRevocations {
    waiting: Mutex<HashMap<RevocationKey, Waiting>>,
    /// A copy of the map's size, so that admissions need not lock the map while it is empty.
    count: AtomicUsize,
    added: Notify,
}

#[derive(Debug, Clone)]
struct Waiting {
    revocation: Revocation,
    until: Instant,
}

impl Node {
    /// Puts a reported revocation in force. The sessions that the revocation covers on this node
    /// end at once. Writing continues even if the caller stops waiting.
    ///
    /// # Errors
    ///
    /// [`ReportError::Backend`]: the write is retried for ten minutes while the node runs. During
    /// this time, this node admits no session that the revocation covers. [`ReportError::Full`]:
    /// nothing is done.
    pub async fn revoke_reported(
        self: &Arc<Self>,
        key: RevocationKey,
        revocation: Revocation,
    ) -> Result<Receipt, ReportError> {
        // The revocation is added first, so that a concurrent admission finds it. If a revocation
        // of this key already waits, the two are merged, and the merged revocation is written.
        let Some(revocation) = self.pending_revocations.add(&key, &revocation) else {
            error!(
                kind = key.kind(),
                "too many revocations wait to be written, a new one is refused"
            );
            self.metrics.revocations_lost.inc();
            return Err(ReportError::Full);
        };
        self.note_unwritten();
        let (told, written) = oneshot::channel();
        let node = Arc::clone(self);
        self.spawn(async move {
            let written = revocation.clone();
            let result = node.revoke_or_end_here(key.clone(), revocation).await;
            match &result {
                Ok(_) => node.pending_revocations.remove(&key, &written),
                Err(error) => {
                    warn!(kind = key.kind(), error = %error, "the revocation could not be written, will retry");
                    node.pending_revocations.added.notify_one();
                }
            }
            node.note_unwritten();
            // The caller may have stopped waiting.
            drop(told.send(result));
        });
        let gone = || BackendError::unavailable("the node is stopping");
        let written = written.await.unwrap_or_else(|_| Err(gone()));
        written.map_err(ReportError::Backend)
    }

    /// Puts a revocation in force. If the backend cannot be reached, only ends the sessions that
    /// the revocation covers on this node. This is for callers that can repeat the request.
    ///
    /// # Errors
    ///
    /// The backend is unavailable, and nothing is written.
    pub async fn revoke_or_end_here(
        &self,
        key: RevocationKey,
        revocation: Revocation,
    ) -> Result<Receipt, BackendError> {
        // The sessions that the key may name are suspended at once. Sessions that the revocation
        // does not cover continue after the backend has answered.
        let _held = self.hub.suspend(&key);
        let written = self.revoke(key.clone(), revocation.clone()).await;
        written.inspect_err(|_| {
            let revoked = self.hub.revoke(&key, &revocation);
            self.metrics.revocation_applied(key.kind(), &revoked);
        })
    }

    fn note_unwritten(&self) {
        // The gauge is set while the map is locked. Otherwise a concurrent call could overwrite the
        // latest size with an older one.
        let waiting = self.pending_revocations.waiting.lock();
        let count = i64::try_from(waiting.len()).unwrap_or(i64::MAX);
        self.metrics.revocations_unwritten.set(count);
    }

    /// The number of revocations that wait to be written.
    pub(crate) fn unwritten(&self) -> usize {
        self.pending_revocations.count.load(Ordering::Acquire)
    }
}

impl PendingRevocations {
    /// Stores a revocation, merged with a revocation that waits under the same key. Returns the
    /// merged revocation, or `None` if [`MAX_WAITING`] revocations already wait.
    fn add(&self, key: &RevocationKey, revocation: &Revocation) -> Option<Revocation> {
        let mut waiting = self.waiting.lock();
        let merged = match waiting.get(key) {
            Some(there) => there.revocation.merge(revocation.clone()),
            None if waiting.len() >= MAX_WAITING => return None,
            None => revocation.clone(),
        };
        let entry = Waiting {
            revocation: merged.clone(),
            until: Instant::now() + PATIENCE,
        };
        waiting.insert(key.clone(), entry);
        // The size is stored under the lock, so that concurrent changes leave the latest size.
        self.count.store(waiting.len(), Ordering::Release);
        Some(merged)
    }

    /// Removes a written revocation, unless another revocation was merged into it meanwhile.
    fn remove(&self, key: &RevocationKey, written: &Revocation) {
        let mut waiting = self.waiting.lock();
        if waiting
            .get(key)
            .is_some_and(|there| there.revocation == *written)
        {
            waiting.remove(key);
        }
        self.count.store(waiting.len(), Ordering::Release);
    }

    /// The first waiting revocation, in the order of `keys`, that covers a token issued at
    /// `issued_at`.
    pub(crate) fn check(&self, keys: &[RevocationKey], issued_at: Option<u64>) -> Option<Revoked> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let waiting = self.waiting.lock();
        keys.iter().find_map(|key| {
            let revocation = &waiting.get(key)?.revocation;
            revocation.covers(issued_at).then(|| Revoked {
                key: key.clone(),
                revocation: revocation.clone(),
            })
        })
    }

    fn all(&self) -> Vec<(RevocationKey, Waiting)> {
        let waiting = self.waiting.lock();
        waiting
            .iter()
            .map(|(key, waiting)| (key.clone(), waiting.clone()))
            .collect()
    }
}

/// Writes waiting revocations for the lifetime of the runtime.
pub(crate) async fn run(node: Arc<Node>) {
    loop {
        node.pending_revocations.added.notified().await;
        while node.unwritten() > 0 {
            // `revoke_reported` may write a new revocation at the same time, which is harmless
            // because writes are idempotent.
            time::sleep(RETRY_DELAY).await;
            for (key, waiting) in node.pending_revocations.all() {
                write(&node, key, waiting).await;
            }
            node.note_unwritten();
        }
    }
}

async fn write(node: &Node, key: RevocationKey, waiting: Waiting) {
    let kind = key.kind();
    let revocation = waiting.revocation.clone();
    match node.revoke(key.clone(), revocation).await {
        Ok(receipt) => {
            info!(
                kind,
                live = receipt.nodes.live,
                confirmed = receipt.nodes.confirmed,
                missing = ?receipt.nodes.missing,
                names = ?receipt.nodes.names,
                closed = receipt.closed,
                "the waiting revocation was written"
            );
            node.pending_revocations.remove(&key, &waiting.revocation);
        }
        Err(error) if waiting.until <= Instant::now() => {
            error!(kind, error = %error, "the waiting revocation could not be written and is given up");
            node.metrics.revocations_lost.inc();
            node.pending_revocations.remove(&key, &waiting.revocation);
        }
        Err(error) => {
            debug!(kind, error = %error, "the waiting revocation could not be written yet")
        }
    }
}
