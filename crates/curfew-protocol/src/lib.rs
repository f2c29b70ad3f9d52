//! Protocols: messages are decoded to requests, and replies and pushes are encoded to messages.
//!
//! Owns: the form of every message's content, and the codes of close frames.
//! Knows nothing of: frames, sockets, tasks, sessions. No I/O, so decoders are fuzzed and replayed.
//! Start at [`Protocol`]; [`native`] is `curfew.v1`.

pub mod native;
mod protocol;

pub use protocol::{DecodeError, Protocol};
