//! The fan-out: one publication to all who listen, encoded once per wire.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use curfew_model::{Channel, GapReason, Position, Publication, Push};
use curfew_telemetry::Writes;

use crate::channels::Listeners;
use crate::metrics::DropReason;
use crate::outbox::Arrival;
use crate::{Hub, WireId};

/// Of so many deliveries one is timed, which costs 110 ns where a delivery's share of a broadcast
/// is 70. A prime, so that a channel with a round number of listeners has others timed each time.
const TIMED_ONE_IN: usize = 17;

/// Likewise within one broadcast to many.
const TIMED_ONE_IN_MANY: usize = 257;

/// What became of a broadcast.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Sessions it was queued for.
    pub queued: usize,
    /// Sessions it was not queued for: they are ending, their queue overflowed, or the node holds
    /// no lease.
    pub dropped: usize,
}

impl Hub {
    /// Queues a publication for every session on this node that listens to its channel. Costs one
    /// encoding per wire, and per listener a reference count, a queue slot and at most one
    /// wake-up.
    pub fn broadcast(&self, publication: &Publication) -> Delivered {
        self.broadcast_as::<false>(publication, None)
    }

    /// As [`Hub::broadcast`], of one that is traced: `writes` hears of each session's socket that has
    /// it.
    #[cold]
    pub fn broadcast_traced(
        &self,
        publication: &Publication,
        writes: Option<Arc<Writes>>,
    ) -> Delivered {
        self.broadcast_as::<true>(publication, writes)
    }

    /// With `TRACED` each delivery is timed; whether its times are in the metrics is another matter.
    fn broadcast_as<const TRACED: bool>(
        &self,
        publication: &Publication,
        writes: Option<Arc<Writes>>,
    ) -> Delivered {
        // Where the node was stopped for a moment it waits with what is queued, and asks then.
        if !self.may_broadcast() {
            return self.withhold(publication);
        }
        let mut untimed = match publication.trace {
            None => self.untimed.load(Ordering::Relaxed),
            // Whoever looks at the times finds the trace.
            Some(_) => 0,
        };
        // Made for the first listener that is timed, which is among the first few.
        let mut arrival = None;
        let mut frames = Frames::new(
            self,
            Push::Message {
                channel: &publication.channel,
                data: &publication.data,
                from: publication.from.as_deref(),
                position: publication.entry.map(|entry| entry.position),
            },
        );
        let mut delivered = Delivered::default();
        let mut bytes = 0;
        self.channels.with(&publication.channel, |listeners| {
            self.tell_gap(&publication.channel, listeners);
            listeners.each(|member| {
                let Some(frame) = frames.of(member.wire()) else {
                    return;
                };
                let size = frame.len();
                let is_observed = untimed == 0;
                let timed = match TRACED || is_observed {
                    true => {
                        let arrival = arrival.get_or_insert_with(|| Arrival::now(writes.clone()));
                        arrival.is_observed = is_observed;
                        Some(&*arrival)
                    }
                    false => None,
                };
                untimed = untimed.checked_sub(1).unwrap_or(TIMED_ONE_IN_MANY - 1);
                if self.deliver(member, frame, timed) {
                    bytes += size;
                    delivered.queued += 1;
                } else {
                    delivered.dropped += 1;
                }
            });
        });
        if delivered.queued > 0 {
            let untimed = untimed.min(TIMED_ONE_IN - 1);
            self.untimed.store(untimed, Ordering::Relaxed);
        }
        if let Some(writes) = writes {
            writes.queued(delivered.queued);
        }
        self.count_queued(bytes);
        delivered
    }

    /// True if publications may be queued: the lease is held, or the node that was stopped for a moment is about to
    /// know.
    pub(crate) fn may_broadcast(&self) -> bool {
        self.lease().is_held() || self.lease().is_catching_up()
    }

    /// Nothing is delivered on trust.
    fn withhold(&self, publication: &Publication) -> Delivered {
        let dropped = self.channels.count_of(&publication.channel);
        self.metrics()
            .messages_dropped
            .inc_by(DropReason::NoLease, dropped as u64);
        self.gap(&publication.channel, GapReason::NoLease);
        Delivered { queued: 0, dropped }
    }

    /// Publications of a channel may be missing: its listeners are told, in the place where that is,
    /// by what needs access like a publication. While the node holds no lease it waits for
    /// [`Hub::reopened`]. Gaps of a channel that are noted before its listeners are told are told as
    /// one.
    pub fn gap(&self, channel: &Channel, reason: GapReason) {
        self.channels.note_gap(channel, reason);
        // Asked once noted: if the lease is renewed afterwards, the one that renews it finds the note.
        if self.lease().is_held() {
            self.channels
                .with(channel, |listeners| self.tell_gap(channel, listeners));
        }
    }

    /// The lease was lost and is held again, or it shows that it stays lost: what sessions held back may
    /// go, and who missed something meanwhile is told.
    pub fn reopened(&self) {
        if self.lease().is_held() {
            self.channels
                .with_all(|channel, listeners| self.tell_gap(channel, listeners));
        }
        self.wake_all();
    }

    fn tell_gap(&self, channel: &Channel, listeners: &Listeners) {
        if let Some(reason) = listeners.take_gap() {
            self.send_gap(channel, listeners, None, reason);
        }
    }

    /// Tells a channel's listeners that publications up to and including `position` are missing.
    pub(crate) fn gap_at(&self, channel: &Channel, position: Position, reason: GapReason) {
        self.channels.with(channel, |listeners| {
            self.send_gap(channel, listeners, Some(position), reason);
        });
    }

    /// A queue that has no room for it ends its session, as for a publication.
    #[cold]
    fn send_gap(
        &self,
        channel: &Channel,
        listeners: &Listeners,
        position: Option<Position>,
        reason: GapReason,
    ) {
        let mut frames = Frames::new(self, Push::Gap { channel, position });
        let (mut told, mut bytes) = (0, 0);
        listeners.each(|member| {
            let Some(frame) = frames.of(member.wire()) else {
                return;
            };
            let size = frame.len();
            if self.deliver(member, frame, None) {
                told += 1;
                bytes += size;
            }
        });
        self.count_queued(bytes);
        self.metrics().gaps.inc_by(reason, told);
    }
}

/// A push's frame on each wire, encoded when first asked for. `None` where it is not told.
struct Frames<'a> {
    hub: &'a Hub,
    push: Push<'a>,
    first: Option<(WireId, Bytes)>,
    others: Vec<(WireId, Option<Bytes>)>,
}

impl<'a> Frames<'a> {
    fn new(hub: &'a Hub, push: Push<'a>) -> Self {
        Self {
            hub,
            push,
            first: None,
            others: Vec::new(),
        }
    }

    #[inline]
    fn of(&mut self, wire: WireId) -> Option<Bytes> {
        match &self.first {
            Some((id, frame)) if *id == wire => Some(frame.clone()),
            _ => self.of_another(wire),
        }
    }

    #[cold]
    fn of_another(&mut self, wire: WireId) -> Option<Bytes> {
        if let Some((_, frame)) = self.others.iter().find(|(id, _)| *id == wire) {
            return frame.clone();
        }
        let frame = self.hub.wires.get(wire).push(&self.push);
        match &frame {
            Some(told) if self.first.is_none() => self.first = Some((wire, told.clone())),
            _ => self.others.push((wire, frame.clone())),
        }
        frame
    }
}
