//! A channel with a stream: the interplay of recovery and live delivery.
//!
//! The model has two servers, the first primary and its asynchronous replica, each with the
//! channel's stream. It has one node, with a link, a window, at most one read under way and the
//! subscriptions of its sessions. Clients subscribe with any position that some client has
//! received. The control protocol belongs to the other model. In this model a heartbeat renews the
//! lease, and finds a revocation that was written before the heartbeat. A push may find a
//! revocation sooner. A new generation or a null push notifies the node of a loss.
//!
//! A search has at most three publications and two sessions. Each of these events occurs at most
//! once, and no search has all of them: a cut, a loss on a link that stays up, a `FLUSHALL`, a
//! failover, a deletion, an eviction, a late answer, a revocation. A policy allows all sessions or
//! none. The model leaves out the fence and the idempotency keys of publications, presence, TTLs,
//! resharding, a `since` that no client has received, and two calls that publish on one connection.
//! A read returns all stored publications.
//!
//! The checks compare the frames of a client with the channel's publications when the frames are
//! written. Each position carries the number of its history (`line`), which no part of the system
//! can read. Two positions with the same epoch and offset are the same position only if their lines
//! are equal.

mod actions;
mod events;
mod model;
mod node;
mod properties;
mod rules;
mod server;
mod state;
mod subscription;
mod window;

pub use actions::StreamAction;
pub use model::Streams;
pub use rules::StreamRules;
pub use server::{Answer, Link, Position, Push, Server as StreamServer, Stream};
pub use state::{ChannelNode, Read, StreamBounds, StreamEvents, StreamState};
pub use subscription::{Client, Faults, Queued, Stage as SubscriptionStage, Subscription};
pub use window::Window;
