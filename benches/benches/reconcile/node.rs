//! A node with many sessions and no sockets. Its hub and its backend are those of the gateway.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use curfew_backend::{BoxFuture, Ended, Events, LocalSessions as _, NodeInfo, Relayed, Suspension};
use curfew_backend_redis::{Parts, Redis, RedisBackendConfig, RedisConfig, RedisMetrics, RedisUrl};
use curfew_hub::{DeliveryPath, Hub, HubLimits, HubMetrics, Lanes, Wire, Wires};
use curfew_model::{
    Channel, Claims, Clock as _, DeliveryLease, Disconnect, GapReason, NodeId, PresenceChange,
    Present, Principal, PrincipalParts, Publication, Revocation, RevocationKey, SessionId,
    SystemClock,
};
use curfew_node::{HubEvents, NodeMetrics};
use curfew_protocol::native::Native;
use curfew_telemetry::Registry;
use tokio::runtime::Runtime;

/// Lifetime of tokens, longer than any run.
const LIFETIME_SECONDS: u64 = 6 * 3600;

/// Deadline for the return of a lost lease.
const PATIENCE: Duration = Duration::from_secs(120);

/// A node that reports the times at which it holds its lease again.
#[derive(Debug)]
pub(crate) struct Node {
    /// The time of the backend's start. The sessions exist before this time.
    pub(crate) started: Instant,
    metrics: Arc<RedisMetrics>,
    opened: Receiver<Instant>,
    // Dropping the runtime ends the backend's tasks.
    _runtime: Runtime,
}

/// A handler of events that also reports when the lease is held again. It handles every event as a
/// node of the gateway does.
struct Watched {
    node: HubEvents,
    opened: Sender<Instant>,
}

impl Node {
    /// Starts a node with `sessions` open sessions. Each session has four revocation keys: its own
    /// key, its user's key, its token's key, and the key that covers every session.
    pub(crate) fn start(port: u16, sessions: usize) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let (metrics, lease) = (
            RedisMetrics::register(&Registry::default()),
            Arc::new(DeliveryLease::not_held()),
        );
        let hub = Arc::new(Hub::new(
            Wires::new(vec![Wire::websocket(Native)]),
            HubLimits {
                outbound_bytes: 1024 * 1024,
                node_outbound_bytes: 0,
                window_bytes: 64 * 1024 * 1024,
            },
            Arc::clone(&lease),
            DeliveryPath::Broker,
            HubMetrics::register(metrics.registry()),
        ));
        for number in 0..sessions {
            open(&hub, number);
        }
        let node = NodeId::new();
        let counted = NodeMetrics::register(metrics.registry());
        let hub_events = || HubEvents::new(node, Arc::clone(&hub), Arc::clone(&counted));
        let (sender, opened) = mpsc::channel();
        let parts = Parts {
            config: RedisBackendConfig {
                redis: RedisConfig {
                    url: RedisUrl::new(format!("redis://127.0.0.1:{port}")),
                    ..RedisConfig::default()
                },
                ..RedisBackendConfig::default()
            },
            info: NodeInfo {
                node,
                name: String::new(),
                address: "127.0.0.1:1".to_owned(),
                version: "0".to_owned(),
                started_at: SystemClock.unix(),
                sessions: sessions as u64,
                channels: None,
            },
            events: Arc::new(Watched {
                node: hub_events(),
                opened: sender,
            }),
            local: Arc::new(hub_events()),
            lease,
            clock: Arc::new(SystemClock),
            metrics: Arc::clone(&metrics),
        };
        let _guard = runtime.enter();
        let started = Instant::now();
        Redis::start(parts)?;
        Ok(Self {
            started,
            metrics,
            opened,
            _runtime: runtime,
        })
    }

    /// Waits for the next report that the lease is held again. A report that has arrived since the
    /// last call of this method counts. Returns the time of the report.
    pub(crate) fn opened(&self) -> anyhow::Result<Instant> {
        self.opened
            .recv_timeout(PATIENCE)
            .context("the node does not get its lease back in time")
    }

    /// Takes a report that the lease is held again from the queue. Returns false if no report is
    /// queued. Between two rounds, a report means that the node lost its lease although the
    /// benchmark had injected no fault.
    pub(crate) fn opened_by_itself(&self) -> bool {
        self.opened.try_recv().is_ok()
    }

    /// Number of revocations that the node knows.
    pub(crate) fn known(&self) -> usize {
        usize::try_from(self.metrics.revocations_known.get()).unwrap_or(0)
    }
}

fn open(hub: &Hub, number: usize) {
    let session = SessionId::new();
    let now = SystemClock.unix();
    let principal = Arc::new(Principal::new(PrincipalParts {
        user: format!("user-{number}").into(),
        issuer: "main".into(),
        key_id: None,
        token_id: Some(format!("token-{number}").into()),
        issued_at: Some(now),
        expires_at: now + LIFETIME_SECONDS,
        leeway: Duration::from_secs(5),
        claims: Claims::from_json("{}"),
    }));
    let protocol = hub.wires().default_id();
    let (member, _) = hub.register(session, protocol, &SystemClock, principal);
    assert!(
        member.outbox().open(Lanes::default()),
        "the session was told to end before it opened"
    );
}

impl Events for Watched {
    fn publication(&self, publication: &Publication) {
        self.node.publication(publication);
    }

    fn presence_changed(&self, channel: &Channel, change: PresenceChange, present: &Present) {
        self.node.presence_changed(channel, change, present);
    }

    fn cleared(&self, channel: &Channel) {
        self.node.cleared(channel);
    }

    fn interrupted(&self, channel: &Channel) {
        self.node.interrupted(channel);
    }

    fn doubt_streams(&self) {
        self.node.doubt_streams();
    }

    fn gap(&self, channel: &Channel, reason: GapReason) {
        self.node.gap(channel, reason);
    }

    fn revoked_nobody(&self, key: &RevocationKey, revocation: &Revocation) {
        self.node.revoked_nobody(key, revocation);
    }

    fn revoked(&self, key: &RevocationKey, revocation: &Revocation, learned: Instant) -> Ended {
        self.node.revoked(key, revocation, learned)
    }

    fn suspend(&self, key: &RevocationKey) -> Option<Suspension> {
        self.node.suspend(key)
    }

    fn finds(&self, kind: &str) -> bool {
        self.node.finds(kind)
    }

    fn disconnect(&self, session: SessionId, disconnect: Disconnect) -> bool {
        self.node.disconnect(session, disconnect)
    }

    fn probe(&self, sessions: Vec<SessionId>) -> BoxFuture<'static, Vec<SessionId>> {
        self.node.probe(sessions)
    }

    fn relayed(&self, message: Bytes) -> BoxFuture<'static, Relayed> {
        self.node.relayed(message)
    }

    fn reopened(&self) {
        // The send fails once the measurement is over.
        self.opened.send(Instant::now()).ok();
        self.node.reopened();
    }

    fn isolated(&self) -> usize {
        self.node.isolated()
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched")
            .field("sessions", &self.node.sessions().len())
            .finish_non_exhaustive()
    }
}
