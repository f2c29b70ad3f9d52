//! Protocols: messages are decoded to requests, and replies and pushes are encoded to messages.
//!
//! Owns: the form of every message's content, and the codes of close frames.
//! Knows nothing of: frames, sockets, tasks, sessions. No I/O, so decoders are fuzzed and replayed.
//! Start at [`Protocol`]; [`native`] is `curfew.v1`.
//!
//! ```
//! use bytes::BytesMut;
//! use curfew_model::{Command, Message, Reply};
//! use curfew_protocol::{DecodeError, Protocol, native::Native};
//!
//! let mut message = Message::Text(r#"{"type":"ping","id":7}"#);
//! let request = Native.decode(&mut message)?;
//! assert_eq!(request.command, Command::Ping);
//!
//! let mut reply = BytesMut::new();
//! assert!(Native.encode_reply(request.id.as_ref(), &Reply::Pong, &mut reply));
//! assert_eq!(&reply[..], br#"{"type":"pong","id":7}"#);
//! # Ok::<(), DecodeError>(())
//! ```

pub mod native;
mod protocol;

pub use protocol::{DecodeError, Protocol};
