//! The gateway's own code on virtual time, with faults chosen by a seed, and a checker that knows
//! the promise.
//!
//! Owns: the machines, the network, Redis and the clients around the nodes, the plan of what goes
//! wrong, and the comparison of what happened with what is promised.
//! Knows nothing of: HTTP, configuration files, a cluster of Redis. Real: every crate from
//! `curfew-ws` to `curfew-backend-redis`, the one that speaks RESP included.
//! Start at [`run::run`].

pub mod check;
pub mod client;
pub mod frame;
pub mod machine;
pub mod node;
pub mod plan;
pub mod record;
pub mod redis;
pub mod run;
pub mod words;
pub mod world;
