//! The fan-out: one publication to all listeners, encoded once per wire.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use curfew_model::{Channel, DataForm, GapReason, Position, Publication, Push};
use curfew_telemetry::Writes;

use crate::channels::Listeners;
use crate::metrics::DropReason;
use crate::outbox::Arrival;
use crate::wire::Frames;
use crate::{Hub, Member};

/// One delivery in `TIMED_ONE_IN` is timed: timing a delivery costs 110 ns, and the delivery itself
/// only 70 ns. The number is prime, so that broadcasts to a round number of listeners do not always
/// time the same listeners.
const TIMED_ONE_IN: usize = 17;

/// After the first timed delivery of a broadcast, one delivery in `TIMED_ONE_IN_MANY` is timed. A
/// broadcast to a large channel thus does not pay for hundreds of samples.
const TIMED_ONE_IN_MANY: usize = 257;

/// The result of a broadcast.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Number of sessions that the publication was queued for.
    pub queued: usize,
    /// Number of listeners that the publication was not queued for, because the session is ending,
    /// the session's queue overflowed, or the node holds no lease.
    pub dropped: usize,
}

impl Hub {
    /// Queues a publication for every session on this node that listens to its channel. The cost is
    /// one encoding per wire, and per listener one reference count, one queue slot and at most one
    /// wake-up.
    pub fn broadcast(&self, publication: &Publication) -> Delivered {
        match self.may_broadcast() {
            true => self.fan_out::<false>(publication, None),
            false => self.withhold(publication),
        }
    }

    /// Broadcasts a traced publication. `writes` records each write of the publication to a
    /// session's socket.
    #[cold]
    pub fn broadcast_traced(
        &self,
        publication: &Publication,
        writes: Option<Arc<Writes>>,
    ) -> Delivered {
        match self.may_broadcast() {
            true => self.fan_out::<true>(publication, writes),
            false => self.withhold(publication),
        }
    }

    /// Broadcasts a publication in its stream's order, without checking the lease. The feed has
    /// already checked the lease and counts the publication as delivered, so a lease that ends
    /// after that check must not withhold the publication. Every frame is checked again before it
    /// is written.
    pub fn broadcast_in_turn(
        &self,
        publication: &Publication,
        writes: Option<Arc<Writes>>,
    ) -> Delivered {
        match publication.trace {
            None => self.fan_out::<false>(publication, None),
            Some(_) => self.fan_out::<true>(publication, writes),
        }
    }

    /// Queues a publication for every listener. With `TRACED`, every delivery carries an `Arrival`.
    /// Its `is_observed` is true if the delivery enters the metrics.
    fn fan_out<const TRACED: bool>(
        &self,
        publication: &Publication,
        writes: Option<Arc<Writes>>,
    ) -> Delivered {
        let mut untimed = match publication.trace {
            None => self.untimed.load(Ordering::Relaxed),
            // The first delivery of a traced publication is timed, so that the histogram links to a
            // trace.
            Some(_) => 0,
        };
        // The arrival is created for the first timed listener: most broadcasts to few listeners
        // time no listener.
        let mut arrival = None;
        let mut frames = Frames::new(self, |wire| wire.publication(publication, DataForm::Plain));
        let mut delivered = Delivered::default();
        let mut bytes = 0;
        self.channels.with(&publication.channel, |listeners| {
            // A noted gap is sent before this publication, where the missing publications would
            // have been.
            self.tell_gap(&publication.channel, listeners);
            listeners.each_plain(|member| {
                let Some(frame) = frames.of(member.wire()) else {
                    // The protocol of this wire cannot carry the publication.
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
            if let Some(delta) = listeners.delta() {
                // A delivery to a listener that takes differences is traced but not timed: the
                // other listeners are a large enough sample.
                let arrival = TRACED.then(|| {
                    let mut arrival = Arrival::now(writes.clone());
                    arrival.is_observed = false;
                    arrival
                });
                self.fan_out_differences(delta, publication, &mut |member, frame| {
                    let size = frame.len();
                    let is_queued = self.deliver(member, frame, arrival.as_ref());
                    if is_queued {
                        bytes += size;
                        delivered.queued += 1;
                    } else {
                        delivered.dropped += 1;
                    }
                    is_queued
                });
            }
        });
        // A broadcast that reaches no session does not change the number of deliveries until the
        // next timed delivery.
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

    /// True if publications may be queued: the node holds its lease, or is catching up after a
    /// brief pause. The lease is checked again before each write.
    pub(crate) fn may_broadcast(&self) -> bool {
        self.lease().is_held() || self.lease().is_catching_up()
    }

    /// Drops a publication, because the node holds no lease, and notes a gap for the listeners.
    fn withhold(&self, publication: &Publication) -> Delivered {
        let dropped = self.channels.count_of(&publication.channel);
        self.metrics()
            .messages_dropped
            .inc_by(DropReason::NoLease, dropped as u64);
        self.gap(&publication.channel, GapReason::NoLease);
        Delivered { queued: 0, dropped }
    }

    /// Notifies the listeners of a channel that publications may be missing. The gap is queued
    /// behind the frames that were queued before the loss. Like a publication, the gap is sent only
    /// while the session has access.
    ///
    /// While the node holds no lease, the gap is only noted, and [`Hub::reopened`] sends it.
    /// Several gaps that are noted before that call are sent as one gap.
    pub fn gap(&self, channel: &Channel, reason: GapReason) {
        self.channels.note_gap(channel, reason);
        // The lease is checked after the gap is noted. If the lease is renewed after this check,
        // [`Hub::reopened`] finds the noted gap.
        if self.lease().is_held() {
            self.channels
                .with(channel, |listeners| self.tell_gap(channel, listeners));
        }
    }

    /// Must be called when a lost lease is held again, and when the loss is more than a short
    /// interruption. Sends the noted gaps if the lease is held. Always wakes all sessions, so that
    /// they write or drop the frames that they held back.
    pub fn reopened(&self) {
        if self.lease().is_held() {
            self.channels
                .with_all(|channel, listeners| self.tell_gap(channel, listeners));
        }
        self.wake_all();
    }

    /// Notifies the listeners if a gap is noted for the channel.
    fn tell_gap(&self, channel: &Channel, listeners: &Listeners) {
        if let Some(reason) = listeners.take_gap() {
            // The position is `None`: only a subscription to a channel with a stream can be resumed
            // at a position.
            self.send_gap(channel, listeners, None, reason, |_| ());
        }
    }

    /// Notifies a channel's listeners that publications up to and including `position` are missing.
    /// If a listener's protocol resumes subscriptions by position, the listener's subscription ends
    /// instead. The caller holds the lock of the channel's feed, so that no publication is queued
    /// meanwhile.
    pub(crate) fn gap_at(&self, channel: &Channel, position: Position, reason: GapReason) {
        let mut ended = Vec::new();
        self.channels.with(channel, |listeners| {
            let end = |member: &Arc<Member>| ended.push(Arc::clone(member));
            self.send_gap(channel, listeners, Some(position), reason, end);
        });
        for member in ended {
            self.channels.remove(channel, &member);
            self.metrics().gaps.inc(reason);
            // The session's task then sees that the session no longer listens, and notifies the
            // client.
            member.outbox().reconsider();
        }
    }

    /// True if the session listens to the channel. If a session's protocol ends subscriptions at a
    /// gap, the session no longer listens after a gap, although it is still subscribed.
    pub fn listens(&self, channel: &Channel, member: &Member) -> bool {
        self.channels.listens(channel, member)
    }

    /// Queues the gap for each listener. A listener whose protocol ends the subscription is passed
    /// to `end` instead. A session whose queue has no room ends, as with a publication.
    #[cold]
    fn send_gap(
        &self,
        channel: &Channel,
        listeners: &Listeners,
        position: Option<Position>,
        reason: GapReason,
        mut end: impl FnMut(&Arc<Member>),
    ) {
        let mut frames = Frames::new(self, |wire| wire.push(&Push::Gap { channel, position }));
        let (mut told, mut bytes) = (0, 0);
        listeners.each(|member| {
            if self.wires.get(member.wire()).rules().gap_ends_subscription {
                return end(member);
            }
            let Some(frame) = frames.of(member.wire()) else {
                // The protocol of this wire has no message for a gap.
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
