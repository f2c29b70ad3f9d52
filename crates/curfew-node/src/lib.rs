//! One gateway process: what connects the hub to the backend.
//!
//! Owns: admission and refresh of sessions, tickets, which channels the broker is asked for, what becomes
//! of the backend's events, clean-up of records, drain, the sign of life.
//! Knows nothing of: sockets, frames, tokens' signatures, policies.
//! Start at [`Node::admit`].

mod admit;
mod cleanup;
mod closes;
mod drain;
mod events;
mod flush;
mod liveness;
mod metrics;
mod pending_revocations;
mod probe;
mod publish;
mod refresh;
mod revoke;
mod settings;
mod subscriptions;
mod tickets;
mod withdrawal;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use curfew_backend::Backends;
use curfew_hub::Hub;
use curfew_model::{Clock, NodeId, env};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

pub use admit::{AdmitError, Attachment, UserLimit};
pub use closes::SessionIdentity;
pub use drain::DrainConfig;
pub use events::HubEvents;
pub use metrics::{NodeMetrics, RevocationKind};

use admit::{Admissions, Turns};
use cleanup::Cleanup;
use closes::Closes;
use pending_revocations::PendingRevocations;
pub use pending_revocations::ReportError;
use subscriptions::Subscriptions;

/// One gateway process.
#[derive(Debug)]
pub struct Node {
    id: NodeId,
    hub: Arc<Hub>,
    backends: Backends,
    clock: Arc<dyn Clock>,
    metrics: Arc<NodeMetrics>,
    /// Told when other kinds of revocation come in force, and when all is settled for them.
    kinds_changed: Notify,
    subscriptions: Subscriptions,
    cleanup: Cleanup,
    pending_revocations: PendingRevocations,
    admissions: Admissions,
    turns: Turns,
    closes: Closes,
    draining: AtomicBool,
    refusing: AtomicBool,
    beat_at: Mutex<Instant>,
}

impl Node {
    /// Puts a node together and starts its background tasks: clean-up of records, delayed
    /// unsubscription, revocations that could not be written, flushers. Must be called within a runtime.
    /// Sessions are found by `revocable_claims`. At most `max_admissions` (`backend.max_admissions`) are
    /// admitted at once; 0 is no limit.
    pub fn start(
        id: NodeId,
        hub: Arc<Hub>,
        backends: Backends,
        clock: Arc<dyn Clock>,
        metrics: Arc<NodeMetrics>,
        revocable_claims: &[String],
        max_admissions: usize,
    ) -> Arc<Self> {
        // Nobody is here yet who would have to be found by them.
        if let Some(kinds) = hub.set_kinds(revocable_claims) {
            hub.settle(&kinds);
        }
        let node = Arc::new(Self {
            id,
            hub,
            backends,
            clock,
            metrics,
            admissions: Admissions::new(max_admissions),
            turns: Turns::default(),
            closes: Closes::default(),
            kinds_changed: Notify::new(),
            subscriptions: Subscriptions::new(),
            cleanup: Cleanup::new(),
            pending_revocations: PendingRevocations::default(),
            draining: AtomicBool::new(false),
            refusing: AtomicBool::new(false),
            beat_at: Mutex::new(Instant::now()),
        });
        node.spawn(cleanup::run(Arc::clone(&node)));
        node.spawn(subscriptions::run(Arc::clone(&node)));
        node.spawn(pending_revocations::run(Arc::clone(&node)));
        flush::start(&node);
        node
    }

    /// This run's id.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The sessions of this node.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// What is shared with other nodes.
    pub fn backends(&self) -> &Backends {
        &self.backends
    }

    /// The wall clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The metrics of the node.
    pub fn metrics(&self) -> &NodeMetrics {
        &self.metrics
    }

    /// Whether the node is leaving service.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Whether new sessions are refused.
    pub fn is_refusing(&self) -> bool {
        self.refusing.load(Ordering::Relaxed)
    }

    /// Runs a task of the node.
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(tokio::spawn(env::task(task)));
    }
}

#[cfg(test)]
mod tests;
