//! The seam between a protocol and the rest.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::BytesMut;
use curfew_model::{CommandId, ErrorCode, Message, Push, Reply, Request};

/// A protocol's place in [`Protocols`]: index into the encode-once cache of a broadcast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProtocolId(u8);

impl ProtocolId {
    /// The index.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

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

/// Bytes to model and back. One text message holds one command; every reply and every push is one
/// message.
pub trait Protocol: fmt::Debug + Send + Sync + 'static {
    /// The name in `Sec-WebSocket-Protocol`, in session records and in metrics.
    fn name(&self) -> &'static str;

    /// Reads one message.
    fn decode<'a>(&self, message: Message<'a>) -> Result<Request<'a>, DecodeError>;

    /// Appends the answer to a command. Returns whether anything was written: an `Ok` to a command
    /// without an id is not answered.
    fn encode_reply(&self, id: Option<&CommandId>, reply: &Reply<'_>, out: &mut BytesMut) -> bool;

    /// Appends a push: the same bytes for every session of this protocol.
    fn encode_push(&self, push: &Push<'_>, out: &mut BytesMut);
}

/// The protocols a node speaks. The first is spoken where none is asked for.
#[derive(Debug, Clone)]
pub struct Protocols(Arc<[Arc<dyn Protocol>]>);

impl Protocols {
    /// At least one and at most 256 protocols.
    pub fn new(protocols: Vec<Arc<dyn Protocol>>) -> Self {
        assert!(
            (1..=256).contains(&protocols.len()),
            "a node speaks 1 to 256 protocols"
        );
        Self(protocols.into())
    }

    /// The protocol spoken where none is asked for.
    pub fn default_id(&self) -> ProtocolId {
        ProtocolId(0)
    }

    /// The protocol of a name offered in `Sec-WebSocket-Protocol`.
    pub fn find(&self, name: &str) -> Option<ProtocolId> {
        let at = self.0.iter().position(|protocol| protocol.name() == name)?;
        u8::try_from(at).ok().map(ProtocolId)
    }

    /// The protocol itself.
    pub fn get(&self, id: ProtocolId) -> &Arc<dyn Protocol> {
        &self.0[id.index()]
    }

    /// The names of all, in order.
    pub fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|protocol| protocol.name()).collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}
