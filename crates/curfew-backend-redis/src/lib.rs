//! The backend over Redis: any number of nodes share sessions, publications and revocations.
//!
//! Owns: what is written to Redis and what is read from it, every connection to it, and the
//! protocol by which a node knows every revocation in time or falls silent.
//! Knows nothing of: sockets, WebSocket protocols, JWTs, policies.
//! Start at [`Redis::start`]; the heart of it is `control.rs`.

mod backoff;
mod broker;
mod compare;
mod connect;
mod control;
mod core;
mod envelope;
mod fault;
mod fence;
mod funnel;
mod inbox;
mod keys;
mod layout;
mod links;
mod metrics;
mod nodes;
mod op;
pub mod parsers;
mod probe;
mod pulse;
mod records;
mod revocations;
mod room;
mod sessions;
mod slots;
mod span;
mod subscriber;
mod tickets;

use std::fmt;
use std::sync::Arc;

use curfew_backend::{Backends, Config, Events, LocalSessions, NodeInfo, RedisUrlError};
use curfew_model::{Clock, Gate};
use tokio::sync::mpsc;
use tracing::warn;

use crate::connect::Connector;
use crate::control::{Control, Seen};
use crate::core::Core;
use crate::inbox::Inbox;
use crate::links::Links;
use crate::op::{MAX_OPS, Ops};

pub use crate::connect::{Dial, Dialing, Stream};
pub use crate::metrics::{BackendDropReason, BrokerError, RedisCommand, RedisMetrics};
pub use crate::probe::{Probed, probe};

/// What a backend is given of its node.
pub struct Parts {
    /// `[backend]`.
    pub config: Config,
    /// How the node is listed.
    pub info: NodeInfo,
    /// What is told of news.
    pub events: Arc<dyn Events>,
    /// What is asked about sessions.
    pub local: Arc<dyn LocalSessions>,
    /// Opened while the node vouches for its sessions; shut at first.
    pub gate: Arc<Gate>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// What is counted into.
    pub metrics: Arc<RedisMetrics>,
}

/// The backend over Redis: all five traits.
pub struct Redis {
    core: Arc<Core>,
    links: Arc<Links>,
    inbox: Arc<Inbox>,
    seen: Arc<Seen>,
    ops: Ops,
    info: NodeInfo,
}

impl Redis {
    /// Starts to connect, and goes on for as long as it takes: until it is in touch, everything
    /// fails with [`BackendError::Unavailable`](curfew_backend::BackendError). Must be called
    /// within a runtime.
    pub fn start(parts: Parts) -> Result<Arc<Self>, RedisUrlError> {
        Self::start_over(parts, None)
    }

    /// Likewise, over connections that `dial` makes, if it is given.
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
            parts.gate,
            parts.clock,
            parts.metrics,
        );
        let (ops, asked) = mpsc::channel(MAX_OPS);
        let inbox = Inbox::new(Arc::clone(&core), ops.clone());
        let links = Links::new(Arc::clone(&core), Arc::clone(&inbox));
        let seen = Arc::new(Seen::default());
        let redis = Arc::new(Self {
            core: Arc::clone(&core),
            links: Arc::clone(&links),
            inbox,
            seen: Arc::clone(&seen),
            ops,
            info: parts.info,
        });
        if let Err(error) = pulse::keep(Arc::clone(&core)) {
            warn!(error = %error, "short stops of this process go unnoticed");
        }
        core.spawn(Control::new(Arc::clone(&core), links, seen, asked).run());
        core.spawn(control::watch_isolation(Arc::clone(&core)));
        core.spawn(links::watch_layout(Arc::clone(&redis.links)));
        core.spawn(nodes::keep_registered(Arc::clone(&redis)));
        core.spawn(compare::keep_tidy(Arc::clone(&redis)));
        core.spawn(nodes::reap(Arc::clone(&redis)));
        Ok(redis)
    }

    /// The backend's five faces.
    pub fn backends(self: &Arc<Self>) -> Backends {
        Backends {
            broker: Arc::clone(self) as _,
            sessions: Arc::clone(self) as _,
            revocations: Arc::clone(self) as _,
            nodes: Arc::clone(self) as _,
            tickets: Arc::clone(self) as _,
        }
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
