//! The load generator, `curfew-bench`.
//!
//! Owns: opening and driving tens of thousands of WebSockets from one thread, at a cost well below
//! the server's, and saying what that did to the server.
//! Knows nothing of: the gateway's own WebSocket code. Frames are told apart by their heads and
//! counted; JSON is never parsed, and only samples are looked into.
//! Start at [`run`], then at `connections.rs` for the event loop and `fan.rs` for publishing.
//!
//! Measurements within one process, without sockets, are in this package's `benches` folder.

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
