//! The hub: every session of this node, found by id, by revocation key and by channel.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use curfew_model::{
    Channel, Clock, DeliveryLease, Disconnect, Principal, RevocationKey, SessionId,
};
use curfew_telemetry::Writes;
use parking_lot::RwLock;

use crate::channels::{ChannelInfo, Channels};
use crate::flush::Flushers;
use crate::index::{Index, SHARDS};
use crate::metrics::{DeliveryPath, DropReason, HubMetrics};
use crate::outbox::{Arrival, Mark, Pushed};
use crate::presence::Presence;
use crate::streams::Streams;
use crate::{Ending, Kinds, Member, WireId, Wires};

/// Bounds on outbound queues and on remembered publications. A reload of the settings may change
/// these bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HubLimits {
    /// Maximum number of bytes queued for one session: `limits.outbound_bytes`.
    pub outbound_bytes: usize,
    /// Maximum number of bytes queued for all sessions together: `limits.node_outbound_bytes`; 0 is
    /// no bound.
    pub node_outbound_bytes: usize,
    /// Maximum number of bytes of all publications remembered for recovery: `limits.window_bytes`.
    pub window_bytes: usize,
}

/// The local registry and fan-out. All methods are synchronous and hold their locks briefly.
#[derive(Debug)]
pub struct Hub {
    pub(crate) wires: Wires,
    pub(crate) channels: Channels,
    pub(crate) streams: Streams,
    pub(crate) presence: Presence,
    /// The sessions by id.
    sessions: [RwLock<HashMap<SessionId, Arc<Member>>>; SHARDS],
    pub(crate) index: Index,
    /// The kinds of revocation in force.
    kinds: RwLock<Arc<Kinds>>,
    /// Generation of the latest [`Kinds`] for which the hub is settled: see [`Hub::settle`].
    settled: AtomicU64,
    next_slot: AtomicU64,
    outbound_bytes: AtomicUsize,
    node_outbound_bytes: AtomicUsize,
    /// Bytes in all outbound queues. The number is briefly negative when a task subtracts bytes
    /// before the broadcast that queued the bytes has added them.
    queued: AtomicI64,
    /// Number of deliveries until the next timed delivery. Concurrent broadcasts overwrite each
    /// other's value; only the sampling rate depends on this value.
    pub(crate) untimed: AtomicUsize,
    pub(crate) flushers: Flushers,
    lease: Arc<DeliveryLease>,
    path: DeliveryPath,
    metrics: Arc<HubMetrics>,
}

impl Hub {
    /// Creates a hub without sessions. The hub broadcasts only while `lease` is held or catching
    /// up. `path` is the path by which publications reach this node.
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
            streams: Streams::new(limits.window_bytes),
            presence: Presence::new(),
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

    /// Replaces the bounds. The new bounds apply to frames queued from now on.
    pub fn set_limits(&self, limits: HubLimits) {
        self.outbound_bytes
            .store(limits.outbound_bytes, Ordering::Relaxed);
        self.node_outbound_bytes
            .store(limits.node_outbound_bytes, Ordering::Relaxed);
        self.streams.set_window_bytes(limits.window_bytes);
    }

    /// The node's delivery lease, checked before a message is acted on or handed to a socket.
    pub fn lease(&self) -> &DeliveryLease {
        &self.lease
    }

    /// The path by which publications reach this node.
    pub fn path(&self) -> DeliveryPath {
        self.path
    }

    /// The metrics of the hub.
    pub fn metrics(&self) -> &HubMetrics {
        &self.metrics
    }

    /// The wires that sessions of this node speak.
    pub fn wires(&self) -> &Wires {
        &self.wires
    }

    /// Registers a session under the revocation keys of the kinds in force. Returns the session's
    /// member and those keys.
    ///
    /// Frames are accepted only after [`Outbox::open`](crate::Outbox::open). The lifetime of the
    /// token is counted from the present time of `clock`.
    pub fn register(
        &self,
        session: SessionId,
        wire: WireId,
        clock: &dyn Clock,
        principal: Arc<Principal>,
    ) -> (Arc<Member>, Vec<RevocationKey>) {
        let slot = self.next_slot.fetch_add(1, Ordering::Relaxed);
        let member = Arc::new(Member::new(slot, session, wire, clock, principal));
        // The session is inserted before the kinds are read. A concurrent reload then either finds
        // the session in its walk over all sessions, or has put its kinds in force before they are
        // read here.
        self.shard(session)
            .write()
            .insert(session, Arc::clone(&member));
        let keys = member.key(&self.index, || self.kinds());
        (member, keys)
    }

    /// Removes a session and its revocation keys. The caller must remove the session's
    /// subscriptions first.
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

    /// Begins a refresh: revocations find the session by the keys of the new token as well. Returns
    /// those keys.
    pub fn begin_refresh(
        &self,
        member: &Arc<Member>,
        principal: Arc<Principal>,
    ) -> Vec<RevocationKey> {
        member.begin_refresh(&self.index, principal)
    }

    /// Ends a refresh: the new token is in force, and the old token's keys no longer find the
    /// session. The lifetime of the new token is counted from the present time of `clock`.
    pub fn finish_refresh(&self, member: &Member, clock: &dyn Clock) {
        member.finish_refresh(&self.index, clock);
    }

    /// Cancels a refresh: the new token's keys no longer find the session.
    pub fn abandon_refresh(&self, member: &Member) {
        member.abandon_refresh(&self.index);
    }

    /// The kinds of revocation in force.
    pub fn kinds(&self) -> Arc<Kinds> {
        Arc::clone(&self.kinds.read())
    }

    /// Puts the built-in kinds and `claims` in force. Returns the new kinds, or `None` if they
    /// equal the current kinds.
    ///
    /// Revocations of these kinds find every session that registers from now on. They find an
    /// earlier session only after [`Hub::rekey`].
    pub fn set_kinds(&self, claims: &[String]) -> Option<Arc<Kinds>> {
        // The lock is held until the function returns: two concurrent reloads must not take the
        // same generation.
        let mut current = self.kinds.write();
        let kinds = Kinds::new(current.generation() + 1, claims);
        if kinds.claims() == current.claims() {
            // A reload without a change of the claims needs no walk over the sessions.
            return None;
        }
        let kinds = Arc::new(kinds);
        *current = Arc::clone(&kinds);
        Some(kinds)
    }

    /// Registers the session under the kinds in force if it is registered under earlier kinds.
    pub fn rekey(&self, member: &Arc<Member>) {
        member.rekey(&self.index, &self.kinds());
    }

    /// Notes that the hub is settled for `kinds`: every session that was registered when these
    /// kinds came into force is now indexed by them, and has been compared with the backend since.
    pub fn settle(&self, kinds: &Kinds) {
        // `fetch_max` is used because the walk of an earlier reload may end after the walk of a
        // later reload.
        self.settled.fetch_max(kinds.generation(), Ordering::AcqRel);
    }

    /// True if the hub is settled for the kinds in force.
    pub fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire) == self.kinds.read().generation()
    }

    /// True if a revocation of this kind finds every session that it names. False if the settings
    /// do not name the kind, or the hub is not settled for the kinds in force.
    pub fn finds(&self, kind: &str) -> bool {
        let kinds = self.kinds.read();
        kinds.has(kind) && self.settled.load(Ordering::Acquire) == kinds.generation()
    }

    /// Adds a listener to a channel.
    pub fn subscribe(&self, channel: &Channel, member: &Arc<Member>) {
        self.channels.add(channel, member);
    }

    /// Removes a listener. Returns true if the channel has no listener left on this node.
    pub fn unsubscribe(&self, channel: &Channel, member: &Member) -> bool {
        self.channels.remove(channel, member)
    }

    /// True if a session of this node listens to the channel.
    pub fn has_subscribers(&self, channel: &Channel) -> bool {
        self.channels.has(channel) || self.streams.has_joining(channel)
    }

    /// The number of sessions of this node that listen to the channel.
    pub fn subscribers(&self, channel: &Channel) -> usize {
        self.channels.count_of(channel)
    }

    /// The number of channels with listeners on this node.
    pub fn channel_count(&self) -> usize {
        self.channels.count()
    }

    /// Sets the gauges that are computed only when metrics are read.
    pub fn measure(&self) {
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let metrics = &self.metrics;
        metrics.channels.set(count(self.channel_count() as u64));
        metrics.presence.set(count(self.presence_count() as u64));
        metrics.send_queue_bytes.set(count(self.queued_bytes()));
    }

    /// Every channel with listeners on this node, sorted by name.
    pub fn channels(&self) -> Vec<ChannelInfo> {
        self.channels.list()
    }

    /// Queues a reply or a push for one session. An overflow ends the session as a slow consumer.
    /// Returns true if the frame is queued.
    pub fn send(&self, member: &Member, frame: Bytes) -> bool {
        self.send_as(member, frame, None)
    }

    /// Queues a frame, such as an error, that a client may receive even without access. The frame
    /// does not overtake normal frames, unless normal frames are withheld: then the frame is sent
    /// ahead of these normal frames.
    pub fn send_notice(&self, member: &Member, frame: Bytes) -> bool {
        self.send_as(member, frame, Some(Mark::Notice))
    }

    /// Queues a frame for one session and counts its bytes.
    pub(crate) fn send_as(&self, member: &Member, frame: Bytes, mark: Option<Mark>) -> bool {
        let size = frame.len();
        let queued = match self.push(member, frame, None, false, mark.as_ref()) {
            Pushed::Queued | Pushed::Due => true,
            Pushed::Closed | Pushed::Overflowed { .. } => false,
        };
        if queued {
            self.queued.fetch_add(size as i64, Ordering::Relaxed);
        }
        queued
    }

    /// Queues a frame of a channel, such as a publication. Returns true if it is queued. The caller
    /// adds the bytes to the node's total, once for all listeners.
    pub(crate) fn deliver(
        &self,
        member: &Arc<Member>,
        frame: Bytes,
        arrival: Option<&Arrival>,
    ) -> bool {
        let flushed = !self.flushers.is_empty();
        match self.push(member, frame, arrival, flushed, None) {
            Pushed::Queued => true,
            Pushed::Due => {
                self.flushers.tell(member);
                true
            }
            Pushed::Closed | Pushed::Overflowed { .. } => false,
        }
    }

    /// Pushes a frame, and counts the frames that the push drops.
    fn push(
        &self,
        member: &Member,
        frame: Bytes,
        arrival: Option<&Arrival>,
        flushed: bool,
        mark: Option<&Mark>,
    ) -> Pushed {
        let limit = self.outbound_bytes.load(Ordering::Relaxed);
        let tight = self.is_tight();
        let outbox = member.outbox();
        let pushed = outbox.push(frame, limit, tight, arrival, flushed, mark);
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
                // The frame that did not fit is dropped as well.
                self.metrics
                    .messages_dropped
                    .inc_by(reason, frames as u64 + 1);
            }
        }
        pushed
    }

    /// Number of bytes that the session's queue still takes before the session counts as a slow
    /// consumer.
    pub(crate) fn room_of(&self, member: &Member) -> usize {
        let limit = self.outbound_bytes.load(Ordering::Relaxed);
        member.outbox().room(limit, self.is_tight())
    }

    /// Adds queued bytes to the node's total.
    pub(crate) fn count_queued(&self, bytes: usize) {
        self.queued.fetch_add(bytes as i64, Ordering::Relaxed);
    }

    /// Subtracts bytes that are no longer queued from the node's total.
    pub(crate) fn give_back(&self, bytes: usize) {
        self.queued.fetch_sub(bytes as i64, Ordering::Relaxed);
    }

    /// Records that a timed publication has been written to a session's socket.
    #[cold]
    pub(crate) fn observe_delivery(&self, arrival: &Arrival) {
        if let Some(writes) = &arrival.writes {
            writes.note();
        }
        if !arrival.is_observed {
            // The delivery is traced but not sampled for the metrics.
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

    /// True if the queues of the node together exceed the node's bound.
    fn is_tight(&self) -> bool {
        let bound = self.node_outbound_bytes.load(Ordering::Relaxed);
        bound != 0 && self.queued.load(Ordering::Relaxed) > bound as i64
    }

    /// Bytes in all outbound queues.
    pub fn queued_bytes(&self) -> u64 {
        self.queued.load(Ordering::Relaxed).max(0) as u64
    }

    /// Tells a session to end. Returns true if `ending` becomes the reason. The first reason stays,
    /// with two exceptions. A revocation replaces any other reason.
    /// [`Disconnect::INSUFFICIENT_STATE`] replaces a reason after which queued frames would still
    /// be sent.
    pub fn end(&self, member: &Member, ending: Ending) -> bool {
        let Some((bytes, frames)) = member.outbox().end(ending) else {
            return false;
        };
        self.give_back(bytes);
        self.count_ended(ending, frames);
        true
    }

    /// Counts frames dropped because their session was told to end.
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

    /// Wakes the task of every session.
    pub(crate) fn wake_all(&self) {
        for member in self.members() {
            member.outbox().nudge();
        }
    }

    /// The session with this id.
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

    /// The number of sessions on the node.
    pub fn count(&self) -> usize {
        self.sessions.iter().map(|shard| shard.read().len()).sum()
    }

    /// Makes every session authorize its subscriptions again, after a change of the policy.
    pub fn reconsider_all(&self) {
        for member in self.members() {
            member.outbox().reconsider();
        }
    }

    fn shard(&self, session: SessionId) -> &RwLock<HashMap<SessionId, Arc<Member>>> {
        &self.sessions[session.shard(SHARDS)]
    }
}
