//! Authorization: may this principal do this on that channel, and which rule says so.
//!
//! Owns: the `[policy]` section of the configuration, channel patterns, conditions, the grants a
//! token carries, and the order in which they decide: deny wins, default deny.
//! Knows nothing of: sessions, sockets, Redis, how a token was verified. No I/O; never awaits.
//! Start at [`Policy::decide`].

mod channels;
mod claims;
mod condition;
mod config;
mod decision;
mod explain;
mod grants;
mod pattern;
mod policy;
mod report;
mod rules;

pub use channels::Channels;
pub use config::{Effect, PolicyConfig, Rule};
pub use decision::{Decision, Why};
pub use explain::{ConditionResult, Considered, Explanation};
pub use policy::{Policy, Subject};

/// The name [`Decision::rule`] has when the token's own grants decided; no rule may have it.
pub const GRANT: &str = "grant";
