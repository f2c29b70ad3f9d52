//! The Centrifuge client protocol: the same messages in JSON and in Protobuf.
//!
//! Owns: the form of the protocol's messages, the numbers of errors and closes, the differences
//! between publications.
//! Knows nothing of: frames, sockets, tasks, sessions. This crate does no I/O, so its decoders can be
//! fuzzed and replayed.
//! Start at [`Centrifuge`].
//!
//! ```
//! use bytes::BytesMut;
//! use curfew_model::{ClientRequest, Command, Message, Reply};
//! use curfew_protocol::{DecodeError, Protocol};
//! use curfew_protocol_centrifuge::{Centrifuge, Encoding, Over};
//!
//! let protocol = Centrifuge {
//!     encoding: Encoding::Json,
//!     transport: Over::WebSocket,
//! };
//! let mut message = Message::Text("{\"id\":7,\"ping\":{}}\n{}");
//! let ClientRequest::Command { id, command } = protocol.decode(&mut message)? else {
//!     panic!("a message with an id is a command");
//! };
//! assert_eq!(command, Command::Ping);
//! assert_eq!(protocol.decode(&mut message), Ok(ClientRequest::Pong));
//! assert!(message.is_empty());
//!
//! let mut out = BytesMut::new();
//! assert!(protocol.encode_reply(id.as_ref(), &Reply::Pong, &mut out));
//! assert_eq!(&out[..], br#"{"id":7,"ping":{}}"#);
//! # Ok::<(), DecodeError>(())
//! ```

mod codes;
mod decode;
mod encode;
pub mod fossil;

pub use decode::emulation::Emulation;

use std::time::Duration;

use bytes::BytesMut;
use curfew_model::{
    Channel, ClientRequest, CommandId, Disconnect, Message, MessageKind, Push, Reply,
};
use curfew_protocol::{DecodeError, Protocol, Rules};

/// Time that a client has to close the connection after an error has stated why no session opens.
const LEAVE_TIME: Duration = Duration::from_secs(5);

/// The Centrifuge protocol in one of its encodings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Centrifuge {
    /// The encoding of both directions.
    pub encoding: Encoding,
    /// The transport that carries the messages.
    pub transport: Over,
}

/// An encoding of the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// JSON objects, separated by newlines.
    Json,
    /// Protobuf messages, each preceded by its length.
    Protobuf,
}

/// A kind of transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// A WebSocket. The close frame states the reason of a close.
    WebSocket,
    /// A streamed HTTP answer. A last message states the reason of a close.
    Http,
}

impl Protocol for Centrifuge {
    fn name(&self) -> &'static str {
        match self.encoding {
            Encoding::Json => "centrifuge-json",
            Encoding::Protobuf => "centrifuge-protobuf",
        }
    }

    fn kind(&self) -> MessageKind {
        match self.encoding {
            Encoding::Json => MessageKind::Text,
            Encoding::Protobuf => MessageKind::Binary,
        }
    }

    fn rules(&self) -> Rules {
        Rules {
            opens_by_command: true,
            needs_auth_first: true,
            leave_time: Some(LEAVE_TIME),
            recovers_in_answer: true,
            unsubscribes_always: true,
            gap_ends_subscription: true,
            refusal_ends_session: true,
            counts_pongs: true,
            batches: true,
            forgives_form: true,
            carries_bytes: self.encoding == Encoding::Protobuf,
            denies_reserved_names: true,
        }
    }

    fn decode<'a>(&self, message: &mut Message<'a>) -> Result<ClientRequest<'a>, DecodeError> {
        match self.encoding {
            Encoding::Json => decode::json::decode(message),
            Encoding::Protobuf => decode::protobuf::decode(message),
        }
    }

    fn encode_reply(&self, id: Option<&CommandId>, reply: &Reply<'_>, out: &mut BytesMut) -> bool {
        let Some(id) = id.and_then(number) else {
            return false;
        };
        match self.encoding {
            Encoding::Json => encode::reply(encode::json::Json::new(out), id, reply),
            Encoding::Protobuf => encode::reply(encode::protobuf::Protobuf::new(out), id, reply),
        }
    }

    fn encode_push(&self, push: &Push<'_>, out: &mut BytesMut) -> bool {
        match self.encoding {
            Encoding::Json => encode::push(encode::json::Json::new(out), self.transport, push),
            Encoding::Protobuf => {
                encode::push(encode::protobuf::Protobuf::new(out), self.transport, push)
            }
        }
    }

    fn is_of(&self, message: &[u8], channel: &Channel) -> bool {
        match self.encoding {
            Encoding::Json => encode::json::is_of(message, channel.as_str()),
            Encoding::Protobuf => encode::protobuf::is_of(message, channel.as_str()),
        }
    }

    fn difference(&self, base: &[u8], target: &[u8]) -> Option<Vec<u8>> {
        fossil::difference(base, target, self.encoding == Encoding::Json)
    }

    fn ping(&self, out: &mut BytesMut) -> bool {
        out.extend_from_slice(match self.encoding {
            Encoding::Json => b"{}",
            Encoding::Protobuf => b"\0",
        });
        true
    }

    fn close(&self, disconnect: &Disconnect) -> (u16, &'static str) {
        codes::close(disconnect)
    }
}

/// The number that the client gave the command. This protocol's decoder has made `id` from the
/// number.
fn number(id: &CommandId) -> Option<u32> {
    id.as_json().parse().ok()
}

#[cfg(test)]
mod tests;
