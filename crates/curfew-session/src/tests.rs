//! Tests of sessions with the real protocol. A connection is a pipe, or a socket if the test
//! depends on a socket. The backend is the embedded one behind a `Rig`, which counts, holds and
//! changes calls. Time is paused: while a test waits for a frame, time advances to the next timer.

mod access;
mod centrifuge;
mod commands;
mod ending;
mod faults;
mod flushed;
mod lease;
mod lost;
mod peer;
mod pipeline;
mod recovered;
#[path = "../../curfew-node/src/tests/rig.rs"]
mod rig;
mod second_protocol;
mod subscription_tokens;
mod timing;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use curfew_auth::{Algorithm, Authenticator, Issuer, MintKey, mint};
use curfew_backend::memory::Memory;
use curfew_backend::{Events as _, NodeInfo, SessionFilter};
use curfew_hub::{DeliveryPath, Hub, HubLimits, HubMetrics, Wire, Wires};
use curfew_model::{
    Action, Channel, Clock as _, Command, DeliveryLease, Disconnect, NodeId, Publication, Secret,
};
use curfew_node::{Attachment, HubEvents, Node, NodeMetrics};
use curfew_policy::{Policy, Rule};
use curfew_protocol::Protocol;
use curfew_protocol::native::Native;
use curfew_telemetry::Registry;
use curfew_ws::{Transport, Upgraded};
use serde_json::{Value, json};
use tokio::time;

use crate::{
    Context, Credentials, Guards, Initiator, LimitsConfig, Opening, PublishOutcome, PublishSource,
    Session, SessionConfig, SessionMetrics, SessionSettings, WireId,
};
use peer::Peer;
use rig::{Rig, RigClock};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Capacity of a pipe in each direction, in bytes, unless a test sets another capacity.
const ROOM: usize = 64 * 1024;

const SUBSCRIBE: &str = r#"{"type":"subscribe","id":1,"channel":"room"}"#;

/// Lifetime of the tests' tokens, in seconds.
const TTL: u64 = 600;

/// A node, and the shared state of its sessions.
struct Harness {
    context: Arc<Context>,
    rig: Arc<Rig>,
    lease: Arc<DeliveryLease>,
    events: Arc<HubEvents>,
    clock: Arc<RigClock>,
    metrics: Arc<SessionMetrics>,
    /// Cloned into each connection's guards, so that its reference count shows how many connections
    /// are live.
    place: Arc<()>,
    unauthenticated: Arc<()>,
}

impl Harness {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut SessionSettings)) -> Self {
        Self::build(change, vec![Wire::websocket(Native)])
    }

    fn build(change: impl FnOnce(&mut SessionSettings), wires: Vec<Wire>) -> Self {
        let mut settings = SessionSettings {
            shows_sender: false,
            personal_channels: false,
            subscription_tokens: false,
            channels: curfew_node::ChannelEntries::default(),
            listeners: Arc::new(()),
            session: SessionConfig::default(),
            limits: LimitsConfig::default(),
            auth_timeout: Duration::from_secs(5),
            anonymous: None,
            login_claim: "sid".to_owned(),
            auth_frame_bytes: curfew_auth::AuthConfig::default().auth_frame_bytes(),
            policy: Arc::new(Policy::new(&allowing(&[
                Action::Subscribe,
                Action::Publish,
            ]))),
        };
        change(&mut settings);
        let clock = RigClock::new();
        let registry = Registry::default();
        let counted = NodeMetrics::register(&registry);
        let metrics = SessionMetrics::register(&registry);
        let limits = HubLimits {
            outbound_bytes: settings.limits.outbound_bytes,
            node_outbound_bytes: settings.limits.node_outbound_bytes,
            window_bytes: 64 * 1024 * 1024,
        };
        let lease = Arc::new(DeliveryLease::perpetual());
        let hub = Arc::new(Hub::new(
            Wires::new(wires),
            limits,
            Arc::clone(&lease),
            DeliveryPath::Local,
            HubMetrics::register(&registry),
        ));
        let id = NodeId::new();
        let events = Arc::new(HubEvents::new(id, Arc::clone(&hub), Arc::clone(&counted)));
        let info = NodeInfo {
            node: id,
            name: String::new(),
            address: String::new(),
            version: String::new(),
            started_at: clock.unix(),
            sessions: 0,
            channels: None,
        };
        let memory = Memory::new(
            info,
            Arc::clone(&clock) as _,
            Arc::clone(&events) as _,
            "curfew:".to_owned(),
        );
        let rig = Rig::new(memory.backends());
        let node = Node::start(
            id,
            hub,
            rig.backends(),
            Arc::clone(&clock) as _,
            counted,
            &settings.session.revocable_claims,
            0,
        );
        let issuer = Issuer {
            name: "main".to_owned(),
            secret: Some(Secret::new(SECRET)),
            ..Issuer::default()
        };
        let auth = curfew_auth::AuthConfig {
            issuers: vec![issuer],
            ..curfew_auth::AuthConfig::default()
        };
        let context = Arc::new(Context {
            node,
            authenticator: Arc::new(Authenticator::new(&auth, Arc::clone(&clock) as _).unwrap()),
            metrics: Arc::clone(&metrics),
            settings: ArcSwap::from_pointee(settings),
        });
        Self {
            context,
            rig,
            lease,
            events,
            clock,
            metrics,
            place: Arc::default(),
            unauthenticated: Arc::default(),
        }
    }

    fn hub(&self) -> &Hub {
        self.context.node.hub()
    }

    /// A token of the user `alice`. `more` adds or replaces claims; the value `null` removes a
    /// claim.
    fn token(&self, more: Value) -> String {
        let now = self.clock.unix();
        let mut claims = json!({"sub": "alice", "jti": "t1", "iat": now, "exp": now + TTL});
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let mut claims = claims.as_object().unwrap().clone();
        claims.retain(|_, value| !value.is_null());
        let key = MintKey::Secret(SECRET.as_bytes().to_vec());
        mint(&claims, None, "HS256".parse::<Algorithm>().unwrap(), &key).unwrap()
    }

    /// A connection on a pipe of `room` bytes in each direction. `early` are bytes received right
    /// after the request.
    fn connect(&self, opening: Opening, room: usize, early: &[u8]) -> Peer {
        let (ours, theirs) = tokio::io::duplex(room);
        self.serve(Transport::Memory(Box::new(ours)), opening, early);
        Peer::new(theirs)
    }

    /// Runs a session on a connection with the default protocol.
    fn serve(&self, transport: Transport, opening: Opening, early: &[u8]) {
        let wire = self.hub().wires().default_id();
        self.serve_on(wire, transport, opening, early);
    }

    fn serve_on(&self, wire: WireId, transport: Transport, opening: Opening, early: &[u8]) {
        let guards = Guards {
            connection: Box::new(Arc::clone(&self.place)),
            unauthenticated: Some(Box::new(Arc::clone(&self.unauthenticated))),
        };
        let session = Session::new(
            Arc::clone(&self.context),
            Upgraded {
                transport,
                answer: Bytes::new(),
                early: Bytes::copy_from_slice(early),
            },
            wire,
            opening,
            guards,
        );
        self.context.node.spawn(crate::run(Box::new(session)));
    }

    /// A connection whose upgrade request carried no token.
    fn awaiting(&self) -> Peer {
        self.connect(Opening::Awaiting(by_message()), ROOM, &[])
    }

    /// A session of alice that has received `connected`.
    async fn open(&self) -> Peer {
        self.open_with(json!({}), ROOM).await
    }

    async fn open_with(&self, claims: Value, room: usize) -> Peer {
        let opening = Opening::Admitted(self.admit(claims).await);
        let mut peer = self.connect(opening, room, &[]);
        peer.expect("connected").await;
        peer
    }

    /// A session with a subscription to the channel `room`.
    async fn subscribed(&self) -> Peer {
        let mut peer = self.open().await;
        peer.ok(SUBSCRIBE).await;
        peer
    }

    async fn admit(&self, claims: Value) -> Attachment {
        let principal = self
            .context
            .authenticator
            .authenticate(&self.token(claims))
            .unwrap();
        let wire = self.hub().wires().default_id();
        let admitted = {
            let limit = self.context.settings.load().user_limit();
            self.context.node.admit(principal, wire, None, limit).await
        };
        admitted.unwrap()
    }

    /// Delivers a publication that no session has sent.
    fn publish(&self, channel: &str, data: &str) {
        self.hub().broadcast(&publication(channel, data));
    }

    /// Replaces the policy, as a reload does.
    fn reload(&self, policy: &curfew_policy::PolicyConfig) {
        let mut settings = SessionSettings::clone(&self.context.settings.load());
        settings.policy = Arc::new(Policy::new(policy));
        self.context.settings.store(Arc::new(settings));
        self.hub().reconsider_all();
    }

    fn connections(&self) -> usize {
        Arc::strong_count(&self.place) - 1
    }

    fn closed_with(&self, disconnect: Disconnect) -> u64 {
        self.metrics
            .connections_closed
            .get(disconnect.code, Initiator::Server)
    }

    /// Waits until the connections are closed and the backend has no record of a session. Then
    /// asserts that the hub, the metrics and the guards count no session either.
    async fn assert_nothing_left(&self) {
        let filter = SessionFilter {
            limit: 10,
            ..SessionFilter::default()
        };
        let gone = async {
            let records = async || {
                self.rig
                    .inner()
                    .sessions
                    .list(&filter)
                    .await
                    .unwrap()
                    .sessions
            };
            while self.connections() > 0 || !records().await.is_empty() {
                time::sleep(Duration::from_millis(1)).await;
            }
        };
        time::timeout(Duration::from_secs(10), gone)
            .await
            .expect("a connection or a session's record is left after ten seconds");
        assert_eq!((self.hub().count(), self.hub().channel_count()), (0, 0));
        assert_eq!(self.hub().queued_bytes(), 0);
        assert_eq!(
            (
                self.context.node.metrics().sessions.get(),
                self.context.node.metrics().subscriptions.get()
            ),
            (0, 0)
        );
        assert_eq!(Arc::strong_count(&self.unauthenticated), 1);
    }
}

/// A session whose client no longer reads, with a hundred messages of the channel `room` queued.
async fn blocked(harness: &Harness) -> Peer {
    let peer = harness.open_with(json!({}), 256).await;
    fill(harness, peer).await
}

/// Subscribes the client to the channel `room` and queues a hundred messages of this channel.
async fn fill(harness: &Harness, mut peer: Peer) -> Peer {
    peer.ok(r#"{"type":"subscribe","id":1,"channel":"room"}"#)
        .await;
    for at in 0..100 {
        harness.publish("room", &at.to_string());
    }
    time::sleep(Duration::from_millis(10)).await;
    peer
}

/// A publication that no session has sent.
fn publication(channel: &str, data: &str) -> Publication {
    Publication {
        channel: Channel::parse(channel).unwrap(),
        data: Bytes::copy_from_slice(data.as_bytes()),
        from: None,
        sender: None,
        is_binary: false,
        entry: None,
        trace: None,
    }
}

/// A policy that allows only `actions`, on every channel.
fn allowing(actions: &[Action]) -> curfew_policy::PolicyConfig {
    let rule = Rule {
        name: "everywhere".to_owned(),
        channels: vec!["*".to_owned()],
        actions: actions.to_vec(),
        ..Rule::default()
    };
    curfew_policy::PolicyConfig {
        rules: if actions.is_empty() {
            Vec::new()
        } else {
            vec![rule]
        },
        ..curfew_policy::PolicyConfig::default()
    }
}

/// The credentials of a connection whose upgrade request carried no token.
fn by_message() -> Credentials {
    Credentials {
        of_request: None,
        takes_message: true,
    }
}
