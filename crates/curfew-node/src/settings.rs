//! Settings that change while the node runs, and their effect on existing sessions.

use curfew_model::Repeats;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use curfew_backend::OverLimit;
use curfew_hub::Kinds;
use tokio::{task, time};
use tracing::{debug, warn};

use crate::{Channels, Node};

/// Number of sessions indexed anew before other tasks run: a fraction of a millisecond's work.
const STEP: usize = 64;

/// Pause after a failed comparison.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The configuration of a node, replaced as a whole by a reload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeSettings {
    /// `session.revocable_claims`.
    pub revocable_claims: Vec<String>,
    /// `session.max_per_user`; 0 is no limit.
    pub max_per_user: u32,
    /// `session.over_limit`.
    pub over_limit: OverLimit,
    /// `backend.max_admissions`; 0 is no limit. Read only at start.
    pub max_admissions: usize,
    /// `[[channels]]`.
    pub channels: Channels,
}

impl Node {
    /// The settings in force.
    pub fn settings(&self) -> Arc<NodeSettings> {
        self.settings.load_full()
    }

    /// Puts other settings in force. Sessions admitted or refreshed from now on are found by the
    /// new kinds of revocation. Sessions that exist already, or are being admitted or refreshed,
    /// are found once [`Node::until_settled`] returns. A later call supersedes an earlier one.
    pub fn set_settings(self: &Arc<Self>, settings: NodeSettings) {
        let changed = self.hub.set_kinds(&settings.revocable_claims);
        self.settings.store(Arc::new(settings));
        if let Some(kinds) = changed {
            self.kinds_changed.notify_waiters();
            self.spawn(settle(Arc::clone(self), kinds));
        }
    }

    /// Returns true once every session is indexed by the settings in force and compared with the
    /// backend's revocations.
    pub fn is_settled(&self) -> bool {
        self.hub.is_settled()
    }

    /// Waits until [`Node::is_settled`].
    pub async fn until_settled(&self) {
        self.until(|| self.is_settled()).await;
    }

    /// Waits for a condition that changes only with the kinds of revocation or when all sessions
    /// are settled.
    async fn until(&self, condition: impl Fn() -> bool) {
        loop {
            let mut changed = pin!(self.kinds_changed.notified());
            // Enabled before the check, so that no change after it is missed.
            changed.as_mut().enable();
            if condition() {
                return;
            }
            changed.await;
        }
    }
}

/// Indexes every session by `kinds` and compares it with the backend, unless other kinds come into
/// force meanwhile.
async fn settle(node: Arc<Node>, kinds: Arc<Kinds>) {
    let superseded = || !Arc::ptr_eq(&node.hub.kinds(), &kinds);
    tokio::select! {
        () = find_and_compare(&node) => {
            node.hub.settle(&kinds);
            node.kinds_changed.notify_waiters();
        }
        () = node.until(superseded) => debug!("settings superseded by others"),
    }
}

async fn find_and_compare(node: &Node) {
    // Sessions registered later are indexed by the kinds in force. All are indexed before the
    // comparison, so that a revocation written in between finds them.
    for members in node.hub.members().chunks(STEP) {
        for member in members {
            node.hub.rekey(member);
        }
        task::yield_now().await;
    }
    let repeats = Repeats::default();
    while let Err(error) = node.backends.revocations.compare().await {
        if let Some(failures) = repeats.note() {
            warn!(failures, error = %error, "sessions not compared by the new settings, will retry");
        }
        time::sleep(RETRY_DELAY).await;
    }
}
