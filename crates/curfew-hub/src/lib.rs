//! The local registry of sessions and their subscriptions, and the fan-out to them.
//!
//! Owns: which sessions live on this node, which revocation keys name them, which channels they
//! listen to, the order and the windows of streams, and each session's bounded outbound queue. A
//! publication is encoded once for each pair of protocol and transport.
//! Knows nothing of: the backend, tokens. It knows sockets only as things that may accept a write
//! at once. Never awaits.
//! Start at [`Hub::broadcast`]; [`Outbox`] is where a session's task meets every other task.

mod broadcast;
mod channels;
mod flush;
mod frame_counts;
mod index;
mod kinds;
mod member;
mod metrics;
mod outbox;
mod registry;
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
pub use streams::{Deliver, FeedState, Join, Joined, Joining, ReadPart};
pub use wire::{Framing, WebSocket, Wire, WireId, Wires};

#[cfg(test)]
mod tests;
