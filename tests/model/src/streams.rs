//! A channel with a stream: the interplay of recovery and live delivery.
//!
//! The model has two servers, the first primary and its asynchronous replica, each with the
//! channel's stream. It has one node with its link, its window, one read under way and its
//! sessions' subscriptions, and clients that come with any position that some client was told. The
//! control protocol belongs to the other model. Here a heartbeat renews the lease and finds the
//! revocation that was written before it, a push finds it sooner, and a new generation or a null
//! push notifies the node of a loss.
//!
//! A search has at most three publications and two sessions, one cut, one loss on a link that stays
//! up, one `FLUSHALL`, failover, deletion, eviction and late answer, but not all of them at once;
//! one revocation; a policy that allows all sessions or none. The model leaves out the fence and
//! the keys of publications, presence, TTLs, resharding, a `since` that no client was told, and two
//! calls that publish on one connection. A read returns all stored publications.
//!
//! The checks compare a client's frames with its publications when the frames are written. Each
//! position has its line of history, which no part of the system sees. It shows if two positions of
//! the same name are the same.

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
