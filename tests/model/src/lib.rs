//! The revocation protocol as a model that is searched exhaustively, and the same model's node
//! as a judge over the logs of real ones. Beside it a channel with a stream ([`streams`]), whose
//! recovery is a second way for bytes to reach a session.
//!
//! Owns: what a node may send next ([`Node`]), under which rules ([`Rules`],
//! [`streams::StreamRules`]), what must never happen, and the table of searches ([`runs::all`]).
//! Knows nothing of: the gateway's code. What connects them is the log of a node in tests, which
//! [`replay::check`] compares with the model.
//! Start at [`Rules`], then [`Node::receive`].
//!
//! ```sh
//! cargo test -p curfew-model-check                                            # one node, and streams
//! cargo run --release -p curfew-model-check --bin protocol-model -- --all     # all of it
//! cargo run --release -p curfew-model-check --bin protocol-model -- --trace M14
//! ```
//!
//! Findings of the searches are in `README.md`.
//!
//! # Inside the model
//!
//! Two Redis servers, the first primary and its asynchronous replica; one or two nodes; for each
//! node a control connection with its two directions and the event loop at its end, which hands
//! out answers before pushes; one session on each node, whose token was issued before the one
//! revocation. Time is a global tick, a delivery lease lasts two. Every step of every part can
//! come in any order with every other.
//!
//! Some searches have more in their state ([`Extras`]), the others have nothing of it:
//!
//! * [`outgoing`](Outgoing): one frame for the client, or one publication, from its queue to the
//!   system call, and through the network to Redis;
//! * [`stall`](Stall): a node that does not run for a while, in a network that is in time;
//! * [`reload`](Reload): settings that change, by which the session gets the revocation's key;
//! * a revocation's key in two spellings, each written and deleted for itself.
//!
//! # Outside the model
//!
//! At most two nodes and three or four connections of each; one revocation, written once by an
//! operator and deleted at most once; one failover, wipe or restart, never two of them; two cuts;
//! three ticks of age. A node's clock does not run differently from another's. Values of
//! revocations, several keys of a session, refresh, the sweep, node leases and the reaper, expiry
//! of revocations and the move of a cluster slot are not in it. Redis' clocks do not step back, and
//! one is ahead of another by two ticks. A system call is over as soon as it has begun. Settings
//! change once, and only add a key. A node has one known primary, not
//! a set, and a crash of the node is a new node.

mod actions;
mod connection;
mod message;
mod model;
mod node;
mod outgoing;
mod properties;
mod reload;
pub mod replay;
mod rules;
pub mod runs;
mod server;
mod session;
mod stall;
mod state;
pub mod streams;

pub use actions::Action;
pub use connection::Connection;
pub use message::{Epoch, Message, Primary, Reply, Request};
pub use model::{Asked, Protocol};
pub use node::{LEASE, Next, Node, Phase};
pub use outgoing::{Clock, Kind, Outgoing, Place, Way};
pub use reload::{Progress, Reload};
pub use rules::{Forgetting, OnDataLoss, PushedInSetup, Rules};
pub use server::Server;
pub use session::{Session, Stage};
pub use stall::Stall;
pub use state::{Bounds, Events, Extras, Peer, Start, State};
