//! The revocation protocol as a model that is searched exhaustively. The logs of real nodes are
//! compared with the model's node. A second model describes a channel with a stream ([`streams`]),
//! because the recovery of a stream is a second path on which bytes reach a session.
//!
//! Owns: the requests that a node may send next ([`Node`]), the rules for them ([`Rules`],
//! [`streams::StreamRules`]), the invariants, and the table of searches ([`runs::all`]). Knows
//! nothing of: the gateway's code. Tests connect the model with the gateway: [`replay::check`]
//! compares the log of a real node with the model. Start at [`Rules`], then [`Node::receive`].
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
//! The model has two Redis servers, the first primary and its asynchronous replica, and one or two
//! nodes. Each node has a control connection with two directions. The server's event loop sends
//! answers before pushes. Each node has one session, whose token was issued before the one
//! revocation. Time is counted in global ticks, and a delivery lease lasts two ticks. The steps of
//! all parts can be interleaved in any order.
//!
//! Some searches have additional parts of state ([`Extras`]), which the other searches lack
//! entirely:
//!
//! * [`outgoing`](Outgoing): one frame for the client, on its path from the queue to the system
//!   call, or one publication, whose path continues through the network to Redis;
//! * [`stall`](Stall): a node that does not run for a while, on a network without delays;
//! * [`reload`](Reload): settings that change, which give the session the revocation's key;
//! * a revocation's key in two spellings, each written and deleted separately.
//!
//! # Outside the model
//!
//! Each search has at most two nodes with three or four connections each. It has one revocation, at
//! most two cuts, and at most one event among failover, wipe and restart. An operator writes the
//! key of the revocation once and deletes it at most once. Only P9, V8 and N3 write the key twice,
//! and only P9 deletes it twice. Ages are counted up to three ticks. All nodes' clocks run at the
//! same rate. The model leaves out values of revocations, several keys of a session, refresh, the
//! sweep, node leases and the reaper, expiry of revocations and the move of a cluster slot. Redis'
//! clocks do not step back, and the clock of one server is two ticks ahead of the other's. A system
//! call is over as soon as it has begun. Settings change once, and only add a key. A node remembers
//! one known primary, not several. A node that has crashed counts as a new node.

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
