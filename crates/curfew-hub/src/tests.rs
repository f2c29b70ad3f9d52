//! Tests of the hub through its public interface. The tests themselves do the work of the sessions'
//! tasks.

mod bound;
mod differences;
mod fanout;
mod flush;
mod joins;
mod kinds;
mod model;
mod outbox;
mod revoke;
mod write;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use curfew_model::{
    Channel, Claims, ClientRequest, Clock, CommandId, DataForm, DeliveryLease, Message,
    MessageKind, Principal, PrincipalParts, Publication, Push, Reply, RevocationKey, SessionId,
};
use curfew_protocol::{DecodeError, Protocol};
use curfew_telemetry::Registry;
use curfew_ws::{Socket, WriteBatch};

use crate::{
    DeliveryPath, DropReason, Hub, HubLimits, HubMetrics, Lanes, Member, Progress, WebSocket, Wire,
    WireId, Wires,
};

/// The claim by which sessions of these tests can be revoked.
const CLAIM: &str = "tenant";

/// A protocol whose messages are the publication's data. The protocol counts the messages that it
/// encodes. For a session that takes differences, a whole message begins with `W`, and a difference
/// begins with `D` and the number of letters that the difference takes from the base.
#[derive(Debug)]
pub(super) struct Plain {
    name: &'static str,
    encoded: AtomicUsize,
}

impl Plain {
    pub(super) fn encoded(&self) -> usize {
        self.encoded.load(Ordering::Relaxed)
    }
}

impl Protocol for Plain {
    fn name(&self) -> &'static str {
        self.name
    }

    fn kind(&self) -> MessageKind {
        MessageKind::Text
    }

    fn decode<'a>(&self, _: &mut Message<'a>) -> Result<ClientRequest<'a>, DecodeError> {
        Err(DecodeError::NotTheProtocol {
            message: "nothing is decoded here",
        })
    }

    fn encode_reply(&self, _: Option<&CommandId>, _: &Reply<'_>, _: &mut BytesMut) -> bool {
        false
    }

    fn encode_push(&self, push: &Push<'_>, out: &mut BytesMut) -> bool {
        self.encoded.fetch_add(1, Ordering::Relaxed);
        if let Push::Message { data, form, .. } = push {
            let (mark, data) = match form {
                DataForm::Plain => ("", *data),
                DataForm::Whole => ("W", *data),
                DataForm::Difference(difference) => ("D", *difference),
            };
            out.extend_from_slice(mark.as_bytes());
            out.extend_from_slice(data);
        }
        true
    }

    /// A message belongs to the channel if the data begins with the channel's name and a dot.
    fn is_of(&self, message: &[u8], channel: &Channel) -> bool {
        let rest = message.strip_prefix(channel.as_str().as_bytes());
        rest.is_some_and(|rest| rest.starts_with(b"."))
    }

    fn difference(&self, base: &[u8], target: &[u8]) -> Option<Vec<u8>> {
        let letters = base.iter().zip(target);
        let same = letters.take_while(|(one, other)| one == other).count();
        let difference = [format!("{same}+").as_bytes(), &target[same..]].concat();
        (difference.len() < target.len()).then_some(difference)
    }
}

/// A wall clock that stands still at this Unix time, in seconds.
#[derive(Debug)]
pub(super) struct At(pub(super) u64);

impl Clock for At {
    fn now(&self) -> Duration {
        Duration::from_secs(self.0)
    }
}

/// A socket with limited room that stores the bytes it takes.
#[derive(Debug)]
pub(super) struct Pipe {
    room: usize,
    pub(super) taken: Vec<u8>,
    /// The number of bytes offered in each write.
    pub(super) writes: Vec<usize>,
}

impl Default for Pipe {
    fn default() -> Self {
        Self::with_room(usize::MAX)
    }
}

impl Pipe {
    pub(super) fn with_room(room: usize) -> Self {
        Self {
            room,
            taken: Vec::new(),
            writes: Vec::new(),
        }
    }

    /// The frames that the socket took. The bytes must be whole frames with payloads of up to 125
    /// bytes, or single bytes `x`.
    pub(super) fn frames(&self) -> Vec<Bytes> {
        let (mut frames, mut rest) = (Vec::new(), &self.taken[..]);
        while let [first, length, ..] = *rest {
            let size = if first == b'x' {
                1
            } else {
                2 + usize::from(length)
            };
            let (frame, behind) = rest.split_at(size);
            frames.push(Bytes::copy_from_slice(frame));
            rest = behind;
        }
        frames.extend((!rest.is_empty()).then(|| Bytes::copy_from_slice(rest)));
        frames
    }
}

impl Socket for Pipe {
    fn write(&mut self, batch: WriteBatch<'_>) -> Poll<io::Result<usize>> {
        let bytes: Vec<u8> = match batch {
            WriteBatch::Bytes(bytes) => bytes.to_vec(),
            WriteBatch::Slices(slices) => slices.iter().flat_map(|slice| slice.to_vec()).collect(),
        };
        self.writes.push(bytes.len());
        let some = bytes.len().min(self.room);
        if some == 0 {
            return Poll::Pending;
        }
        self.room -= some;
        self.taken.extend(&bytes[..some]);
        Poll::Ready(Ok(some))
    }

    fn flush(&mut self) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn holds_back(&self) -> bool {
        false
    }
}

/// A hub, with the lease, the metrics and the protocols that it uses.
pub(super) struct Harness {
    pub(super) hub: Hub,
    pub(super) lease: Arc<DeliveryLease>,
    pub(super) metrics: Arc<HubMetrics>,
    /// Two protocols, so that a broadcast has to encode a publication for each protocol.
    pub(super) protocols: [Arc<Plain>; 2],
}

impl Harness {
    pub(super) fn new() -> Self {
        Self::with_limits(1024, 0)
    }

    pub(super) fn with_limits(outbound_bytes: usize, node_outbound_bytes: usize) -> Self {
        let protocols = ["one", "two"].map(|name| {
            Arc::new(Plain {
                name,
                encoded: AtomicUsize::new(0),
            })
        });
        let metrics = HubMetrics::register(&Registry::default());
        let known = protocols
            .iter()
            .map(|plain| Wire::new(Arc::clone(plain) as _, Arc::new(WebSocket)));
        let limits = HubLimits {
            outbound_bytes,
            node_outbound_bytes,
            window_bytes: 64 * 1024 * 1024,
        };
        let lease = Arc::new(DeliveryLease::perpetual());
        let hub = Hub::new(
            Wires::new(known.collect()),
            limits,
            Arc::clone(&lease),
            DeliveryPath::Local,
            Arc::clone(&metrics),
        );
        hub.set_kinds(&[CLAIM.to_owned()]);
        Self {
            hub,
            lease,
            metrics,
            protocols,
        }
    }

    pub(super) fn wire(&self, name: &str) -> WireId {
        self.hub.wires().find(name).unwrap()
    }

    /// Registers a session without opening it.
    pub(super) fn register(&self, principal: &Arc<Principal>, protocol: &str) -> Arc<Member> {
        let session = SessionId::new();
        let wire = self.wire(protocol);
        let principal = Arc::clone(principal);
        self.hub.register(session, wire, &At(0), principal).0
    }

    /// Opens a session of `user`.
    pub(super) fn open(&self, user: &str) -> Arc<Member> {
        self.open_as(&principal(user, "t", 100, "{}"))
    }

    pub(super) fn open_as(&self, principal: &Arc<Principal>) -> Arc<Member> {
        let member = self.register(principal, "one");
        assert!(member.outbox().open(Lanes::default()));
        member
    }

    pub(super) fn unregister(&self, member: &Member) {
        self.hub.unregister(member);
    }

    /// Lets the session's task write to a socket that takes everything, and returns the frames.
    pub(super) fn drain(&self, member: &Member) -> Vec<Bytes> {
        let mut socket = Pipe::default();
        self.write(member, &mut socket);
        socket.frames()
    }

    /// Lets the session's task write, as it does when it wakes.
    pub(super) fn write(&self, member: &Member, socket: &mut Pipe) -> Progress {
        self.write_to(member, socket)
    }

    pub(super) fn write_to(&self, member: &Member, socket: &mut impl Socket) -> Progress {
        member.write(&self.hub, &At(1_000), socket)
    }

    pub(super) fn publish(&self, channel: &Channel, data: &str) -> crate::Delivered {
        self.hub.broadcast(&publication(channel, data))
    }

    pub(super) fn dropped(&self, reason: DropReason) -> u64 {
        self.metrics.messages_dropped.get(reason)
    }
}

/// A waker that counts its wake-ups.
#[derive(Debug, Default)]
struct Waker(AtomicUsize);

impl Wake for Waker {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The waiting task of a session.
pub(super) struct Task {
    wakes: Arc<Waker>,
}

impl Task {
    pub(super) fn new() -> Self {
        Self {
            wakes: Arc::default(),
        }
    }

    pub(super) fn wakes(&self) -> usize {
        self.wakes.0.load(Ordering::Relaxed)
    }

    pub(super) fn waits(&self, member: &Member, blocked: bool) -> bool {
        let waker = Arc::clone(&self.wakes).into();
        member
            .outbox()
            .poll_wake(&Context::from_waker(&waker), blocked)
            .is_pending()
    }
}

pub(super) fn channel(name: &str) -> Channel {
    Channel::parse(name).unwrap()
}

pub(super) fn publication(channel: &Channel, data: &str) -> Publication {
    Publication {
        channel: channel.clone(),
        data: Bytes::copy_from_slice(data.as_bytes()),
        from: None,
        sender: None,
        is_binary: false,
        entry: None,
        trace: None,
    }
}

pub(super) fn principal(
    user: &str,
    token_id: &str,
    issued_at: u64,
    claims: &str,
) -> Arc<Principal> {
    Arc::new(Principal::new(PrincipalParts {
        user: user.into(),
        issuer: "main".into(),
        key_id: None,
        token_id: Some(token_id.into()),
        issued_at: Some(issued_at),
        expires_at: 4_000_000_000,
        leeway: Duration::ZERO,
        claims: Claims::from_json(claims),
    }))
}

/// The payload of an unmasked text frame of fewer than 126 bytes.
pub(super) fn payload(frame: &Bytes) -> String {
    String::from_utf8(frame[2..].to_vec()).unwrap()
}

pub(super) fn payloads(frames: &[Bytes]) -> Vec<String> {
    frames.iter().map(payload).collect()
}
