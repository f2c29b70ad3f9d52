//! A channel with a stream, and how recovery meets live delivery.
//!
//! Two servers, the first primary and its asynchronous replica, each with the channel's stream; one
//! node with its link, its window, one read under way and its sessions' subscriptions; clients who
//! come with any position that a client was told. The control protocol is the other model's: here a
//! heartbeat renews the lease and finds the revocation that was written before it, a push finds it
//! sooner, and a new generation or a null push tells the node of a loss.
//!
//! In it: at most three publications and two sessions, one cut, one loss on a link that stays up, one
//! `FLUSHALL`, failover, deletion, eviction and late answer, not all of them in one search; one
//! revocation; a policy that allows everyone or no one. Not in it: the fence and the keys of
//! publications, presence, TTLs, resharding, `since` that no one was told, and two
//! calls that publish on one connection. A read brings all that is kept.
//!
//! A client's frames are compared with what it has when they are written. The hidden state, the
//! line of history that a position belongs to, says which positions of the same name are the same.

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
