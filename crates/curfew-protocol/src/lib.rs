//! Protocols: messages to commands, replies and pushes to messages.
//!
//! Owns: the form of every frame's content.
//! Knows nothing of: sockets, tasks, sessions. No I/O, so decoders are fuzzed and replayed.
//! Start at [`Protocol`]; [`native`] is `curfew.v1`.

pub mod native;
mod protocol;

pub use protocol::{DecodeError, Protocol, ProtocolId, Protocols};
