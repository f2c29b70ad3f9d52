//! Protocols: messages to requests, replies and pushes to messages.
//!
//! Owns: the form of every message's content, and the codes that a close tells.
//! Knows nothing of: frames, sockets, tasks, sessions. No I/O, so decoders are fuzzed and replayed.
//! Start at [`Protocol`]; [`native`] is `curfew.v1`.

pub mod native;
mod protocol;

pub use protocol::{DecodeError, Protocol};
