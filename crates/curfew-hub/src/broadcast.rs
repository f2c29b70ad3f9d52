//! The fan-out: one publication to all who listen, encoded once per protocol.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use curfew_model::{Publication, Push};
use curfew_protocol::ProtocolId;
use curfew_telemetry::DropReason;
use curfew_ws::frame::{self, Opcode};

use crate::Hub;
use crate::outbox::Arrival;

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
    /// Sessions it was not queued for: they are ending, their queue overflowed, or the node cannot
    /// vouch for them.
    pub dropped: usize,
}

impl Hub {
    /// Queues a publication for every session on this node that listens to its channel. Costs one
    /// encoding per protocol, and per listener a reference count, a queue slot and at most one
    /// wake-up.
    pub fn broadcast(&self, publication: &Publication) -> Delivered {
        // Where the node was stopped for a moment it waits with what is queued, and asks then.
        if !self.gate().is_open() && !self.gate().is_catching_up() {
            return self.withhold(publication);
        }
        let mut untimed = match publication.trace {
            None => self.untimed.load(Ordering::Relaxed),
            // Whoever looks at the times finds the trace.
            Some(_) => 0,
        };
        // Made for the first listener that is timed, which is among the first few.
        let mut arrival = None;
        let mut frames = Frames::new(self, publication);
        let mut delivered = Delivered::default();
        let mut bytes = 0;
        self.channels.each(&publication.channel, |member| {
            let frame = frames.of(member.protocol());
            let size = frame.len();
            let timed = match untimed {
                0 => Some(
                    &*arrival.get_or_insert_with(|| Arrival::now(publication.trace.as_deref())),
                ),
                _ => None,
            };
            untimed = untimed.checked_sub(1).unwrap_or(TIMED_ONE_IN_MANY - 1);
            if self.deliver(member, frame, timed) {
                bytes += size;
                delivered.queued += 1;
            } else {
                delivered.dropped += 1;
            }
        });
        if delivered.queued > 0 {
            let untimed = untimed.min(TIMED_ONE_IN - 1);
            self.untimed.store(untimed, Ordering::Relaxed);
        }
        self.count_queued(bytes);
        delivered
    }

    /// Nothing is delivered on trust.
    fn withhold(&self, publication: &Publication) -> Delivered {
        let dropped = self.channels.count_of(&publication.channel);
        self.metrics()
            .messages_dropped
            .inc_by(DropReason::Unvouched, dropped as u64);
        Delivered { queued: 0, dropped }
    }
}

/// A publication's frame in each protocol, encoded when first asked for.
struct Frames<'a> {
    hub: &'a Hub,
    publication: &'a Publication,
    first: Option<(ProtocolId, Bytes)>,
    others: Vec<(ProtocolId, Bytes)>,
}

impl<'a> Frames<'a> {
    fn new(hub: &'a Hub, publication: &'a Publication) -> Self {
        Self {
            hub,
            publication,
            first: None,
            others: Vec::new(),
        }
    }

    fn of(&mut self, protocol: ProtocolId) -> Bytes {
        if let Some((id, frame)) = &self.first
            && *id == protocol
        {
            return frame.clone();
        }
        if let Some((_, frame)) = self.others.iter().find(|(id, _)| *id == protocol) {
            return frame.clone();
        }
        let push = Push::Message {
            channel: &self.publication.channel,
            data: &self.publication.data,
            from: self.publication.from.as_deref(),
        };
        let encoder = self.hub.protocols.get(protocol);
        let frame = frame::encode(Opcode::Text, |out| encoder.encode_push(&push, out));
        if self.first.is_none() {
            self.first = Some((protocol, frame.clone()));
        } else {
            self.others.push((protocol, frame.clone()));
        }
        frame
    }
}
