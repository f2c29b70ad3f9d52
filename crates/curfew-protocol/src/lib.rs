//! Protocols: messages are decoded to requests, and replies and pushes are encoded to messages.
//!
//! Owns: the form of every message's content, and the codes of close frames.
//! Knows nothing of: frames, sockets, tasks, sessions. This crate does no I/O, so its decoders can be
//! fuzzed and replayed.
//! Start at [`Protocol`]; [`native`] is `curfew.v1`.
//!
//! ```
//! use bytes::BytesMut;
//! use curfew_model::{ClientRequest, Command, Message, Reply};
//! use curfew_protocol::{DecodeError, Protocol, native::Native};
//!
//! let mut message = Message::Text(r#"{"type":"ping","id":7}"#);
//! let ClientRequest::Command { id, command } = Native.decode(&mut message)? else {
//!     panic!("a ping of the client is a command");
//! };
//! assert_eq!(command, Command::Ping);
//!
//! let mut reply = BytesMut::new();
//! assert!(Native.encode_reply(id.as_ref(), &Reply::Pong, &mut reply));
//! assert_eq!(&reply[..], br#"{"type":"pong","id":7}"#);
//! # Ok::<(), DecodeError>(())
//! ```

pub mod json;
pub mod native;
mod protocol;

pub use protocol::{DecodeError, Protocol, Rules};
