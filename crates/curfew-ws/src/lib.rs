//! The WebSocket protocol (RFC 6455) on a bare socket, for the gateway and for a small client.
//!
//! Owns: checking an upgrade request, taking the bare socket back after the upgrade, decoding a
//! peer's frames within limits, encoding frames, and the close codes for protocol errors.
//! Only this crate depends on fastwebsockets, for the answer to the upgrade, the masking and the head
//! of a frame. No type of fastwebsockets appears in this crate's API.
//! Knows nothing of: tokens, sessions, protocols, timers. Spawns nothing.
//! Start at [`handshake::check`] and [`Decoder::next`].
//!
//! The reader of fastwebsockets is not used, for these reasons:
//! * It is not cancel-safe: if a read is dropped after two bytes of a frame, the rest of the
//!   connection is garbage.
//! * It limits only the size of a frame. A message of many fragments has no limit.
//! * It accepts unmasked frames of a client, although RFC 6455 §5.1 requires a close.
//! * It allocates memory for the declared length of a frame, and 8 KiB for every idle connection.
//! * If connections share one reader to save this memory, the rest of one peer's broken frame goes
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
mod streamed;
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
pub use streamed::{Closed, Inlet, Streamed};
#[cfg(feature = "simulation")]
pub use transport::PipeWriter;
pub use transport::{DirectWriter, Pipe, Polled, Socket, Transport};
pub use upgrade::{DeferSwitch, DeferredResponse, Upgraded, accept};
pub use write_batch::{MAX_WRITE_BYTES, WriteBatch};
