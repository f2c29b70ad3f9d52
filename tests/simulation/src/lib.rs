//! The gateway's own code on virtual time, with faults chosen by a seed, and a checker of its
//! promises.
//!
//! Owns: the machines, the network, Redis and the clients around the nodes, the plan of faults, and
//! the comparison of a run with the promises.
//! Knows nothing of: HTTP, configuration files, a cluster of Redis. Every crate from `curfew-ws` to
//! `curfew-backend-redis` is real, including the code that speaks RESP.
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
pub mod world;
