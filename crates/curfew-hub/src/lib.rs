//! The local registry of sessions and their subscriptions, and the fan-out to them.
//!
//! Owns: which sessions are on this node, which revocation keys name them, which channels they
//! listen to, the order of each stream and its window of recent publications, and each session's
//! bounded outbound queue. A publication is encoded once for each pair of protocol and transport
//! and each form of its data: whole or as a difference.
//! Knows nothing of: the backend, tokens. A socket is only something that takes bytes without
//! waiting. Never awaits.
//! Start at [`Hub::broadcast`]. Through [`Outbox`], other tasks pass frames and endings to a
//! session's task.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//! use bytes::Bytes;
//! use curfew_hub::{DeliveryPath, Hub, HubLimits, HubMetrics, Lanes, WebSocket, Wire, Wires};
//! use curfew_model::{
//!     Channel, Claims, DeliveryLease, Principal, PrincipalParts, Publication, SessionId, SystemClock,
//! };
//! use curfew_protocol::native::Native;
//! use curfew_telemetry::Registry;
//!
//! let wires = Wires::new(vec![Wire::new(Arc::new(Native), Arc::new(WebSocket))]);
//! let limits = HubLimits {
//!     outbound_bytes: 64 * 1024,
//!     node_outbound_bytes: 0,
//!     window_bytes: 0,
//! };
//! let lease = Arc::new(DeliveryLease::perpetual());
//! let metrics = HubMetrics::register(&Registry::default());
//! let hub = Hub::new(wires, limits, lease, DeliveryPath::Local, metrics);
//!
//! let alice = Arc::new(Principal::new(PrincipalParts {
//!     user: "alice".into(),
//!     issuer: "main".into(),
//!     key_id: None,
//!     token_id: None,
//!     issued_at: None,
//!     expires_at: 4_000_000_000,
//!     leeway: Duration::ZERO,
//!     claims: Claims::from_json("{}"),
//! }));
//! let wire = hub.wires().find("curfew.v1").expect("the hub has this wire");
//! let member = hub.register(SessionId::new(), wire, &SystemClock, alice).0;
//! assert!(member.outbox().open(Lanes::default()));
//!
//! let room = Channel::parse("room:1")?;
//! hub.subscribe(&room, &member);
//! let publication = Publication {
//!     channel: room,
//!     data: Bytes::from_static(b"1"),
//!     from: None,
//!     sender: None,
//!     is_binary: false,
//!     entry: None,
//!     trace: None,
//! };
//! assert_eq!(hub.broadcast(&publication).queued, 1);
//! # Ok::<(), curfew_model::ChannelError>(())
//! ```

mod broadcast;
mod channels;
mod differences;
mod flush;
mod frame_counts;
mod index;
mod kinds;
mod member;
mod metrics;
mod outbox;
mod presence;
mod registry;
mod revoke;
mod streams;
mod wire;

pub use broadcast::Delivered;
pub use channels::ChannelInfo;
pub use frame_counts::FrameCounts;
pub use kinds::Kinds;
pub use member::{Member, Suspension};
pub use metrics::{DeliveryPath, DropReason, HubMetrics, Opcode};
pub use outbox::{Ending, HeldBack, Lanes, Outbox, Progress, Sign, Standing, Undelivered};
pub use registry::{Hub, HubLimits};
pub use revoke::Revoked;
pub use streams::{Deliver, FeedState, Join, Joined, Joining, ReadPart, Subscriber};
pub use wire::{
    Carrier, EventStreamFraming, Framing, HttpStreamFraming, WebSocket, Wire, WireId, Wires,
};

#[cfg(test)]
mod tests;
