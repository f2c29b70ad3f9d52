//! One gateway process: the connection between the hub and the backend.
//!
//! Owns: admission and refresh of sessions, tickets, the channels requested from the broker,
//! `[[channels]]`, the reads of streams, presence, the handling of the backend's events, removal of
//! records, drain, and the heartbeat for `/livez`.
//! Knows nothing of: sockets, frames, signatures of tokens, policies.
//! Start at [`Node::admit`].

mod admit;
mod anonymous;
mod channels;
mod cleanup;
mod closes;
mod drain;
mod events;
mod flush;
mod history;
mod liveness;
mod metrics;
mod pending_revocations;
mod presence;
mod probe;
mod publish;
mod refresh;
mod revoke;
mod settings;
mod streams;
mod subscription_token;
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
pub use anonymous::address_group;
pub use channels::{
    ChannelConfig, ChannelEntries, ChannelOptions, DataFormat, HistoryConfig, JoinLeave,
    check as check_channels,
};
pub use closes::SessionIdentity;
pub use drain::DrainConfig;
pub use events::{HubEvents, RelayReceiver};
pub use history::{History, count_within};
pub use metrics::{NodeMetrics, RevocationKind};
pub use presence::Departure;
pub use publish::Append;
pub use subscription_token::{SubscriptionToken, SubscriptionTokenError};
pub use subscriptions::{SubscribeOutcome, Wish};

use admit::{Admissions, Turns};
use anonymous::AnonymousSessions;
use cleanup::Cleanup;
use closes::Closes;
use pending_revocations::PendingRevocations;
pub use pending_revocations::ReportError;
use presence::PresenceChanges;
use streams::StreamReads;
use subscriptions::Subscriptions;

/// One gateway process.
#[derive(Debug)]
pub struct Node {
    id: NodeId,
    hub: Arc<Hub>,
    backends: Backends,
    clock: Arc<dyn Clock>,
    metrics: Arc<NodeMetrics>,
    /// Notified when the kinds of revocation change, and when they are settled
    /// ([`Node::is_settled`]).
    kinds_changed: Notify,
    subscriptions: Subscriptions,
    stream_reads: StreamReads,
    cleanup: Cleanup,
    presence: PresenceChanges,
    pending_revocations: PendingRevocations,
    admissions: Admissions,
    turns: Turns,
    anonymous: Arc<AnonymousSessions>,
    closes: Closes,
    draining: AtomicBool,
    refusing: AtomicBool,
    beat_at: Mutex<Instant>,
}

impl Node {
    /// Makes a node and starts its background tasks: removal of records, delayed unsubscription,
    /// retries of revocations, flushers. Call it within a runtime.
    pub fn start(
        id: NodeId,
        hub: Arc<Hub>,
        backends: Backends,
        clock: Arc<dyn Clock>,
        metrics: Arc<NodeMetrics>,
        revocable_claims: &[String],
        max_admissions: usize,
    ) -> Arc<Self> {
        // The kinds count as settled at once, because no session exists yet.
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
            anonymous: Arc::default(),
            closes: Closes::default(),
            kinds_changed: Notify::new(),
            subscriptions: Subscriptions::new(),
            stream_reads: StreamReads::default(),
            cleanup: Cleanup::new(),
            presence: PresenceChanges::new(),
            pending_revocations: PendingRevocations::default(),
            draining: AtomicBool::new(false),
            refusing: AtomicBool::new(false),
            beat_at: Mutex::new(Instant::now()),
        });
        node.spawn(cleanup::run(Arc::clone(&node)));
        node.spawn(presence::run(Arc::clone(&node)));
        node.spawn(subscriptions::run(Arc::clone(&node)));
        node.spawn(streams::fill(Arc::clone(&node)));
        node.spawn(streams::compare_quiet(Arc::clone(&node)));
        node.spawn(pending_revocations::run(Arc::clone(&node)));
        flush::start(&node);
        node
    }

    /// The id of this run of the node.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The sessions of this node.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// The state shared with other nodes.
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

    /// Returns true while the node leaves service.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Returns true if new sessions are refused.
    pub fn is_refusing(&self) -> bool {
        self.refusing.load(Ordering::Relaxed)
    }

    /// Spawns a task of the node.
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(tokio::spawn(env::task(task)));
    }
}

#[cfg(test)]
mod tests;
