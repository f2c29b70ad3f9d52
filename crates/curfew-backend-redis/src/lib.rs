//! The backend over Redis: any number of nodes share sessions, publications and revocations.
//!
//! Owns: all data in Redis, every connection to Redis, and the protocol that ensures that a node
//! delivers nothing while it cannot learn of every revocation in time.
//! Knows nothing of: sockets, WebSocket protocols, JWTs, policies.
//! Start at [`Redis::start`]; the revocation protocol is in `control.rs`.
//!
//! ```
//! use bytes::Bytes;
//! use curfew_backend_redis::parsers::{decode, encode};
//! use curfew_model::{Channel, Publication};
//!
//! let room = Channel::parse("room:1")?;
//! let sent = Publication {
//!     channel: room.clone(),
//!     data: Bytes::from_static(br#"{"text":"hello"}"#),
//!     from: None,
//!     sender: None,
//!     is_binary: false,
//!     entry: None,
//!     trace: None,
//! };
//! let envelope = encode(&sent).to_vec();
//! let received = decode(room, envelope).expect("an envelope of our own is read");
//! assert_eq!(received.data, sent.data);
//! # Ok::<(), curfew_model::ChannelError>(())
//! ```

mod backoff;
mod batcher;
mod broker;
mod channels;
mod compare;
mod config;
mod connect;
mod connections;
mod control;
mod core;
mod envelope;
mod fault;
mod fence;
mod inbox;
mod keys;
mod layout;
mod liveness;
mod metrics;
mod nodes;
pub mod parsers;
mod presence;
mod probe;
mod records;
mod relay;
mod request;
mod revocations;
mod room;
mod sessions;
mod slots;
mod span;
mod streams;
mod subscriber;
mod tickets;

use std::fmt;
use std::sync::Arc;

use curfew_backend::{Backends, Events, LocalSessions, NodeInfo};
use curfew_model::{Clock, DeliveryLease};
use tokio::sync::mpsc;
use tracing::warn;

use crate::connect::Connector;
use crate::connections::Connections;
use crate::control::{Control, KnownRevocations};
use crate::core::Core;
use crate::inbox::Inbox;
use crate::request::{ControlRequests, MAX_REQUESTS};

pub use crate::config::{
    OnDataLoss, RedisAddress, RedisBackendConfig, RedisConfig, RedisServer, RedisTarget, RedisUrl,
    RedisUrlError,
};
pub use crate::connect::{Dial, Dialing, Stream};
pub use crate::metrics::{BackendDropReason, BrokerError, RedisCommand, RedisMetrics};
pub use crate::probe::{Probed, probe};

/// The parts of a node that a backend needs.
pub struct Parts {
    /// The settings of the backend.
    pub config: RedisBackendConfig,
    /// The node's entry in the list of nodes.
    pub info: NodeInfo,
    /// The receiver of events: publications, revocations, changes of the lease.
    pub events: Arc<dyn Events>,
    /// The node's sessions. The backend reads their keys, records and presence entries.
    pub local: Arc<dyn LocalSessions>,
    /// The node's delivery lease. It is not held at first.
    pub lease: Arc<DeliveryLease>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// The metrics of the backend.
    pub metrics: Arc<RedisMetrics>,
}

/// The backend over Redis. It implements all eight traits of [`Backends`].
pub struct Redis {
    core: Arc<Core>,
    connections: Arc<Connections>,
    inbox: Arc<Inbox>,
    known_revocations: Arc<KnownRevocations>,
    requests: ControlRequests,
    info: NodeInfo,
}

impl Redis {
    /// Starts the backend, which connects to Redis and reconnects for as long as it runs. Until the
    /// first connection, every operation fails with
    /// [`BackendError::Unavailable`](curfew_backend::BackendError). Must be called within a
    /// runtime.
    ///
    /// # Errors
    ///
    /// The URL in the settings is invalid.
    pub fn start(parts: Parts) -> Result<Arc<Self>, RedisUrlError> {
        Self::start_over(parts, None)
    }

    /// Like [`Redis::start`]. If `dial` is given, the backend connects through it instead of over
    /// TCP.
    pub fn start_over(
        parts: Parts,
        dial: Option<Arc<dyn Dial>>,
    ) -> Result<Arc<Self>, RedisUrlError> {
        let server = parts.config.redis.url.parse()?;
        let connector = Connector::new(parts.config.redis.clone(), server, dial);
        let core = Core::new(
            parts.info.node,
            parts.config,
            connector,
            parts.events,
            parts.local,
            parts.lease,
            parts.clock,
            parts.metrics,
        );
        let (requests, asked) = mpsc::channel(MAX_REQUESTS);
        let inbox = Inbox::new(Arc::clone(&core), requests.clone());
        let connections = Connections::new(Arc::clone(&core), Arc::clone(&inbox));
        let known_revocations = Arc::new(KnownRevocations::default());
        let redis = Arc::new(Self {
            core: Arc::clone(&core),
            connections: Arc::clone(&connections),
            inbox,
            known_revocations: Arc::clone(&known_revocations),
            requests,
            info: parts.info,
        });
        if let Err(error) = liveness::keep(Arc::clone(&core)) {
            warn!(error = %error, "short pauses of this process are not detected");
        }
        core.spawn(Control::new(Arc::clone(&core), connections, known_revocations, asked).run());
        core.spawn(control::watch_isolation(Arc::clone(&core)));
        core.spawn(connections::watch_layout(Arc::clone(&redis.connections)));
        core.spawn(nodes::keep_registered(Arc::clone(&redis)));
        core.spawn(compare::keep_tidy(Arc::clone(&redis)));
        core.spawn(nodes::reap(Arc::clone(&redis)));
        core.spawn(presence::sweep(Arc::clone(&redis)));
        Ok(redis)
    }

    /// The backend as one trait object for each of its traits.
    pub fn backends(self: &Arc<Self>) -> Backends {
        Backends::of(self)
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis")
            .field("node", &self.core.node)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}
