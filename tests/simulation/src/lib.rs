//! Simulation: the gateway's own code runs on virtual time, with faults that a seed chooses, and a
//! checker compares the run with the gateway's promises.
//!
//! Owns: the machines, the network, Redis and the clients around the nodes, the plan of faults, and
//! the comparison of a run with the promises. Knows nothing of: HTTP, configuration files, a
//! cluster of Redis. The crates `curfew-ws` and `curfew-backend-redis`, and all crates between
//! these two layers, are the real ones, including the code that speaks RESP. Start at [`run::run`].

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
