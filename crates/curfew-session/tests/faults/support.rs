//! A node whose backend can be broken, and a client at the other end of a pipe.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use curfew_auth::{Algorithm, Authenticator, Issuer, MintKey};
use curfew_backend::conformance::ManualClock;
use curfew_backend::memory::Memory;
use curfew_backend::{
    BackendError, Backends, BoxFuture, Broker, NodeInfo, OpenError, Revocations, Revoked,
    SessionFilter, SessionPage, SessionRecord, Sessions,
};
use curfew_hub::{Hub, HubLimits};
use curfew_model::{
    Action, Channel, Clock, NodeId, Publication, Revocation, RevocationKey, Secret, SessionId,
};
use curfew_node::{HubEvents, Node};
use curfew_policy::{Config as PolicyConfig, Policy, Rule};
use curfew_protocol::Protocols;
use curfew_protocol::native::Native;
use curfew_session::{Context, Guards, Opening, Session, Settings};
use curfew_telemetry::{Metrics, Names};
use curfew_ws::Transport;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::Notify;
use tokio::time;

/// What the pipe between client and session holds.
pub(crate) const PIPE_BYTES: usize = 32 * 1024;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Longest wait for a frame, in the test's own time.
const PATIENCE: Duration = Duration::from_secs(5);

/// What of the backend does not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Revocations are unavailable.
    Revocations,
    /// Records are unavailable.
    Sessions,
    /// The broker is unavailable.
    Broker,
    /// The broker does not answer until it is repaired.
    Hang,
    /// The broker panics.
    Panic,
    /// Alice is revoked right after the revocations were read.
    RevokedAfterCheck,
    /// Alice is revoked right before a session is recorded.
    RevokedBeforeRecord,
    /// Alice is revoked right after a session was recorded.
    RevokedAfterRecord,
}

/// The in-memory backend behind faults.
struct Faulty {
    inner: Backends,
    fault: Mutex<Option<Fault>>,
    repaired: Notify,
    waiting: AtomicBool,
}

impl Faulty {
    fn check(&self, fault: Fault) -> Result<(), BackendError> {
        match *self.fault.lock() {
            Some(now) if now == fault => Err(BackendError::unavailable("broken by the test")),
            _ => Ok(()),
        }
    }

    async fn revoke_if(&self, fault: Fault) {
        if *self.fault.lock() == Some(fault) {
            let alice = RevocationKey::user("alice");
            self.inner
                .revocations
                .revoke(alice, Revocation::default())
                .await
                .unwrap();
        }
    }

    async fn broker(&self) -> Result<(), BackendError> {
        self.check(Fault::Broker)?;
        if *self.fault.lock() == Some(Fault::Panic) {
            panic!("broken by the test");
        }
        while *self.fault.lock() == Some(Fault::Hang) {
            self.waiting.store(true, Ordering::Relaxed);
            self.repaired.notified().await;
        }
        Ok(())
    }
}

impl Broker for Faulty {
    fn subscribe<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async move {
            self.broker().await?;
            self.inner.broker.subscribe(channel).await
        })
    }

    fn unsubscribe<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<(), BackendError>> {
        self.inner.broker.unsubscribe(channel)
    }

    fn publish(&self, publication: Publication) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(async move {
            self.broker().await?;
            self.inner.broker.publish(publication).await
        })
    }
}

impl Sessions for Faulty {
    fn open(&self, record: SessionRecord, max: u32) -> BoxFuture<'_, Result<(), OpenError>> {
        Box::pin(async move {
            self.check(Fault::Sessions)?;
            self.revoke_if(Fault::RevokedBeforeRecord).await;
            let result = self.inner.sessions.open(record, max).await;
            self.revoke_if(Fault::RevokedAfterRecord).await;
            result
        })
    }

    fn refresh(&self, record: SessionRecord) -> BoxFuture<'_, Result<(), BackendError>> {
        self.inner.sessions.refresh(record)
    }

    fn close<'a>(&'a self, sessions: &'a [SessionId]) -> BoxFuture<'a, Result<(), BackendError>> {
        self.inner.sessions.close(sessions)
    }

    fn get(&self, id: SessionId) -> BoxFuture<'_, Result<Option<SessionRecord>, BackendError>> {
        self.inner.sessions.get(id)
    }

    fn list<'a>(
        &'a self,
        filter: &'a SessionFilter,
    ) -> BoxFuture<'a, Result<SessionPage, BackendError>> {
        self.inner.sessions.list(filter)
    }

    fn disconnect(&self, session: SessionId) -> BoxFuture<'_, Result<bool, BackendError>> {
        self.inner.sessions.disconnect(session)
    }
}

impl Revocations for Faulty {
    fn check<'a>(
        &'a self,
        keys: &'a [RevocationKey],
        issued_at: Option<u64>,
    ) -> BoxFuture<'a, Result<Option<Revoked>, BackendError>> {
        Box::pin(async move {
            self.check(Fault::Revocations)?;
            let found = self.inner.revocations.check(keys, issued_at).await;
            self.revoke_if(Fault::RevokedAfterCheck).await;
            found
        })
    }

    fn revoke(
        &self,
        key: RevocationKey,
        revocation: Revocation,
    ) -> BoxFuture<'_, Result<curfew_backend::Receipt, BackendError>> {
        self.inner.revocations.revoke(key, revocation)
    }

    fn restore<'a>(&'a self, key: &'a RevocationKey) -> BoxFuture<'a, Result<bool, BackendError>> {
        self.inner.revocations.restore(key)
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Revoked>, BackendError>> {
        self.inner.revocations.list()
    }
}

/// A node with a backend that can be broken.
pub(crate) struct Harness {
    pub(crate) node: Arc<Node>,
    pub(crate) policy: Arc<Policy>,
    context: Arc<Context>,
    clock: Arc<ManualClock>,
    faulty: Arc<Faulty>,
}

impl Harness {
    /// A node that pings too seldom for a test to notice.
    pub(crate) fn new() -> Self {
        Self::pinging(Duration::from_secs(24 * 3600))
    }

    pub(crate) fn pinging(ping_interval: Duration) -> Self {
        let clock = Arc::new(ManualClock::default());
        let wall: Arc<dyn Clock> = Arc::clone(&clock) as _;
        let protocols = Protocols::new(vec![Arc::new(Native)]);
        let metrics = Metrics::new(&Names::default());
        let limits = HubLimits {
            outbound_bytes: 1024 * 1024,
            node_outbound_bytes: 0,
        };
        let hub = Arc::new(Hub::new(protocols, limits, Arc::clone(&metrics)));
        let events = Arc::new(HubEvents::new(Arc::clone(&hub), Arc::clone(&metrics)));
        let id = NodeId::new();
        let info = NodeInfo {
            node: id,
            address: String::new(),
            version: String::new(),
            started_at: 0,
            sessions: 0,
        };
        let inner = Memory::new(info, Arc::clone(&wall), events, "curfew:".to_owned()).backends();
        let faulty = Arc::new(Faulty {
            inner: inner.clone(),
            fault: Mutex::default(),
            repaired: Notify::new(),
            waiting: AtomicBool::new(false),
        });
        let backends = Backends {
            broker: Arc::clone(&faulty) as _,
            sessions: Arc::clone(&faulty) as _,
            revocations: Arc::clone(&faulty) as _,
            nodes: inner.nodes,
        };
        let auth = curfew_auth::Config {
            issuers: vec![Issuer {
                name: "test".to_owned(),
                secret: Some(Secret::new(SECRET)),
                ..Issuer::default()
            }],
            ..curfew_auth::Config::default()
        };
        let authenticator = Authenticator::new(&auth, Arc::clone(&wall)).unwrap();
        let node = Node::start(
            id,
            hub,
            backends,
            wall,
            metrics,
            curfew_node::Settings::default(),
        );
        let policy = Arc::new(Policy::new(&PolicyConfig {
            rules: vec![Rule {
                name: "all".to_owned(),
                channels: vec!["*".to_owned()],
                actions: vec![Action::Subscribe, Action::Publish],
                ..Rule::default()
            }],
            ..PolicyConfig::default()
        }));
        let context = Arc::new(Context {
            node: Arc::clone(&node),
            authenticator: Arc::new(authenticator),
            policy: Arc::clone(&policy),
            settings: ArcSwap::from_pointee(Settings {
                session: curfew_session::Config {
                    ping_interval,
                    ..curfew_session::Config::default()
                },
                limits: curfew_session::LimitsConfig::default(),
                auth_timeout: auth.timeout,
            }),
        });
        Self {
            node,
            policy,
            context,
            clock,
            faulty,
        }
    }

    /// A connection that has not authenticated.
    pub(crate) fn connect(&self) -> Client {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let guards = Guards {
            connection: Box::new(()),
            unauthenticated: None,
        };
        let session = Session::new(
            Arc::clone(&self.context),
            Transport::Memory(Box::new(theirs)),
            bytes::Bytes::new(),
            self.node.hub().protocols().default_id(),
            Opening::Awaiting,
            guards,
        );
        tokio::spawn(curfew_session::run(session));
        Client {
            stream: ours,
            answers_pings: true,
        }
    }

    /// An open session, for an hour.
    pub(crate) async fn open(&self, user: &str) -> Client {
        let mut client = self.connect();
        client
            .send(&json!({"type":"auth","token":self.token(user, 3600)}))
            .await;
        assert_eq!(client.frame().await["type"], "connected");
        client
    }

    pub(crate) fn token(&self, user: &str, ttl: u64) -> String {
        let now = self.clock.unix();
        let claims = json!({"sub": user, "iat": now, "exp": now + ttl});
        let key = MintKey::Secret(SECRET.as_bytes().to_vec());
        curfew_auth::mint(claims.as_object().unwrap(), None, Algorithm::HS256, &key).unwrap()
    }

    pub(crate) fn break_down(&self, fault: Fault) {
        *self.faulty.fault.lock() = Some(fault);
    }

    pub(crate) fn repair(&self) {
        *self.faulty.fault.lock() = None;
        self.faulty.repaired.notify_waiters();
    }

    /// Until the broker was asked and hangs.
    pub(crate) async fn until_waiting(&self) {
        while !self.faulty.waiting.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
    }

    /// Until no session is left.
    pub(crate) async fn gone(&self) {
        time::timeout(PATIENCE, async {
            while self.node.hub().count() > 0 {
                time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .unwrap();
    }

    /// Lets both clocks run, a second at a time, so that every timer on the way fires.
    pub(crate) async fn advance(&self, time: Duration) {
        for _ in 0..time.as_secs() {
            self.clock.advance(Duration::from_secs(1));
            time::advance(Duration::from_secs(1)).await;
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
        }
    }

    pub(crate) async fn revoke_user(&self, user: &str) -> u64 {
        let key = RevocationKey::user(user);
        let receipt = self
            .faulty
            .revoke(key, Revocation::default())
            .await
            .unwrap();
        receipt.closed
    }

    pub(crate) async fn publish(&self, channel: &str, text: &str) {
        let publication = Publication {
            channel: Channel::parse(channel).unwrap(),
            data: serde_json::to_vec(text).unwrap().into(),
            from: None,
        };
        self.node.publish(publication).await.unwrap();
    }
}

/// The client's end of a pipe.
pub(crate) struct Client {
    stream: DuplexStream,
    pub(crate) answers_pings: bool,
}

impl Client {
    pub(crate) async fn send(&mut self, message: &Value) {
        self.send_all(std::slice::from_ref(message)).await;
    }

    /// Several messages in one write.
    pub(crate) async fn send_all(&mut self, messages: &[Value]) {
        let mut bytes = Vec::new();
        for message in messages {
            masked(&mut bytes, 1, message.to_string().as_bytes());
        }
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// The next text frame, as JSON.
    pub(crate) async fn frame(&mut self) -> Value {
        loop {
            let (opcode, payload) = self.read().await;
            match opcode {
                1 => return serde_json::from_slice(&payload).unwrap(),
                9 if self.answers_pings => {
                    let mut pong = Vec::new();
                    masked(&mut pong, 10, &payload);
                    self.stream.write_all(&pong).await.unwrap();
                }
                9 => {}
                _ => panic!("a frame with opcode {opcode}: {payload:?}"),
            }
        }
    }

    /// The next text frame of a type.
    pub(crate) async fn skip_to(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.frame().await;
            if frame["type"] == kind {
                return frame;
            }
        }
    }

    /// That the session is alive and answers.
    pub(crate) async fn expect_pong(&mut self) {
        self.send(&json!({"type":"ping","id":"alive"})).await;
        assert_eq!(self.skip_to("pong").await["id"], "alive");
    }

    /// The close frame's code; nothing else may come before it.
    pub(crate) async fn closed(&mut self) -> u16 {
        let (opcode, payload) = self.read().await;
        assert_eq!(opcode, 8, "{payload:?}");
        u16::from_be_bytes([payload[0], payload[1]])
    }

    async fn read(&mut self) -> (u8, Vec<u8>) {
        time::timeout(PATIENCE, async {
            let first = self.stream.read_u8().await.unwrap();
            let length = match self.stream.read_u8().await.unwrap() {
                126 => usize::from(self.stream.read_u16().await.unwrap()),
                length => usize::from(length),
            };
            let mut payload = vec![0; length];
            self.stream.read_exact(&mut payload).await.unwrap();
            (first & 0x0f, payload)
        })
        .await
        .expect("a frame in time")
    }
}

/// A client's frame; masked with zeros, which changes nothing.
fn masked(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(0x80 | opcode);
    if payload.len() < 126 {
        out.push(0x80 | u8::try_from(payload.len()).unwrap());
    } else {
        out.push(0x80 | 126);
        out.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    }
    out.extend([0; 4]);
    out.extend(payload);
}
