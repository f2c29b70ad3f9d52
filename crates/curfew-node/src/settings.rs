//! The kinds of revocation, which may change while the node runs. The kinds are settled once every
//! session is indexed by them and compared with the revocations of the backend.

use curfew_model::Repeats;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use curfew_hub::Kinds;
use tokio::{task, time};
use tracing::{debug, warn};

use crate::Node;

/// Number of sessions that are indexed again before other tasks may run. The work takes a fraction
/// of a millisecond.
const STEP: usize = 64;

/// Pause before a failed comparison is repeated.
const RETRY_DELAY: Duration = Duration::from_secs(1);

impl Node {
    /// Puts the claims in `revocable_claims` in force as kinds of revocation, in place of the
    /// previous claims. Revocations of these kinds find sessions that are admitted or refreshed
    /// from now on. Once [`Node::until_settled`] returns, these revocations find all other sessions
    /// too, including sessions that are being admitted or refreshed now. A later call supersedes an
    /// earlier one.
    ///
    /// Kinds are not part of a settings snapshot, because they are in force for all sessions at
    /// once.
    pub fn set_kinds(self: &Arc<Self>, revocable_claims: &[String]) {
        if let Some(kinds) = self.hub.set_kinds(revocable_claims) {
            self.kinds_changed.notify_waiters();
            self.spawn(settle(Arc::clone(self), kinds));
        }
    }

    /// Returns true once every session is indexed by the kinds in force and compared with the
    /// backend's revocations.
    pub fn is_settled(&self) -> bool {
        self.hub.is_settled()
    }

    /// Waits until [`Node::is_settled`] returns true.
    pub async fn until_settled(&self) {
        self.until(|| self.is_settled()).await;
    }

    /// Waits for a condition that changes only with the kinds of revocation or when all sessions
    /// are settled.
    async fn until(&self, condition: impl Fn() -> bool) {
        loop {
            let mut changed = pin!(self.kinds_changed.notified());
            // The notification is enabled before the check, so that no change after the check is
            // missed.
            changed.as_mut().enable();
            if condition() {
                return;
            }
            changed.await;
        }
    }
}

/// Indexes every session by `kinds` and compares each session with the backend's revocations. Stops
/// if other kinds come into force meanwhile.
async fn settle(node: Arc<Node>, kinds: Arc<Kinds>) {
    let superseded = || !Arc::ptr_eq(&node.hub.kinds(), &kinds);
    tokio::select! {
        () = find_and_compare(&node) => {
            node.hub.settle(&kinds);
            node.kinds_changed.notify_waiters();
        }
        () = node.until(superseded) => debug!("the comparison of sessions ends, because the settings have changed again"),
    }
}

async fn find_and_compare(node: &Node) {
    // The registration of a session indexes it by the kinds in force, so only the existing sessions
    // are indexed here. All sessions are indexed before the comparison, so that a revocation
    // written in between finds the sessions.
    for members in node.hub.members().chunks(STEP) {
        for member in members {
            node.hub.rekey(member);
        }
        task::yield_now().await;
    }
    let repeats = Repeats::default();
    while let Err(error) = node.backends.revocations.compare().await {
        if let Some(failures) = repeats.note() {
            warn!(failures, error = %error, "sessions could not be compared with the revocations by the new settings, will retry");
        }
        time::sleep(RETRY_DELAY).await;
    }
}
