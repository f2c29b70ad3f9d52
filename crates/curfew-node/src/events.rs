//! Handling of the backend's events: publications fan out, revocations end sessions.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::future::ready;
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use curfew_backend::{
    BoxFuture, Ended, Events, Leaving, LocalSessions, Relayed, SessionRecord, Suspension,
};
use curfew_hub::{Delivered, DeliveryPath, Ending, Hub, Member};
use curfew_model::{
    Channel, Disconnect, GapReason, NodeId, Position, PresenceChange, PresenceEntry, Present,
    Publication, Revocation, RevocationKey, SessionId, TraceContext,
};
use curfew_telemetry::{Span, SpanKind, Writes};
use parking_lot::Mutex;
use tokio::time;
use tracing::{debug, info, warn};

use crate::metrics::{NodeMetrics, RevocationKind};
use crate::presence::PATIENCE;
use crate::probe;

/// Maximum number of traced revocations that are remembered because they ended sessions or
/// subscriptions on this node.
const MAX_EFFECTIVE: usize = 256;

/// Name of the span of an applied revocation. The span has the number of sessions that the
/// revocation closed on this node.
const APPLY: &str = "revocation apply";

/// The receiver of the backend's events for the hub. The receiver holds no backend, because that
/// would create a reference cycle.
#[derive(Debug)]
pub struct HubEvents {
    node: NodeId,
    hub: Arc<Hub>,
    metrics: Arc<NodeMetrics>,
    /// Traces of recent revocations that have ended sessions or subscriptions on this node. They
    /// are remembered because each revocation is read more than once.
    effective: Mutex<VecDeque<TraceContext>>,
    receiver: OnceLock<RelayReceiver>,
}

/// The receiver of messages that other nodes send to this one: see [`Events::relayed`].
pub struct RelayReceiver(Box<dyn Fn(Bytes) -> BoxFuture<'static, Relayed> + Send + Sync>);

impl RelayReceiver {
    /// Makes a receiver that passes each message to `take`.
    pub fn new(
        take: impl Fn(Bytes) -> BoxFuture<'static, Relayed> + Send + Sync + 'static,
    ) -> Self {
        Self(Box::new(take))
    }
}

impl fmt::Debug for RelayReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayReceiver").finish_non_exhaustive()
    }
}

impl HubEvents {
    /// Makes the receiver for this hub.
    pub fn new(node: NodeId, hub: Arc<Hub>, metrics: Arc<NodeMetrics>) -> Self {
        Self {
            node,
            hub,
            metrics,
            effective: Mutex::default(),
            receiver: OnceLock::new(),
        }
    }

    /// Sets the receiver of messages from other nodes. Only the first call has an effect. Before
    /// this call, messages from other nodes are answered with [`Relayed::Unknown`].
    pub fn receive_relayed(&self, receiver: RelayReceiver) {
        self.receiver.get_or_init(|| receiver);
    }
}

/// The fan-out of a publication to the sessions of this node, with its metrics and spans.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fanout<'a> {
    pub(crate) hub: &'a Hub,
    pub(crate) metrics: &'a NodeMetrics,
}

impl Fanout<'_> {
    /// Queues a publication for every session that listens to its channel.
    fn publication(self, publication: &Publication) {
        self.count(match &publication.trace {
            None => self.hub.broadcast(publication),
            Some(parent) => self.traced(publication, parent, Hub::broadcast_traced),
        });
    }

    /// Queues a publication that the channel's feed delivers in the stream's order.
    pub(crate) fn in_turn(self, publication: &Publication) {
        self.count(match &publication.trace {
            None => self.hub.broadcast_in_turn(publication, None),
            Some(parent) => self.traced(publication, parent, Hub::broadcast_in_turn),
        });
    }

    fn count(self, delivered: Delivered) {
        self.metrics
            .messages_delivered
            .inc_by(delivered.queued as u64);
        self.metrics
            .fanout_recipients
            .observe(delivered.queued as f64);
    }

    /// Broadcasts with one span for the node and one for the fan-out. Sessions get no spans of
    /// their own.
    #[cold]
    fn traced(
        self,
        publication: &Publication,
        parent: &TraceContext,
        broadcast: fn(&Hub, &Publication, Option<Arc<Writes>>) -> Delivered,
    ) -> Delivered {
        let tracer = self.metrics.tracer();
        let mut process = tracer.child("process", SpanKind::Consumer, parent);
        self.describe(&mut process, publication, "process");
        let mut deliver = process.child("deliver", SpanKind::Internal);
        self.describe(&mut deliver, publication, "deliver");
        let writes = tracer.writes(&process);
        let delivered = broadcast(self.hub, publication, writes);
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        deliver.set("curfew.fanout.delivered", count(delivered.queued));
        deliver.set("curfew.fanout.dropped", count(delivered.dropped));
        delivered
    }

    /// Sets the attributes that OpenTelemetry's semantic conventions define for messaging.
    fn describe(self, span: &mut Span, publication: &Publication, operation: &'static str) {
        let system = match self.hub.path() {
            DeliveryPath::Broker => "redis",
            DeliveryPath::Local => "curfew",
        };
        span.set("messaging.system", system);
        span.set("messaging.operation.name", operation);
        span.set("messaging.operation.type", "process");
        let bytes = i64::try_from(publication.data.len()).unwrap_or(i64::MAX);
        span.set("messaging.message.body.size", bytes);
        if self.metrics.tracer().names_users() {
            let channel = publication.channel.as_str().to_owned();
            span.set("messaging.destination.name", channel);
        }
    }
}

impl HubEvents {
    fn fanout(&self) -> Fanout<'_> {
        Fanout {
            hub: &self.hub,
            metrics: &self.metrics,
        }
    }

    fn note_effective(&self, revocation: &Revocation) {
        let Some(call) = revocation.trace.as_deref() else {
            return;
        };
        let mut effective = self.effective.lock();
        if effective.len() >= MAX_EFFECTIVE {
            effective.pop_front();
        }
        effective.push_back(call.clone());
    }

    fn was_effective(&self, revocation: &Revocation) -> bool {
        let call = revocation.trace.as_deref();
        call.is_some_and(|call| self.effective.lock().contains(call))
    }

    /// Begins the span of an applied revocation. A revocation by the API is part of the call's
    /// trace; a revocation without a trace begins a trace on each node. The span is always recorded
    /// if the revocation closes sessions. The number of other spans is limited by
    /// [`Tracer::revocation`](curfew_telemetry::Tracer::revocation).
    fn trace_revocation(
        &self,
        key: &RevocationKey,
        revocation: &Revocation,
        closed: usize,
        began: SystemTime,
    ) -> Span {
        let tracer = self.metrics.tracer();
        let parent = revocation.trace.as_deref();
        let parent = parent.filter(|parent| parent.is_sampled());
        let is_vain = closed == 0;
        let mut span = tracer.revocation(APPLY, parent, is_vain);
        span.began(began);
        span.set(
            "curfew.revocation.kind",
            RevocationKind::of(key.kind()).as_str(),
        );
        span.set(
            "curfew.sessions.closed",
            i64::try_from(closed).unwrap_or(i64::MAX),
        );
        // Other kinds name tokens, sessions and claims, not users.
        if key.kind() == "user" && tracer.names_users() {
            span.set("user.id", key.value().into_owned());
        }
        span
    }
}

/// A session that a revocation ends. The confirmation of the revocation waits until the session has
/// left.
struct Departing {
    member: Arc<Member>,
    hub: Arc<Hub>,
    /// The time at which the session was first seen to have left the hub.
    let_go_at: OnceLock<time::Instant>,
}

impl Leaving for Departing {
    fn has_left(&self) -> bool {
        if !self.member.has_left() {
            return false;
        }
        // The removal of the session's presence entries was queued before the session left the hub.
        // If the backend is unavailable, the entries are removed later, and the wait ends after
        // `PATIENCE`.
        let let_go_at = self.let_go_at.get_or_init(time::Instant::now);
        !self.hub.is_departing(self.member.session()) || let_go_at.elapsed() > PATIENCE
    }
}

impl Events for HubEvents {
    fn publication(&self, publication: &Publication) {
        let fanout = self.fanout();
        if !self
            .hub
            .arrive(publication, |publication| fanout.in_turn(publication))
        {
            fanout.publication(publication);
        }
    }

    fn presence_changed(&self, channel: &Channel, change: PresenceChange, present: &Present) {
        self.hub.tell_presence(channel, change, present);
    }

    fn cleared(&self, channel: &Channel) {
        self.hub.forget_window(channel);
    }

    fn interrupted(&self, channel: &Channel) {
        self.hub.interrupt(channel);
    }

    fn doubt_streams(&self) {
        self.hub.doubt_all();
    }

    fn revoked(&self, key: &RevocationKey, revocation: &Revocation, learned: Instant) -> Ended {
        let began = self.metrics.tracer().now();
        let revoked = self.hub.revoke(key, revocation);
        let closed = revoked.sessions.len();
        // The log line omits the key's value, which may be a person's name or address. Only
        // revocations that end something are logged, counted and traced here: a key is read
        // repeatedly, and ends nothing after the first time.
        if closed > 0 || revoked.subscriptions > 0 {
            self.note_effective(revocation);
            self.metrics.revocation_applied(key.kind(), &revoked);
            self.metrics.revocation_propagation.observe_since(learned);
            let span = self.trace_revocation(key, revocation, closed, began);
            let _entered = span.scope().entered();
            info!(
                kind = key.kind(),
                before = revocation.before,
                closed,
                subscriptions = revoked.subscriptions,
                "revocation applied"
            );
        }
        // Sessions that an earlier revocation already ends are awaited too, but not counted again.
        let leaving = self.hub.leaving(key, revocation);
        let departing = |member| {
            let departing = Departing {
                member,
                hub: Arc::clone(&self.hub),
                let_go_at: OnceLock::new(),
            };
            Arc::new(departing) as Arc<dyn Leaving>
        };
        let leaving = leaving.into_iter().map(departing).collect();
        Ended::new(closed, leaving).unopened(revoked.unopened)
    }

    fn revoked_nobody(&self, key: &RevocationKey, revocation: &Revocation) {
        if self.was_effective(revocation) {
            return;
        }
        let began = self.metrics.tracer().now();
        let span = self.trace_revocation(key, revocation, 0, began);
        let _entered = span.scope().entered();
        debug!(
            kind = key.kind(),
            "the revocation ends no session on this node"
        );
    }

    fn suspend(&self, key: &RevocationKey) -> Option<Suspension> {
        Some(Box::new(self.hub.suspend(key)?))
    }

    fn finds(&self, kind: &str) -> bool {
        self.hub.finds(kind)
    }

    fn disconnect(&self, session: SessionId, disconnect: Disconnect) -> bool {
        let Some(member) = self.hub.get(session) else {
            return false;
        };
        let ended = self.hub.end(&member, Ending::new(disconnect));
        debug!(%session, reason = disconnect.reason, ended, "told the session to end");
        true
    }

    fn gap(&self, channel: &Channel, reason: GapReason) {
        if reason == GapReason::LinkLost {
            self.hub.resume(channel);
        }
        // If the channel has a stream, the missing publications are read from the stream, and no
        // gap is sent here.
        if !self.hub.doubt(channel) {
            self.hub.gap(channel, reason);
        }
    }

    fn probe(&self, sessions: Vec<SessionId>) -> BoxFuture<'static, Vec<SessionId>> {
        Box::pin(probe::silent(Arc::clone(&self.hub), sessions))
    }

    fn relayed(&self, message: Bytes) -> BoxFuture<'static, Relayed> {
        match self.receiver.get() {
            Some(RelayReceiver(take)) => take(message),
            None => Box::pin(ready(Relayed::Unknown)),
        }
    }

    fn reopened(&self) {
        self.hub.reopened();
        self.hub.doubt_all();
    }

    fn isolated(&self) -> usize {
        let members = self.hub.members();
        let ending = Ending::new(Disconnect::UNAVAILABLE);
        let ended = members
            .iter()
            .filter(|member| self.hub.end(member, ending))
            .count();
        if ended > 0 {
            warn!(
                sessions = ended,
                "the backend was unavailable for longer than backend.grace, sessions are closed"
            );
        }
        ended
    }
}

impl LocalSessions for HubEvents {
    fn sessions(&self) -> Vec<SessionId> {
        let members = self.hub.members();
        members.iter().map(|member| member.session()).collect()
    }

    fn keys(&self, sessions: &[SessionId]) -> Vec<RevocationKey> {
        let kinds = self.hub.kinds();
        let keys = sessions
            .iter()
            .filter_map(|session| self.hub.get(*session))
            .flat_map(|member| {
                let session = member.session();
                let claims = kinds.claims();
                let principals = member.principals().into_iter();
                principals.flat_map(move |principal| principal.revocation_keys(session, claims))
            });
        keys.collect::<HashSet<_>>().into_iter().collect()
    }

    fn is_kind(&self, kind: &str) -> bool {
        self.hub.kinds().claims().iter().any(|claim| claim == kind)
    }

    fn records(&self, sessions: &[SessionId]) -> Vec<SessionRecord> {
        let members = sessions.iter().filter_map(|session| self.hub.get(*session));
        members
            .filter(|member| member.is_open())
            .map(|member| SessionRecord {
                session: member.session(),
                principal: member.principal(),
                node: self.node,
                connected_at: member.registered_at(),
                protocol: self.hub.wires().get(member.wire()).name().into(),
                address: member.address(),
            })
            .collect()
    }

    fn reached(&self, channel: &Channel) -> Option<Position> {
        self.hub.seen(channel)
    }

    fn presence(&self, sessions: &[SessionId]) -> Vec<PresenceEntry> {
        self.hub.presence_of(sessions)
    }
}
