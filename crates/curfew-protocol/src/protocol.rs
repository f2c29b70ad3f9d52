//! The interface between a protocol and the other crates.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytes::BytesMut;
use curfew_model::{
    Channel, ClientRequest, CommandId, Disconnect, ErrorCode, Message, MessageKind, Push, Reply,
};

/// Reason why a message is not a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecodeError {
    /// The message does not follow the protocol. For example, it is binary or not JSON. The
    /// connection closes.
    NotTheProtocol {
        /// The fault, for the log and the client.
        message: &'static str,
    },
    /// The message follows the protocol but is not a command. It is answered with an error. Unless
    /// [`Rules::forgives_form`] is set, the message also counts against `limits.bad_frames`.
    Form {
        /// The command's id, if it could be read.
        id: Option<CommandId>,
        /// The code of the error that answers the message, for example `bad_request` or
        /// `unknown_type`.
        code: ErrorCode,
        /// The fault and its remedy, for people.
        message: Cow<'static, str>,
    },
}

/// The behaviour in which protocols differ. The default is the rules of the native protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules {
    /// A session opens with the reply to `auth`, even if the upgrade request carried the token.
    pub opens_by_command: bool,
    /// A command before `auth` is a breach of the protocol, and not only a missing token.
    pub needs_auth_first: bool,
    /// Time in which a client may close the connection by itself, after a reply has stated why no
    /// session opens.
    pub leave_time: Option<Duration>,
    /// The reply to `subscribe` contains the publications that the subscriber missed.
    pub recovers_in_answer: bool,
    /// `unsubscribe` succeeds even over the rate, without a lease or without a subscription. The
    /// command counts against the rate like any other command.
    pub unsubscribes_always: bool,
    /// A gap ends the subscription. The client resumes the subscription by its position.
    pub gap_ends_subscription: bool,
    /// A token that no `refresh` can ever accept ends the session.
    pub refusal_ends_session: bool,
    /// A pong that no ping asked for breaks the protocol.
    pub counts_pongs: bool,
    /// A message may hold many commands, so that a reconnecting client can send all of its commands
    /// at once.
    pub batches: bool,
    /// Any number of malformed commands is answered without a close: an application causes such
    /// commands through an SDK, and the SDK would not reconnect after a close. A message that does
    /// not follow the protocol still closes the connection at once.
    pub forgives_form: bool,
    /// The messages can carry bytes that are not JSON.
    pub carries_bytes: bool,
    /// A reserved channel name is treated as a channel that no one may use, and not as a malformed
    /// name.
    pub denies_reserved_names: bool,
}

/// An encoding of a protocol: it decodes messages to requests of the model, and encodes replies and
/// pushes to messages. A protocol with two encodings, such as JSON and Protobuf, has two
/// implementations, and each has its own [`name`](Protocol::name).
///
/// A message holds one or more requests. A reply or a push is one message, or no message if the
/// protocol cannot express the reply or push. The protocol is independent of the framing that a
/// transport adds.
pub trait Protocol: fmt::Debug + Send + Sync + 'static {
    /// The protocol's name in session records and in metrics.
    fn name(&self) -> &'static str;

    /// The name of this encoding in `Sec-WebSocket-Protocol`.
    fn subprotocol(&self) -> &'static str {
        self.name()
    }

    /// The kind of every encoded message.
    fn kind(&self) -> MessageKind;

    /// The rules of this protocol that a session follows.
    fn rules(&self) -> Rules {
        Rules::default()
    }

    /// Decodes the first request of a message and removes it from the message. The caller acts on
    /// the request before it decodes the next one. The message ends when it is empty.
    fn decode<'a>(&self, message: &mut Message<'a>) -> Result<ClientRequest<'a>, DecodeError>;

    /// Appends the answer to a command. Returns false, and writes nothing, if the protocol does not
    /// answer the command.
    fn encode_reply(&self, id: Option<&CommandId>, reply: &Reply<'_>, out: &mut BytesMut) -> bool;

    /// Appends a push, with the same bytes for every session of this encoding. Returns false, and
    /// writes nothing, if the protocol cannot express the push.
    fn encode_push(&self, push: &Push<'_>, out: &mut BytesMut) -> bool;

    /// True if `message`, a message of this encoding, is a push that only the subscribers of
    /// `channel` receive. Such pushes are publications, gaps and changes of presence. For the push
    /// about the end of a subscription, the result is false.
    fn is_of(&self, message: &[u8], channel: &Channel) -> bool;

    /// The difference between the data of two publications: a client computes `target` from `base`
    /// and the difference. `None` if the publication is sent whole: the protocol has no
    /// differences, or the difference is not shorter than `target`.
    fn difference(&self, _base: &[u8], _target: &[u8]) -> Option<Vec<u8>> {
        None
    }

    /// Appends a ping, which is a message that the client must answer. Returns false, and writes
    /// nothing, if the transport's own ping is used instead.
    fn ping(&self, _out: &mut BytesMut) -> bool {
        false
    }

    /// The code and the reason of a close frame. The reason is cut to the transport's limit: 123
    /// bytes in a WebSocket (RFC 6455 §5.5).
    fn close(&self, disconnect: &Disconnect) -> (u16, &'static str) {
        (disconnect.code, disconnect.reason)
    }
}
