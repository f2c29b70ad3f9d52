//! Removal of session records.
//!
//! A session may end where nothing can be awaited (a panic, an aborted task), so ending one only
//! puts its id here; a task removes the records, many at a time, and keeps at it while the backend
//! is away. What waits is bounded by how many sessions there were.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use curfew_backend::{BackendError, ClosedSession};
use curfew_model::Repeats;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time;
use tracing::warn;

use crate::Node;

/// Records removed in one call to the backend.
const BATCH: usize = 512;

/// Wait after a failure.
const RETRY_DELAY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Cleanup {
    waiting: Mutex<Vec<ClosedSession>>,
    /// Records not removed yet: those that wait and those the backend is being asked about.
    left: AtomicUsize,
    added: Notify,
    failures: Repeats<BackendError>,
}

impl Cleanup {
    pub(crate) fn new() -> Self {
        Self {
            waiting: Mutex::default(),
            left: AtomicUsize::new(0),
            added: Notify::new(),
            failures: Repeats::default(),
        }
    }

    pub(crate) fn add(&self, session: ClosedSession) {
        self.left.fetch_add(1, Ordering::SeqCst);
        self.waiting.lock().push(session);
        self.added.notify_one();
    }

    /// Tells of failures that no line has told, where the interval of the last one is over.
    pub(crate) fn tell_rest(&self) {
        if let Some((failures, error)) = self.failures.rest() {
            self.warn_of(failures, &error);
        }
    }

    fn warn_of(&self, failures: u64, error: &BackendError) {
        let sessions = self.left.load(Ordering::SeqCst);
        warn!(sessions, failures, error = %error, "session records not removed, will retry");
    }

    pub(crate) fn is_done(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }

    fn take(&self) -> Vec<ClosedSession> {
        let mut waiting = self.waiting.lock();
        let from = waiting.len().saturating_sub(BATCH);
        let batch = waiting.split_off(from);
        if waiting.is_empty() {
            // A storm's worth of memory is not kept.
            *waiting = Vec::new();
        }
        batch
    }
}

/// Removes records for as long as the runtime lives.
pub(crate) async fn run(node: Arc<Node>) {
    loop {
        node.cleanup.added.notified().await;
        loop {
            let batch = node.cleanup.take();
            if batch.is_empty() {
                break;
            }
            match node.backends.sessions.close(&batch).await {
                Ok(()) => {
                    node.cleanup.left.fetch_sub(batch.len(), Ordering::SeqCst);
                }
                Err(error) => {
                    if let Some((failures, error)) = node.cleanup.failures.note_event(error) {
                        node.cleanup.warn_of(failures, &error);
                    }
                    node.cleanup.waiting.lock().extend(batch);
                    time::sleep(RETRY_DELAY).await;
                }
            }
        }
    }
}
