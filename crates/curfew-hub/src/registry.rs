//! The hub: every session of this node, found by id, by revocation key and by channel.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use curfew_model::{
    Channel, Clock, DeliveryLease, Disconnect, Principal, Revocation, RevocationKey, SessionId,
};
use curfew_telemetry::Writes;
use parking_lot::RwLock;

use crate::channels::{ChannelInfo, Channels};
use crate::flush::Flushers;
use crate::index::{Index, SHARDS};
use crate::metrics::{DeliveryPath, DropReason, HubMetrics};
use crate::outbox::{Arrival, Pushed};
use crate::{Ending, Kinds, Member, Suspension, WireId, Wires};

/// Bounds on outbound queues; changed by a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HubLimits {
    /// `limits.outbound_bytes`: per session.
    pub outbound_bytes: usize,
    /// `limits.node_outbound_bytes`: of all sessions together; 0 is no bound.
    pub node_outbound_bytes: usize,
}

/// The local registry and fan-out. All methods are synchronous and hold their locks briefly.
#[derive(Debug)]
pub struct Hub {
    pub(crate) wires: Wires,
    pub(crate) channels: Channels,
    sessions: [RwLock<HashMap<SessionId, Arc<Member>>>; SHARDS],
    pub(crate) index: Index,
    kinds: RwLock<Arc<Kinds>>,
    /// The generation of the last kinds that every session was found by and compared with the
    /// backend.
    settled: AtomicU64,
    next_slot: AtomicU64,
    outbound_bytes: AtomicUsize,
    node_outbound_bytes: AtomicUsize,
    /// Bytes in all outbound queues. Below zero for moments, since a task may give bytes back
    /// before the broadcast that queued them has added them.
    queued: AtomicI64,
    /// Deliveries up to the next that is timed. Broadcasts at once may disagree on it: nothing
    /// depends on it.
    pub(crate) untimed: AtomicUsize,
    pub(crate) flushers: Flushers,
    lease: Arc<DeliveryLease>,
    path: DeliveryPath,
    metrics: Arc<HubMetrics>,
}

impl Hub {
    /// An empty hub for these wires. While `lease` is not held nothing is broadcast. Publications
    /// come by `path`.
    pub fn new(
        wires: Wires,
        limits: HubLimits,
        lease: Arc<DeliveryLease>,
        path: DeliveryPath,
        metrics: Arc<HubMetrics>,
    ) -> Self {
        Self {
            wires,
            channels: Channels::new(),
            sessions: std::array::from_fn(|_| RwLock::default()),
            index: Index::new(),
            kinds: RwLock::new(Arc::new(Kinds::new(0, &[]))),
            settled: AtomicU64::new(0),
            next_slot: AtomicU64::new(0),
            outbound_bytes: AtomicUsize::new(limits.outbound_bytes),
            node_outbound_bytes: AtomicUsize::new(limits.node_outbound_bytes),
            queued: AtomicI64::new(0),
            untimed: AtomicUsize::new(0),
            flushers: Flushers::default(),
            lease,
            path,
            metrics,
        }
    }

    /// Puts other bounds in force, for what is queued from now on.
    pub fn set_limits(&self, limits: HubLimits) {
        self.outbound_bytes
            .store(limits.outbound_bytes, Ordering::Relaxed);
        self.node_outbound_bytes
            .store(limits.node_outbound_bytes, Ordering::Relaxed);
    }

    /// The node's delivery lease; asked before each message is acted on or handed
    /// to a socket.
    pub fn lease(&self) -> &DeliveryLease {
        &self.lease
    }

    /// The way that publications come by.
    pub fn path(&self) -> DeliveryPath {
        self.path
    }

    /// The metrics of the hub.
    pub fn metrics(&self) -> &HubMetrics {
        &self.metrics
    }

    /// The wires that sessions may have.
    pub fn wires(&self) -> &Wires {
        &self.wires
    }

    /// Registers a session, so that revocations find it by the kinds in force; returns it with the
    /// keys it is found by. Nothing is delivered to it before [`Outbox::open`](crate::Outbox::open).
    /// From now on its token has what `clock` says is left of it.
    pub fn register(
        &self,
        session: SessionId,
        wire: WireId,
        clock: &dyn Clock,
        principal: Arc<Principal>,
    ) -> (Arc<Member>, Vec<RevocationKey>) {
        let slot = self.next_slot.fetch_add(1, Ordering::Relaxed);
        let member = Arc::new(Member::new(slot, session, wire, clock, principal));
        // First of all: if other kinds come in force, either whoever walks over the sessions sees it
        // here, or it is keyed by those.
        self.shard(session)
            .write()
            .insert(session, Arc::clone(&member));
        let keys = member.key(&self.index, || self.kinds());
        (member, keys)
    }

    /// Forgets a session and the keys it is found by. Its subscriptions are removed before.
    pub fn unregister(&self, member: &Member) {
        self.shard(member.session())
            .write()
            .remove(&member.session());
        member.unkey(&self.index);
        let (bytes, frames) = member.outbox().leave();
        self.give_back(bytes);
        self.metrics
            .messages_dropped
            .inc_by(DropReason::Closed, frames as u64);
    }

    /// Begins a refresh: revocations find the session by the new token's keys too. Returns those.
    pub fn begin_refresh(
        &self,
        member: &Arc<Member>,
        principal: Arc<Principal>,
    ) -> Vec<RevocationKey> {
        member.begin_refresh(&self.index, principal)
    }

    /// Ends a refresh: the new token is in force and the old one no longer names the session. From now
    /// on it has what `clock` says is left of the new token.
    pub fn finish_refresh(&self, member: &Member, clock: &dyn Clock) {
        member.finish_refresh(&self.index, clock);
    }

    /// Gives a refresh up: the new token no longer names the session.
    pub fn abandon_refresh(&self, member: &Member) {
        member.abandon_refresh(&self.index);
    }

    /// The kinds of revocation in force.
    pub fn kinds(&self) -> Arc<Kinds> {
        Arc::clone(&self.kinds.read())
    }

    /// Puts other kinds in force: those that always are, and `claims`. Sessions that register
    /// from here on are found by them, the others after [`Hub::rekey`]. Returns them, if they are
    /// others than those in force.
    pub fn set_kinds(&self, claims: &[String]) -> Option<Arc<Kinds>> {
        let mut current = self.kinds.write();
        let kinds = Kinds::new(current.generation() + 1, claims);
        if kinds.claims() == current.claims() {
            return None;
        }
        let kinds = Arc::new(kinds);
        *current = Arc::clone(&kinds);
        Some(kinds)
    }

    /// Has a session found by the kinds in force, if it is found by earlier ones.
    pub fn rekey(&self, member: &Arc<Member>) {
        member.rekey(&self.index, &self.kinds());
    }

    /// Every session that was registered when `kinds` came in force has been found by them and then
    /// compared with the backend.
    pub fn settle(&self, kinds: &Kinds) {
        self.settled.fetch_max(kinds.generation(), Ordering::AcqRel);
    }

    /// Whether all is settled for the kinds in force.
    pub fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire) == self.kinds.read().generation()
    }

    /// Whether a revocation of this kind finds every session that it names: not where the settings
    /// lack it, and not before all is settled.
    pub fn finds(&self, kind: &str) -> bool {
        let kinds = self.kinds.read();
        kinds.has(kind) && self.settled.load(Ordering::Acquire) == kinds.generation()
    }

    /// Adds a listener to a channel.
    pub fn subscribe(&self, channel: &Channel, member: &Arc<Member>) {
        self.channels.add(channel, member);
    }

    /// Removes a listener; returns whether the channel has none left here.
    pub fn unsubscribe(&self, channel: &Channel, member: &Member) -> bool {
        self.channels.remove(channel, member)
    }

    /// Whether anyone here listens to the channel.
    pub fn has_subscribers(&self, channel: &Channel) -> bool {
        self.channels.has(channel)
    }

    /// How many channels have listeners here.
    pub fn channel_count(&self) -> usize {
        self.channels.count()
    }

    /// Sets the gauges that messages do not move, before they are read.
    pub fn measure(&self) {
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let metrics = &self.metrics;
        metrics.channels.set(count(self.channel_count() as u64));
        metrics.send_queue_bytes.set(count(self.queued_bytes()));
    }

    /// Every channel with listeners here, by name.
    pub fn channels(&self) -> Vec<ChannelInfo> {
        self.channels.list()
    }

    /// Queues a frame for one session: a reply or a push of its own. An overflow ends the session
    /// as a slow consumer. Returns whether it was queued.
    pub fn send(&self, member: &Member, frame: Bytes) -> bool {
        self.send_as(member, frame, false)
    }

    /// As [`Hub::send`], of a frame that tells nothing that access protects: it keeps its turn, and
    /// leaves without it while the session may not be written to.
    pub fn send_notice(&self, member: &Member, frame: Bytes) -> bool {
        self.send_as(member, frame, true)
    }

    fn send_as(&self, member: &Member, frame: Bytes, is_notice: bool) -> bool {
        let size = frame.len();
        let queued = match self.push(member, frame, None, false, is_notice) {
            Pushed::Queued | Pushed::Due => true,
            Pushed::Closed | Pushed::Overflowed { .. } => false,
        };
        if queued {
            self.queued.fetch_add(size as i64, Ordering::Relaxed);
        }
        queued
    }

    /// Queues a publication's frame without counting the bytes for the node: a broadcast adds them
    /// up itself. Returns whether it was queued.
    pub(crate) fn deliver(
        &self,
        member: &Arc<Member>,
        frame: Bytes,
        arrival: Option<&Arrival>,
    ) -> bool {
        match self.push(member, frame, arrival, !self.flushers.is_empty(), false) {
            Pushed::Queued => true,
            Pushed::Due => {
                self.flushers.tell(member);
                true
            }
            Pushed::Closed | Pushed::Overflowed { .. } => false,
        }
    }

    /// Counts what was not queued.
    fn push(
        &self,
        member: &Member,
        frame: Bytes,
        arrival: Option<&Arrival>,
        flushed: bool,
        is_notice: bool,
    ) -> Pushed {
        let limit = self.outbound_bytes.load(Ordering::Relaxed);
        let tight = self.is_tight();
        let outbox = member.outbox();
        let pushed = outbox.push(frame, limit, tight, arrival, flushed, is_notice);
        match pushed {
            Pushed::Queued | Pushed::Due => {}
            Pushed::Closed => self.metrics.messages_dropped.inc(DropReason::Closed),
            Pushed::Overflowed { bytes, frames } => {
                self.give_back(bytes);
                let reason = if tight {
                    DropReason::QueueFull
                } else {
                    DropReason::SlowConsumer
                };
                // The frame that did not fit is lost as well.
                self.metrics
                    .messages_dropped
                    .inc_by(reason, frames as u64 + 1);
            }
        }
        pushed
    }

    pub(crate) fn count_queued(&self, bytes: usize) {
        self.queued.fetch_add(bytes as i64, Ordering::Relaxed);
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        self.queued.fetch_sub(bytes as i64, Ordering::Relaxed);
    }

    /// What arrived then has left for a session's socket.
    #[cold]
    pub(crate) fn observe_delivery(&self, arrival: &Arrival) {
        if let Some(writes) = &arrival.writes {
            writes.note();
        }
        if !arrival.is_observed {
            return;
        }
        let messages = f64::from(arrival.messages);
        let trace = arrival.writes.as_deref().map(Writes::context);
        self.metrics.send_queue_messages.observe(messages);
        self.metrics
            .delivery_duration
            .of(self.path)
            .observe_traced(arrival.at.elapsed().as_secs_f64(), trace);
    }

    fn is_tight(&self) -> bool {
        let bound = self.node_outbound_bytes.load(Ordering::Relaxed);
        bound != 0 && self.queued.load(Ordering::Relaxed) > bound as i64
    }

    /// Bytes in all outbound queues.
    pub fn queued_bytes(&self) -> u64 {
        self.queued.load(Ordering::Relaxed).max(0) as u64
    }

    /// Tells a session to end. Returns whether it was not ending already.
    pub fn end(&self, member: &Member, ending: Ending) -> bool {
        let Some((bytes, frames)) = member.outbox().end(ending) else {
            return false;
        };
        self.give_back(bytes);
        self.count_ended(ending, frames);
        true
    }

    /// Counts frames that are let go of because their session was told to end.
    pub(crate) fn count_ended(&self, ending: Ending, frames: usize) {
        let is = |disconnect| ending.disconnect == disconnect;
        let reason = if ending.is_revocation() {
            DropReason::Revoked
        } else if is(Disconnect::UNAVAILABLE) {
            DropReason::NoLease
        } else if is(Disconnect::EXPIRED) {
            DropReason::Expired
        } else if is(Disconnect::SLOW_CONSUMER) {
            DropReason::SlowConsumer
        } else {
            DropReason::Closed
        };
        self.metrics.messages_dropped.inc_by(reason, frames as u64);
    }

    /// Ends every session that a revocation names and covers; returns those. Nothing is queued for
    /// them once this returns; nothing is delivered to one that [has left](Member::has_left).
    pub fn revoke(&self, key: &RevocationKey, revocation: &Revocation) -> Vec<Arc<Member>> {
        let mut named = self.named(key);
        named.retain(|member| {
            let covered = member.covered(key, revocation);
            covered.is_some_and(|disconnect| self.end(member, Ending::new(disconnect)))
        });
        named
    }

    /// Sessions that a revocation names and covers and that some revocation is ending already, but
    /// that have not left yet.
    pub fn leaving(&self, key: &RevocationKey, revocation: &Revocation) -> Vec<Arc<Member>> {
        let mut named = self.named(key);
        named.retain(|member| {
            let ending = member.outbox().ending();
            ending.is_some_and(Ending::is_revocation) && member.covered(key, revocation).is_some()
        });
        named
    }

    /// Holds back the sessions that `key` names; `None` when it names none.
    pub fn suspend(&self, key: &RevocationKey) -> Option<Suspension> {
        let mut named = self.named(key);
        named.retain(|member| member.is_named_by(key));
        (!named.is_empty()).then(|| Suspension::new(named))
    }

    /// The sessions that `key` names, and perhaps some that it does not.
    fn named(&self, key: &RevocationKey) -> Vec<Arc<Member>> {
        match key.kind() {
            "all" => self.members(),
            "session" => match key.plain_value().map(str::parse) {
                Some(Ok(id)) => self.get(id).into_iter().collect(),
                Some(Err(_)) => Vec::new(),
                // Only its digest is known. That is rare enough to look at every session: an index
                // by digest would be memory for each of them.
                None => {
                    let mut members = self.members();
                    members.retain(|member| key.names(&member.session().to_string()));
                    members
                }
            },
            _ => self.index.find(key),
        }
    }

    /// Wakes every session.
    pub(crate) fn wake_all(&self) {
        for member in self.members() {
            member.outbox().nudge();
        }
    }

    /// One session.
    pub fn get(&self, session: SessionId) -> Option<Arc<Member>> {
        self.shard(session).read().get(&session).cloned()
    }

    /// Every session of the node, in no order.
    pub fn members(&self) -> Vec<Arc<Member>> {
        self.sessions
            .iter()
            .flat_map(|shard| shard.read().values().cloned().collect::<Vec<_>>())
            .collect()
    }

    /// How many sessions the node has.
    pub fn count(&self) -> usize {
        self.sessions.iter().map(|shard| shard.read().len()).sum()
    }

    /// Has every session decide its subscriptions anew: the policy changed.
    pub fn reconsider_all(&self) {
        for member in self.members() {
            member.outbox().reconsider();
        }
    }

    fn shard(&self, session: SessionId) -> &RwLock<HashMap<SessionId, Arc<Member>>> {
        &self.sessions[session.shard(SHARDS)]
    }
}
