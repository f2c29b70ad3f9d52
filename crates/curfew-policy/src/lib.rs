//! Authorization: decides if a principal may do something on a channel, and names the deciding
//! rule.
//!
//! Owns: the `[policy]` section of the configuration, conditions, the grants a token carries, and
//! the order in which they decide: deny wins, default deny.
//! Knows nothing of: sessions, sockets, Redis, verification of tokens. No I/O; never awaits.
//! Start at [`Policy::decide`].

mod channels;
mod claims;
mod condition;
mod config;
mod decision;
mod explain;
mod grants;
mod policy;
mod report;
mod rules;

pub use channels::Channels;
pub use config::{Config, Effect, Rule};
pub use decision::{Decision, Why};
pub use explain::{ConditionResult, Considered, Explanation};
pub use policy::{Policy, Subject};

/// The value of [`Decision::rule`] if the token's own grants decide. Rules must not use this name.
pub const GRANT: &str = "grant";
