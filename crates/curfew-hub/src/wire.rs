//! The wire: a protocol's messages in a transport's frames.

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use curfew_model::{
    Channel, ClientRequest, CommandId, DataForm, Disconnect, Message, MessageKind, Publication,
    Push, Reply,
};
use curfew_protocol::{DecodeError, Protocol, Rules};
use curfew_ws::frame::{self, Opcode};

mod frames;
mod streamed;

pub(crate) use frames::Frames;
pub use streamed::{EventStreamFraming, HttpStreamFraming};

/// A kind of transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// A WebSocket.
    WebSocket,
    /// The streamed answer to a POST request.
    HttpStream,
    /// The streamed answer that browsers call an event source.
    EventStream,
}

/// A transport's framing of messages. The frames of a connection are written in order, each of them
/// whole.
pub trait Framing: fmt::Debug + Send + Sync + 'static {
    /// The kind of transport.
    fn carrier(&self) -> Carrier;

    /// The frame of one message. `write` appends the content to the buffer. If `write` returns
    /// false, the result is `None`.
    fn message(
        &self,
        kind: MessageKind,
        write: &mut dyn FnMut(&mut BytesMut) -> bool,
    ) -> Option<Bytes>;

    /// The content of a frame that [`message`](Self::message) has made. The result may also include
    /// the bytes that the framing writes after the content.
    fn content<'f>(&self, frame: &'f [u8]) -> &'f [u8];

    /// The frame that asks the client for a sign of life.
    fn ping(&self) -> Bytes;

    /// The frame that closes a connection.
    fn close(&self, code: u16, reason: &str) -> Bytes;
}

/// WebSocket framing (RFC 6455).
#[derive(Debug, Clone, Copy, Default)]
pub struct WebSocket;

impl Framing for WebSocket {
    fn carrier(&self) -> Carrier {
        Carrier::WebSocket
    }

    fn message(
        &self,
        kind: MessageKind,
        write: &mut dyn FnMut(&mut BytesMut) -> bool,
    ) -> Option<Bytes> {
        let opcode = match kind {
            MessageKind::Text => Opcode::Text,
            MessageKind::Binary => Opcode::Binary,
        };
        let mut is_told = false;
        let frame = frame::encode(opcode, |out| is_told = write(out));
        is_told.then_some(frame)
    }

    fn content<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        frame::payload(frame)
    }

    fn ping(&self) -> Bytes {
        frame::ping(&[])
    }

    fn close(&self, code: u16, reason: &str) -> Bytes {
        frame::close(code, reason)
    }
}

/// A protocol, in one of its encodings, over a transport.
#[derive(Debug, Clone)]
pub struct Wire {
    protocol: Arc<dyn Protocol>,
    framing: Arc<dyn Framing>,
}

impl Wire {
    /// Creates the wire that carries the messages of `protocol` in the frames of `framing`.
    pub fn new(protocol: Arc<dyn Protocol>, framing: Arc<dyn Framing>) -> Self {
        Self { protocol, framing }
    }

    /// Creates the wire that carries the messages of `protocol` in WebSocket frames.
    pub fn websocket(protocol: impl Protocol) -> Self {
        Self::new(Arc::new(protocol), Arc::new(WebSocket))
    }

    /// See [`Protocol::name`].
    pub fn name(&self) -> &'static str {
        self.protocol.name()
    }

    /// See [`Protocol::subprotocol`].
    pub fn subprotocol(&self) -> &'static str {
        self.protocol.subprotocol()
    }

    /// See [`Protocol::rules`].
    pub fn rules(&self) -> Rules {
        self.protocol.rules()
    }

    /// See [`Protocol::decode`].
    pub fn decode<'a>(&self, message: &mut Message<'a>) -> Result<ClientRequest<'a>, DecodeError> {
        self.protocol.decode(message)
    }

    /// The frame of a reply; `None` if the protocol does not send it.
    pub fn reply(&self, id: Option<&CommandId>, reply: &Reply<'_>) -> Option<Bytes> {
        self.message(|out| self.protocol.encode_reply(id, reply, out))
    }

    /// The frame of a push; `None` if the protocol does not send it.
    pub fn push(&self, push: &Push<'_>) -> Option<Bytes> {
        self.message(|out| self.protocol.encode_push(push, out))
    }

    /// The frame of a publication; `None` if the protocol cannot carry it.
    pub fn publication(&self, publication: &Publication, form: DataForm<'_>) -> Option<Bytes> {
        if publication.is_binary && !self.rules().carries_bytes {
            return None;
        }
        self.push(&Push::Message {
            channel: &publication.channel,
            data: &publication.data,
            from: publication.from.as_deref(),
            sender: publication.sender.as_deref(),
            position: publication.entry.map(|entry| entry.position),
            form,
        })
    }

    /// True if `frame`, which this wire has encoded, is a push that only the subscribers of
    /// `channel` receive. See [`Protocol::is_of`].
    pub fn is_of(&self, frame: &[u8], channel: &Channel) -> bool {
        self.protocol.is_of(self.framing.content(frame), channel)
    }

    /// See [`Protocol::difference`].
    pub fn difference(&self, base: &[u8], target: &[u8]) -> Option<Vec<u8>> {
        self.protocol.difference(base, target)
    }

    /// The frame that asks for a sign of life: the protocol's ping if it has one, else the
    /// transport's ping.
    pub fn ping(&self) -> Bytes {
        self.message(|out| self.protocol.ping(out))
            .unwrap_or_else(|| self.framing.ping())
    }

    /// The frame that closes the connection.
    pub fn close(&self, disconnect: &Disconnect) -> Bytes {
        let (code, reason) = self.protocol.close(disconnect);
        self.framing.close(code, reason)
    }

    /// The frame that answers the peer's close, with the code of that close.
    pub fn close_reply(&self, code: u16) -> Bytes {
        self.framing.close(code, "")
    }

    fn message(&self, mut write: impl FnMut(&mut BytesMut) -> bool) -> Option<Bytes> {
        self.framing.message(self.protocol.kind(), &mut write)
    }
}

/// A wire's index in [`Wires`], and the wire's key in the cache of a broadcast: all sessions of one
/// wire are sent the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WireId(u8);

/// The wires of a node. The first wire is the default.
#[derive(Debug, Clone)]
pub struct Wires(Arc<[Wire]>);

impl Wires {
    /// Creates the wires of a node from a list of 1 to 256 wires.
    ///
    /// # Panics
    ///
    /// If the number of wires is outside this range.
    pub fn new(wires: Vec<Wire>) -> Self {
        assert!(
            (1..=256).contains(&wires.len()),
            "a node has 1 to 256 wires"
        );
        Self(wires.into())
    }

    /// The wire of a client that names no subprotocol.
    pub fn default_id(&self) -> WireId {
        WireId(0)
    }

    /// The wire of a subprotocol offered in `Sec-WebSocket-Protocol`.
    pub fn find(&self, subprotocol: &str) -> Option<WireId> {
        self.find_over(Carrier::WebSocket, subprotocol)
    }

    /// The wire of the encoding with this subprotocol, over this kind of transport.
    pub fn find_over(&self, carrier: Carrier, subprotocol: &str) -> Option<WireId> {
        let is_it =
            |wire: &Wire| wire.framing.carrier() == carrier && wire.subprotocol() == subprotocol;
        let at = self.0.iter().position(is_it)?;
        u8::try_from(at).ok().map(WireId)
    }

    /// The wire with this id.
    pub fn get(&self, id: WireId) -> &Wire {
        &self.0[usize::from(id.0)]
    }

    /// The names of the protocols, each once, in order.
    pub fn names(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        for wire in &*self.0 {
            if !names.contains(&wire.name()) {
                names.push(wire.name());
            }
        }
        names
    }
}
