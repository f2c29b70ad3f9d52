//! The backend inside the process, for one node.
//!
//! `make_room` and `relay` wait for the node's answer. Every other future is ready when it is
//! created, and a publication has fanned out when `publish` returns. No data outlives the process.

mod presence;
mod revocations;
mod sessions;
mod streams;
mod tickets;

use std::fmt;
use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use curfew_model::{Channel, Clock, NodeId, Publication, boottime};
use parking_lot::Mutex;

use crate::{BackendError, Backends, BoxFuture, Broker, Events, NodeInfo, Nodes, Relay, Relayed};
use presence::PresenceStore;
use revocations::Book;
use sessions::Inventory;
use streams::StreamStore;
use tickets::Kept;

/// The in-memory backend: all eight traits over the state of one node.
pub struct Memory {
    node: Mutex<NodeInfo>,
    clock: Arc<dyn Clock>,
    events: Arc<dyn Events>,
    prefix: String,
    inventory: Inventory,
    streams: StreamStore,
    presence: PresenceStore,
    book: Book,
    kept: Kept,
}

impl Memory {
    /// Creates an empty backend. The list of nodes contains only `node`, with the backend's own
    /// count of sessions. `prefix` is `backend.redis.prefix`, for the keys in receipts and lists.
    pub fn new(
        node: NodeInfo,
        clock: Arc<dyn Clock>,
        events: Arc<dyn Events>,
        prefix: String,
    ) -> Arc<Self> {
        Arc::new(Self {
            node: Mutex::new(node),
            clock,
            events,
            prefix,
            inventory: Inventory::default(),
            streams: StreamStore::default(),
            presence: PresenceStore::default(),
            book: Book::default(),
            kept: Kept::default(),
        })
    }

    /// The backend as its traits.
    pub fn backends(self: &Arc<Self>) -> Backends {
        Backends::of(self)
    }

    /// Sets the node's address in the list of nodes. The address is known only once the listener is
    /// bound.
    pub fn set_address(&self, address: impl Into<String>) {
        self.node.lock().address = address.into();
    }
}

impl Broker for Memory {
    /// Does nothing, because the node receives the publications of every channel.
    fn subscribe<'a>(&'a self, _: &'a Channel) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(Done)
    }

    fn unsubscribe<'a>(&'a self, _: &'a Channel) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(Done)
    }

    /// Fans out the publication before the call returns, so that publications keep the order of the
    /// calls.
    fn publish(
        &self,
        publication: Publication,
        until: Duration,
    ) -> BoxFuture<'_, Result<(), BackendError>> {
        if is_over(until) {
            return Box::pin(ready(Err(BackendError::unavailable(LEASE_OVER))));
        }
        self.events.publication(&publication);
        Box::pin(Done)
    }
}

impl Relay for Memory {
    /// Accepts only a message to this node itself, because there is no other node.
    fn relay(
        &self,
        node: NodeId,
        message: Bytes,
    ) -> BoxFuture<'_, Result<Option<Relayed>, BackendError>> {
        if node != self.node.lock().node {
            return Box::pin(ready(Ok(None)));
        }
        let taken = self.events.relayed(message);
        Box::pin(async move { Ok(Some(taken.await)) })
    }
}

impl Nodes for Memory {
    fn list(&self) -> BoxFuture<'_, Result<Vec<NodeInfo>, BackendError>> {
        let mut node = self.node.lock().clone();
        node.sessions = self.inventory.count(self.clock.now()) as u64;
        Box::pin(ready(Ok(vec![node])))
    }

    fn note_channels(&self, digest: Option<String>) {
        self.node.lock().channels = digest;
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

/// The cause in the error for a publication that comes after the end of its lease.
const LEASE_OVER: &str = "the lease is over";

/// True if a lease that ends at `until` ([`boottime`]) is over. `Duration::MAX` stands for a lease
/// that never ends.
fn is_over(until: Duration) -> bool {
    until != Duration::MAX && until <= boottime()
}

/// A future that succeeds when it is first polled. The type has size zero, so boxing it allocates
/// nothing.
struct Done;

impl Future for Done {
    type Output = Result<(), BackendError>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
