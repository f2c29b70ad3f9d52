//! Settings that change while the node runs, and the sessions that are there already.

use curfew_model::Repeats;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use curfew_hub::Kinds;
use tokio::{task, time};
use tracing::{debug, warn};

use crate::Node;

/// Sessions that are found anew in one go, between which other tasks have their turn: a fraction of
/// a millisecond's work.
const STEP: usize = 64;

/// Wait after a comparison that failed.
const RETRY_DELAY: Duration = Duration::from_secs(1);

impl Node {
    /// Puts other kinds of revocation in force: those of `revocable_claims`. Sessions that are admitted
    /// or refreshed from now on are found by them; those that are there already, and those that are
    /// being admitted or refreshed, once [`Node::until_settled`] returns. A later call supersedes an
    /// earlier one.
    ///
    /// They are no part of a snapshot of settings: they are in force at once for all, and settled later.
    pub fn set_kinds(self: &Arc<Self>, revocable_claims: &[String]) {
        if let Some(kinds) = self.hub.set_kinds(revocable_claims) {
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
