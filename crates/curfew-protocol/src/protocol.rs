//! The seam between a protocol and the rest.

use std::borrow::Cow;
use std::fmt;

use bytes::BytesMut;
use curfew_model::{CommandId, Disconnect, ErrorCode, Message, MessageKind, Push, Reply, Request};

/// Why a message is not a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecodeError {
    /// Not the protocol at all (a binary message, not JSON): the connection closes.
    NotTheProtocol {
        /// What is wrong, for the log.
        message: &'static str,
    },
    /// The protocol, but not a command: answered, and counted against `limits.bad_frames`.
    Form {
        /// The command's id, when it could be read.
        id: Option<CommandId>,
        /// `bad_request` or `unknown_type`.
        code: ErrorCode,
        /// What is wrong and what would be right, for people.
        message: Cow<'static, str>,
    },
}

/// Bytes to model and back, in one encoding. A protocol with two encodings, such as JSON and Protobuf,
/// is two of these with one [`name`](Protocol::name).
///
/// A message holds one or more requests. A reply or a push is one message, or nothing where the
/// protocol has no word for it. What a transport puts around a message is none of the protocol's
/// business. A relay, which passes on what others say, has words for nothing and decodes nothing: its
/// part is [`close`](Protocol::close) and [`ping`](Protocol::ping).
pub trait Protocol: fmt::Debug + Send + Sync + 'static {
    /// The name in session records and in metrics.
    fn name(&self) -> &'static str;

    /// The name of this encoding in `Sec-WebSocket-Protocol`.
    fn subprotocol(&self) -> &'static str {
        self.name()
    }

    /// The kind of every message that is encoded.
    fn kind(&self) -> MessageKind;

    /// Takes the first request off a message. What it leaves is decoded once that is acted on; an empty
    /// rest is the end of the message.
    fn decode<'a>(&self, message: &mut Message<'a>) -> Result<Request<'a>, DecodeError>;

    /// Appends the answer to a command. False, and nothing is written, where it is not answered.
    fn encode_reply(&self, id: Option<&CommandId>, reply: &Reply<'_>, out: &mut BytesMut) -> bool;

    /// Appends a push: the same bytes for every session of this protocol in this encoding. False, and
    /// nothing is written, where the protocol does not tell it.
    fn encode_push(&self, push: &Push<'_>, out: &mut BytesMut) -> bool;

    /// Appends the message that asks for a sign of life. False, and nothing is written, where the
    /// transport's own ping does.
    fn ping(&self, _out: &mut BytesMut) -> bool {
        false
    }

    /// The code and the reason that a close tells. The reason is cut to what the transport has room
    /// for: 123 bytes in a WebSocket (RFC 6455 §5.5).
    fn close(&self, disconnect: &Disconnect) -> (u16, &'static str) {
        (disconnect.code, disconnect.reason)
    }
}
