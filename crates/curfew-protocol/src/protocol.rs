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
    /// The the message does not follow the protocol (binary, or not JSON). The connection closes.
    NotTheProtocol {
        /// The fault, for the log.
        message: &'static str,
    },
    /// The message is of the protocol but not a command. It is answered, and counted against
    /// `limits.bad_frames` where the protocol's rules say so.
    Form {
        /// The command's id, if it could be read.
        id: Option<CommandId>,
        /// `bad_request` or `unknown_type`.
        code: ErrorCode,
        /// The fault and its remedy, for people.
        message: Cow<'static, str>,
    },
}

/// Rules of behaviour in which protocols differ. The default is the rules of the native protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules {
    /// A session opens with the reply to `auth`, even if the request carried the token.
    pub opens_by_command: bool,
    /// A command before `auth` is a breach of the protocol, and not only a missing token.
    pub needs_auth_first: bool,
    /// Time that a client has to close by itself after a reply has stated why it has no session.
    pub leave_time: Option<Duration>,
    /// The reply to `subscribe` contains the publications that the subscriber missed.
    pub recovers_in_answer: bool,
    /// `unsubscribe` always succeeds: even over the rate, without a lease or without a
    /// subscription. It counts against the rate like any command.
    pub unsubscribes_always: bool,
    /// A gap ends the subscription, which the client resumes by its position.
    pub gap_ends_subscription: bool,
    /// A token that no `refresh` can ever accept ends the session.
    pub refusal_ends_session: bool,
    /// A pong that no ping asked for breaks the protocol.
    pub counts_pongs: bool,
    /// A message may hold many commands, so that a reconnecting client can send all of its commands
    /// at once.
    pub batches: bool,
    /// Any number of errors of form is answered without a close: an application causes such errors
    /// through an SDK, which would not reconnect after a close. A message that is not of the
    /// protocol still closes at once.
    pub forgives_form: bool,
    /// The messages can carry bytes that are not JSON.
    pub carries_bytes: bool,
    /// A reserved channel name is a channel that no one may use, and not a malformed name.
    pub denies_reserved_names: bool,
}

/// An encoding of messages to the model and back. A protocol with two encodings, such as JSON and
/// Protobuf, has two implementations, and each has its own [`name`](Protocol::name).
///
/// A message holds one or more requests. A reply or a push is one message, or none if the protocol
/// cannot express it. The protocol is independent of the framing that a transport adds.
///
/// A relay, which forwards the messages of other systems, needs only [`close`](Protocol::close) and
/// [`ping`](Protocol::ping).
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
    /// writes nothing, if the protocol cannot express it.
    fn encode_push(&self, push: &Push<'_>, out: &mut BytesMut) -> bool;

    /// True if `message`, which this encoding has written, is a push that only the subscribers of
    /// `channel` receive: a publication, a gap, or a change of presence. The push about the end of
    /// a subscription does not count.
    fn is_of(&self, message: &[u8], channel: &Channel) -> bool;

    /// The difference between the data of two publications: a client computes `target` from `base`
    /// and the difference. `None` if the publication is sent whole: the protocol has no
    /// differences, or the difference is not shorter than `target`.
    fn difference(&self, _base: &[u8], _target: &[u8]) -> Option<Vec<u8>> {
        None
    }

    /// Appends a message that the client must answer. Returns false, and writes nothing, if the
    /// transport's own ping is used instead.
    fn ping(&self, _out: &mut BytesMut) -> bool {
        false
    }

    /// The code and the reason of a close frame. The reason is cut to the transport's limit: 123
    /// bytes in a WebSocket (RFC 6455 §5.5).
    fn close(&self, disconnect: &Disconnect) -> (u16, &'static str) {
        (disconnect.code, disconnect.reason)
    }
}
