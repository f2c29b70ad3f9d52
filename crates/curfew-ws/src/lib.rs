//! A safe WebSocket.
//!
//! Owns: the checks of an upgrade request, taking the bare socket back after the upgrade, cutting
//! and bounding the frames of a peer, encoding our own, and the close codes for what a peer broke.
//! The only crate that names fastwebsockets, of which it uses the upgrade answer, the masking and
//! the frame head; none of its types are in this API.
//! Knows nothing of: tokens, sessions, protocols, timers. Spawns nothing.
//! Start at [`handshake::check`] and [`Decoder::next`].
//!
//! Why fastwebsockets' reader is not used:
//! * it is not safe to cancel: a read dropped after two bytes of a frame makes garbage of the rest;
//! * its bound is for one frame, exclusive, and a message of many fragments has none;
//! * it accepts frames without a mask, which RFC 6455 §5.1 says to close for;
//! * it allocates by the declared length, and 8 KiB for every idle connection;
//! * shared between connections to avoid that, it hands the leftovers of one peer's broken frame
//!   to the next peer.
//!
//! ```
//! use curfew_ws::OriginPolicy;
//!
//! let entries = ["https://app.example", "https://*.example.org"].map(str::to_owned);
//! let policy = OriginPolicy::parse(&entries).expect("both entries are origins");
//! assert!(policy.allows(Some("https://app.example:443"), true));
//! assert!(policy.allows(Some("https://a.b.example.org"), true));
//! assert!(!policy.allows(Some("https://app.example.evil"), true));
//! ```

pub mod client;
mod decoder;
mod event;
pub mod frame;
pub mod handshake;
mod head;
mod origin;
mod protocol_error;
mod read_buffer;
mod transport;
mod upgrade;
mod write_batch;

pub use client::Client;
pub use decoder::{Decoder, Input, Limits};
pub use event::Event;
pub use handshake::{Handshake, HandshakeError};
pub use origin::{OriginPolicy, canonical_origin};
pub use protocol_error::ProtocolError;
pub use read_buffer::{READ_BUFFER_BYTES, with_read_buffer};
#[cfg(feature = "simulation")]
pub use transport::PipeWriter;
pub use transport::{DirectWriter, Pipe, Polled, Socket, Transport};
pub use upgrade::{DeferSwitch, DeferredResponse, Upgraded, accept};
pub use write_batch::{MAX_WRITE_BYTES, WriteBatch};
