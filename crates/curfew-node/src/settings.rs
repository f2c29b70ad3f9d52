//! Settings that change while the node runs, and the sessions that are there already.

use curfew_model::Repeats;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use curfew_backend::OverLimit;
use curfew_hub::Kinds;
use tokio::{task, time};
use tracing::{debug, warn};

use crate::{Channels, Node};

/// Sessions that are found anew in one go, between which other tasks have their turn: a fraction of
/// a millisecond's work.
const STEP: usize = 64;

/// Wait after a comparison that failed.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// What of the configuration the node goes by; replaced as a whole by a reload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeSettings {
    /// `session.revocable_claims`.
    pub revocable_claims: Vec<String>,
    /// `session.max_per_user`; 0 is no limit.
    pub max_per_user: u32,
    /// `session.over_limit`.
    pub over_limit: OverLimit,
    /// `backend.max_admissions`; 0 is no limit. Read at the start only.
    pub max_admissions: usize,
    /// `[[channels]]`.
    pub channels: Channels,
}

impl Node {
    /// The settings in force.
    pub fn settings(&self) -> Arc<NodeSettings> {
        self.settings.load_full()
    }

    /// Puts other settings in force. Sessions that are admitted or refreshed from now on are found
    /// by the kinds of revocation that they name; those that are there already, and those that are
    /// being admitted or refreshed, once [`Node::until_settled`] returns. A later call supersedes an
    /// earlier one.
    pub fn set_settings(self: &Arc<Self>, settings: NodeSettings) {
        let changed = self.hub.set_kinds(&settings.revocable_claims);
        self.settings.store(Arc::new(settings));
        if let Some(kinds) = changed {
            self.kinds_changed.notify_waiters();
            self.spawn(settle(Arc::clone(self), kinds));
        }
    }

    /// Whether every session is found by the settings in force and was compared with the backend by
    /// them.
    pub fn is_settled(&self) -> bool {
        self.hub.is_settled()
    }

    /// Waits until [`Node::is_settled`].
    pub async fn until_settled(&self) {
        self.until(|| self.is_settled()).await;
    }

    /// Waits for what other kinds, or all being settled, make true.
    async fn until(&self, condition: impl Fn() -> bool) {
        loop {
            let mut changed = pin!(self.kinds_changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            if condition() {
                return;
            }
            changed.await;
        }
    }
}

/// Has every session found by `kinds`, then compared, unless others come in force meanwhile.
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
    // Whoever registers later is found by the kinds in force. First of all sessions, then compared:
    // a revocation that is written in between finds them.
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
