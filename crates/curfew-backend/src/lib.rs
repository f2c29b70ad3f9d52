//! The data that nodes share: the backend traits, the in-memory implementation, the conformance
//! suite.
//!
//! Owns: eight small traits through which one node uses the data that nodes share (session records,
//! revocations, publications, streams, presence, tickets, the list of nodes, messages to one node).
//! Knows nothing of: sockets, protocols, tokens, policies.
//! Start at [`Backends`]; [`memory`] shows an implementation in full.
//!
//! ```
//! use std::collections::HashSet;
//! use curfew_backend::ReceiptNodes;
//! use curfew_model::NodeId;
//!
//! let (up, slow) = (NodeId::new(), NodeId::new());
//! let nodes = ReceiptNodes::new([up, slow], &HashSet::from([up]));
//! assert_eq!((nodes.live, nodes.confirmed), (2, 1));
//! assert_eq!(nodes.missing, [slow]);
//! ```

mod broker;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod error;
mod events;
pub mod memory;
mod nodes;
mod presence;
mod relay;
mod revocations;
mod sessions;
mod streams;
mod tickets;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

pub use broker::Broker;
pub use error::BackendError;
pub use events::{Ended, Events, Leaving, LocalSessions, Suspension};
pub use nodes::{NodeInfo, Nodes, Standing};
pub use presence::{Presence, PresenceList};
pub use relay::{RELAY_PATIENCE, Relay, Relayed};
pub use revocations::{Durability, Listed, Receipt, ReceiptNodes, Revocations, Revoked};
pub use sessions::{
    ClosedSession, MAX_PROBED, OpenError, OverLimit, PROBE_PATIENCE, SessionFilter, SessionPage,
    SessionRecord, Sessions,
};
pub use streams::{
    POSITION_LIFETIME, PUBLICATION_KEY_LIFETIME, StreamBounds, StreamPage, StreamRange, Streams,
};
pub use tickets::Tickets;

/// A boxed future. It costs one allocation, which is little compared with a network round trip, and
/// keeps the types that hold a backend free of generics.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The eight traits of one backend. A clone costs eight reference counts.
#[derive(Clone)]
pub struct Backends {
    /// Publications between nodes.
    pub broker: Arc<dyn Broker>,
    /// Streams of channels.
    pub streams: Arc<dyn Streams>,
    /// The sessions subscribed to channels.
    pub presence: Arc<dyn Presence>,
    /// Session records.
    pub sessions: Arc<dyn Sessions>,
    /// Revocations.
    pub revocations: Arc<dyn Revocations>,
    /// The live nodes.
    pub nodes: Arc<dyn Nodes>,
    /// Tickets.
    pub tickets: Arc<dyn Tickets>,
    /// Messages to one node.
    pub relay: Arc<dyn Relay>,
}

impl Backends {
    /// Makes [`Backends`] of one value that implements all eight traits.
    pub fn of<B>(backend: &Arc<B>) -> Self
    where
        B: Broker + Streams + Presence + Sessions + Revocations + Nodes + Tickets + Relay,
    {
        Self {
            broker: Arc::clone(backend) as _,
            streams: Arc::clone(backend) as _,
            presence: Arc::clone(backend) as _,
            sessions: Arc::clone(backend) as _,
            revocations: Arc::clone(backend) as _,
            nodes: Arc::clone(backend) as _,
            tickets: Arc::clone(backend) as _,
            relay: Arc::clone(backend) as _,
        }
    }
}

impl fmt::Debug for Backends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backends").finish_non_exhaustive()
    }
}
