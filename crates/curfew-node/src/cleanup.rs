//! Removal of session records.
//!
//! A session may end where nothing can be awaited (a panic, an aborted task), so the end of a
//! session only queues the removal of the session's record. A task removes the records in batches,
//! and retries while the backend is unavailable. The number of sessions bounds the queue.

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

/// Number of records removed in one call to the backend.
const BATCH: usize = 512;

/// Pause before records that could not be removed are tried again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Cleanup {
    waiting: Mutex<Vec<ClosedSession>>,
    /// Number of records not yet removed, in the queue or in a running call.
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
        // The record is counted before it is queued, so that `is_done` is never true while a record
        // waits.
        self.left.fetch_add(1, Ordering::SeqCst);
        self.waiting.lock().push(session);
        self.added.notify_one();
    }

    /// Logs the failures since the last log line, once the interval of that line is over.
    pub(crate) fn tell_rest(&self) {
        if let Some((failures, error)) = self.failures.rest() {
            self.warn_of(failures, &error);
        }
    }

    fn warn_of(&self, failures: u64, error: &BackendError) {
        let sessions = self.left.load(Ordering::SeqCst);
        warn!(sessions, failures, error = %error, "session records could not be removed, will retry");
    }

    pub(crate) fn is_done(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }

    fn take(&self) -> Vec<ClosedSession> {
        let mut waiting = self.waiting.lock();
        let from = waiting.len().saturating_sub(BATCH);
        let batch = waiting.split_off(from);
        if waiting.is_empty() {
            // Frees the memory that a long queue has used.
            *waiting = Vec::new();
        }
        batch
    }
}

/// Removes records for the lifetime of the runtime.
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
