//! What becomes of the backend's news: publications fan out, revocations end sessions.

use std::sync::Arc;

use curfew_backend::Events;
use curfew_hub::{Ending, Hub};
use curfew_model::{Disconnect, Publication, Revocation, RevocationKey, SessionId};
use curfew_telemetry::Metrics;
use tracing::{debug, info};

/// The hub's ear on the backend. Holds no backend, so that there is no cycle.
#[derive(Debug)]
pub struct HubEvents {
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
}

impl HubEvents {
    /// Events for this hub.
    pub fn new(hub: Arc<Hub>, metrics: Arc<Metrics>) -> Self {
        Self { hub, metrics }
    }
}

impl Events for HubEvents {
    fn publication(&self, publication: &Publication) {
        let delivered = self.hub.broadcast(publication);
        self.metrics
            .messages_delivered
            .inc_by(delivered.queued as u64);
        self.metrics
            .fanout_recipients
            .observe(delivered.queued as f64);
    }

    fn revoked(&self, key: &RevocationKey, revocation: &Revocation) -> usize {
        let closed = self.hub.revoke(key, revocation);
        self.metrics.revocation_applied(key.kind(), closed as u64);
        // The value may be a person's name or address: the kind and the count suffice here, the
        // audit line of the admin API has the rest.
        info!(
            kind = key.kind(),
            before = revocation.before,
            closed,
            "revocation applied"
        );
        closed
    }

    fn disconnect(&self, session: SessionId, disconnect: Disconnect) -> bool {
        let Some(member) = self.hub.get(session) else {
            return false;
        };
        let ended = self.hub.end(&member, Ending::new(disconnect));
        debug!(%session, reason = disconnect.reason, ended, "session asked to end");
        true
    }
}
