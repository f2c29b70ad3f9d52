//! Revocations that an identity provider reports. It does so once: what cannot be written at the
//! moment is kept and tried again.

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

/// Revocations that may be written at a time, or wait for that; more are turned away.
const MAX_WAITING: usize = 10_000;

/// How long one is tried.
const PATIENCE: Duration = Duration::from_secs(600);

/// Wait after a failure.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The reasons for which a report is not in force everywhere.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// Too many wait to be written.
    #[error("too many revocations wait to be written")]
    Full,
    /// The backend failed.
    #[error("write the revocation")]
    Backend(#[source] BackendError),
}

/// What waits to be written: in force on this node all the same.
#[derive(Debug, Default)]
pub(crate) struct PendingRevocations {
    waiting: Mutex<HashMap<RevocationKey, Waiting>>,
    /// So that an admission need not take the lock.
    count: AtomicUsize,
    added: Notify,
}

#[derive(Debug, Clone)]
struct Waiting {
    revocation: Revocation,
    until: Instant,
}

impl Node {
    /// Puts a revocation in force that nobody will report again. What it names here ends at once;
    /// writing it goes on when the caller does not wait for it.
    ///
    /// # Errors
    ///
    /// [`ReportError::Backend`]: it is written as soon as that is possible, for ten minutes and as long
    /// as the node lives, and no user it covers is admitted here meanwhile. [`ReportError::Full`]: nothing
    /// was done.
    pub async fn revoke_reported(
        self: &Arc<Self>,
        key: RevocationKey,
        revocation: Revocation,
    ) -> Result<Receipt, ReportError> {
        // First of all: an admission that is under way must find it. With what waited already: the one
        // that is written takes the place of both.
        let Some(revocation) = self.pending_revocations.add(&key, &revocation) else {
            error!(
                kind = key.kind(),
                "too many revocations wait to be written, one is turned away"
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
                    warn!(kind = key.kind(), error = %error, "revocation not written, will retry");
                    node.pending_revocations.added.notify_one();
                }
            }
            node.note_unwritten();
            // Whoever reported it may have hung up.
            drop(told.send(result));
        });
        let gone = || BackendError::unavailable("the node is stopping");
        let written = written.await.unwrap_or_else(|_| Err(gone()));
        written.map_err(ReportError::Backend)
    }

    /// Puts a revocation in force, if the backend can be reached; what it names here ends in any
    /// case. For whoever can be told to try again.
    ///
    /// # Errors
    ///
    /// The backend is away: nothing was written.
    pub async fn revoke_or_end_here(
        &self,
        key: RevocationKey,
        revocation: Revocation,
    ) -> Result<Receipt, BackendError> {
        // Held back at once; what is not named after all goes on when the backend has answered.
        let _held = self.hub.suspend(&key);
        let written = self.revoke(key.clone(), revocation.clone()).await;
        written.inspect_err(|_| {
            let closed = self.hub.revoke(&key, &revocation).len();
            self.metrics.revocation_applied(key.kind(), closed as u64);
        })
    }

    fn note_unwritten(&self) {
        let count = i64::try_from(self.unwritten()).unwrap_or(i64::MAX);
        self.metrics.revocations_unwritten.set(count);
    }

    /// How many revocations wait to be written.
    pub(crate) fn unwritten(&self) -> usize {
        self.pending_revocations.count.load(Ordering::Acquire)
    }
}

impl PendingRevocations {
    /// Keeps a revocation; where there is one of its key already, whatever covers more of both.
    /// Returns what is kept; `None` when there is no room.
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
        self.count.store(waiting.len(), Ordering::Release);
        Some(merged)
    }

    /// It was written, unless it has become another meanwhile.
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

    /// The first of `keys` under which something that waits covers a token issued at `issued_at`.
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

/// Writes what waits, for as long as the runtime lives.
pub(crate) async fn run(node: Arc<Node>) {
    loop {
        node.pending_revocations.added.notified().await;
        while node.unwritten() > 0 {
            // What has just come is being written by whoever brought it, as well: that is harmless.
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
                "revocation written after all"
            );
            node.pending_revocations.remove(&key, &waiting.revocation);
        }
        Err(error) if waiting.until <= Instant::now() => {
            error!(kind, error = %error, "revocation never written, given up");
            node.metrics.revocations_lost.inc();
            node.pending_revocations.remove(&key, &waiting.revocation);
        }
        Err(error) => debug!(kind, error = %error, "revocation not written yet"),
    }
}
