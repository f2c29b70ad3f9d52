//! The load generator, `curfew-bench`.
//!
//! Owns: opening and driving tens of thousands of WebSockets from one thread, at a cost well below
//! the server's, and measuring the effect on the server. Knows nothing of: the gateway's own
//! WebSocket code. The load generator distinguishes frames by their first bytes and counts them. It
//! reads only samples of messages, and parses JSON only in answers. Start at [`run`], then at
//! `connections.rs` for the event loop and `fan.rs` for publishing.
//!
//! This package's `benches` folder has the measurements within one process, without sockets.

mod cli;
mod connect;
mod connections;
mod dialect;
mod fan;
mod fanout;
mod histogram;
mod idle;
mod presence;
mod process;
mod publication;
mod publish;
mod reconnect;
mod recover;
mod report;
pub mod resp;
mod revoke;
mod roundtrip;
mod slow;
mod subscribe;
mod subscriptions;
mod target;
mod tokens;
mod wire;

pub use cli::run;
