//! The nodes that a check runs on.

use std::collections::{HashMap, HashSet};
use std::future::ready;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use curfew_model::{
    Channel, Claims, Clock, Disconnect, GapReason, NodeId, Position, PresenceChange, PresenceEntry,
    Present, Principal, PrincipalParts, Publication, Revocation, RevocationKey, SessionId,
    SystemClock, boottime,
};
use parking_lot::Mutex;

use super::DEADLINE;
use crate::{
    Backends, BoxFuture, ClosedSession, Ended, Events, LocalSessions, Relayed, SessionRecord,
    Suspension,
};

/// Interval between two checks of a condition.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// One node of a cluster under test.
#[derive(Debug)]
pub struct Member {
    /// The node's id.
    pub node: NodeId,
    /// The node's backend.
    pub backends: Backends,
}

/// A cluster under test. Most checks act on the first node, and observe the last node or all nodes.
#[derive(Debug)]
pub struct Cluster {
    pub(super) clock: Arc<ManualClock>,
    pub(super) members: Vec<Member>,
    pub(super) recorders: Vec<Arc<Recorder>>,
}

impl Cluster {
    pub(super) async fn start<F, Fut>(nodes: usize, make: F) -> Self
    where
        F: Fn(Arc<ManualClock>, Vec<Arc<Recorder>>) -> Fut,
        Fut: Future<Output = Vec<Member>>,
    {
        let clock = Arc::new(ManualClock::default());
        let recorders: Vec<_> = (0..nodes).map(|_| Arc::default()).collect();
        let members = make(Arc::clone(&clock), recorders.clone()).await;
        assert_eq!(
            members.len(),
            nodes.max(1),
            "`make` returns one member for each recorder"
        );
        Self {
            clock,
            members,
            recorders,
        }
    }

    pub(super) fn first(&self) -> &Backends {
        &self.members[0].backends
    }

    pub(super) fn last(&self) -> &Backends {
        &self.members[self.members.len() - 1].backends
    }

    pub(super) fn last_recorder(&self) -> &Recorder {
        &self.recorders[self.recorders.len() - 1]
    }

    /// The record of a new session on the first node. The session's token is valid for `ttl`
    /// seconds.
    pub(super) fn record(&self, user: &str, ttl: u64) -> SessionRecord {
        let now = self.clock.unix();
        SessionRecord {
            session: SessionId::new(),
            principal: Arc::new(Principal::new(PrincipalParts {
                user: user.into(),
                issuer: "main".into(),
                key_id: None,
                token_id: Some("t1".into()),
                issued_at: Some(now),
                expires_at: now + ttl,
                leeway: Duration::ZERO,
                claims: Claims::from_json(r#"{"tenant":"acme"}"#),
            })),
            node: self.members[0].node,
            connected_at: now,
            protocol: "curfew.v1".into(),
            address: Some(IpAddr::from([203, 0, 113, 1])),
        }
    }
}

/// Waits until `condition` holds. Panics with `what` if the condition does not hold in time.
pub(super) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    };
    assert!(
        tokio::time::timeout(DEADLINE, waiting).await.is_ok(),
        "waited in vain until {what}"
    );
}

/// A clock that tests move. It starts at the real time, so that it agrees with a backend's own
/// clock until a test moves it. After a move, the backend's clock reaches the new time later.
#[derive(Debug)]
pub struct ManualClock {
    wall: Mutex<Duration>,
    boot: Mutex<Duration>,
}

impl ManualClock {
    /// Moves the wall clock and the boot-time clock forward.
    pub fn advance(&self, by: Duration) {
        *self.wall.lock() += by;
        *self.boot.lock() += by;
    }

    /// Sets the wall clock back. The boot-time clock does not change.
    pub fn set_back(&self, by: Duration) {
        *self.wall.lock() -= by;
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self {
            wall: Mutex::new(SystemClock.now()),
            boot: Mutex::new(boottime()),
        }
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        *self.wall.lock()
    }

    fn boottime(&self) -> Duration {
        *self.boot.lock()
    }
}

/// Stands for a node: records the calls that its backend makes.
#[derive(Debug, Default)]
pub struct Recorder {
    heard: Mutex<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    publications: Vec<Publication>,
    gaps: Vec<(Channel, GapReason)>,
    cleared: Vec<Channel>,
    presence: Vec<(Channel, PresenceChange, Present)>,
    revoked: Vec<(RevocationKey, Revocation)>,
    disconnected: Vec<(SessionId, Disconnect)>,
    /// The sessions of this node.
    sessions: HashSet<SessionId>,
    /// For each key, the number of sessions that the next revocation of the key ends.
    named: HashMap<RevocationKey, usize>,
    /// The kinds for which [`Events::finds`] returns false.
    unfound: HashSet<String>,
    relayed: Vec<Bytes>,
    /// The answer to messages of other nodes. `None` stands for [`Relayed::Taken`].
    answer: Option<Relayed>,
}

impl Recorder {
    /// Pretends that this node has a session.
    pub fn hold(&self, session: SessionId) {
        self.heard.lock().sessions.insert(session);
    }

    /// Pretends that the next revocation of `key` ends `count` sessions of this node.
    pub fn hold_named(&self, key: RevocationKey, count: usize) {
        self.heard.lock().named.insert(key, count);
    }

    /// Pretends that a revocation of this kind does not find every session of this node.
    pub fn lose(&self, kind: &str) {
        self.heard.lock().unfound.insert(kind.to_owned());
    }

    /// The publications that arrived, in order.
    pub fn publications(&self) -> Vec<Publication> {
        self.heard.lock().publications.clone()
    }

    /// The reported gaps, in order.
    pub fn gaps(&self) -> Vec<(Channel, GapReason)> {
        self.heard.lock().gaps.clone()
    }

    /// The channels whose streams were cleared, in order.
    pub fn cleared(&self) -> Vec<Channel> {
        self.heard.lock().cleared.clone()
    }

    /// The reported changes of presence, in order.
    pub fn presence(&self) -> Vec<(Channel, PresenceChange, Present)> {
        self.heard.lock().presence.clone()
    }

    /// The reported revocations, in order.
    pub fn revoked(&self) -> Vec<(RevocationKey, Revocation)> {
        self.heard.lock().revoked.clone()
    }

    /// Forgets the reported revocations.
    pub fn forget_revoked(&self) {
        self.heard.lock().revoked.clear();
    }

    /// The messages from other nodes, in order.
    pub fn relayed(&self) -> Vec<Bytes> {
        self.heard.lock().relayed.clone()
    }

    /// Answers messages of other nodes with `answer` from now on.
    pub fn answer_relayed(&self, answer: Relayed) {
        self.heard.lock().answer = Some(answer);
    }

    /// The sessions of this node that the backend ended, in order.
    pub fn disconnected(&self) -> Vec<(SessionId, Disconnect)> {
        self.heard.lock().disconnected.clone()
    }
}

impl Events for Recorder {
    fn publication(&self, publication: &Publication) {
        self.heard.lock().publications.push(publication.clone());
    }

    fn gap(&self, channel: &Channel, reason: GapReason) {
        self.heard.lock().gaps.push((channel.clone(), reason));
    }

    fn cleared(&self, channel: &Channel) {
        self.heard.lock().cleared.push(channel.clone());
    }

    fn presence_changed(&self, channel: &Channel, change: PresenceChange, present: &Present) {
        let told = (channel.clone(), change, present.clone());
        self.heard.lock().presence.push(told);
    }

    fn doubt_streams(&self) {}

    fn interrupted(&self, _: &Channel) {}

    fn revoked_nobody(&self, _: &RevocationKey, _: &Revocation) {}

    fn revoked(&self, key: &RevocationKey, revocation: &Revocation, _: Instant) -> Ended {
        let mut heard = self.heard.lock();
        heard.revoked.push((key.clone(), revocation.clone()));
        Ended::gone(heard.named.remove(key).unwrap_or(0))
    }

    fn suspend(&self, _: &RevocationKey) -> Option<Suspension> {
        None
    }

    fn finds(&self, kind: &str) -> bool {
        !self.heard.lock().unfound.contains(kind)
    }

    fn disconnect(&self, session: SessionId, disconnect: Disconnect) -> bool {
        let mut heard = self.heard.lock();
        let found = heard.sessions.remove(&session);
        if found {
            heard.disconnected.push((session, disconnect));
        }
        found
    }

    /// Answers as if the client of every session of this node responded.
    fn probe(&self, mut sessions: Vec<SessionId>) -> BoxFuture<'static, Vec<SessionId>> {
        let heard = self.heard.lock();
        sessions.retain(|session| !heard.sessions.contains(session));
        Box::pin(ready(sessions))
    }

    fn relayed(&self, message: Bytes) -> BoxFuture<'static, Relayed> {
        let mut heard = self.heard.lock();
        heard.relayed.push(message);
        Box::pin(ready(heard.answer.unwrap_or(Relayed::Taken)))
    }

    fn reopened(&self) {}

    fn isolated(&self) -> usize {
        0
    }
}

/// The sessions that this node pretends to have. The node reports no records for them, because only
/// the checks write records.
impl LocalSessions for Recorder {
    fn sessions(&self) -> Vec<SessionId> {
        self.heard.lock().sessions.iter().copied().collect()
    }

    fn keys(&self, sessions: &[SessionId]) -> Vec<RevocationKey> {
        sessions
            .iter()
            .map(|session| RevocationKey::session(*session))
            .collect()
    }

    fn is_kind(&self, kind: &str) -> bool {
        kind == "tenant"
    }

    fn records(&self, _: &[SessionId]) -> Vec<SessionRecord> {
        Vec::new()
    }

    fn reached(&self, _: &Channel) -> Option<Position> {
        None
    }

    fn presence(&self, _: &[SessionId]) -> Vec<PresenceEntry> {
        Vec::new()
    }
}

/// The session of `record`, as [`Sessions::close`](crate::Sessions::close) takes it.
pub(super) fn closed(record: &SessionRecord) -> ClosedSession {
    ClosedSession {
        session: record.session,
        principal: Arc::clone(&record.principal),
    }
}
