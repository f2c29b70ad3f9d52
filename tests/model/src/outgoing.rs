//! One outgoing item of the session: a frame for the client, or a publication for Redis.
//!
//! Time passes between the check of a session's access and the item's effect: in a queue, in a
//! process that does not run, in a socket, in a network. The result of the check may be outdated by
//! then. A node therefore checks in a certain order, immediately before it writes, and a
//! publication carries the time until which the check is valid.
//!
//! Only some searches have an outgoing item in their state.

use crate::node::LEASE;
use crate::rules::Rules;
use crate::state::{Bounds, Peer, State};

/// Number of ticks by which a deadline is too late if it is computed with the clock of the server
/// that does not execute the publication.
const SKEW: u8 = 2;

/// The kinds of outgoing items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A frame for the client. Its effect is the write.
    Frame,
    /// A publication of the client. It is written to Redis' socket, and Redis executes it later.
    Publication,
}

/// An outgoing item, and its progress.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Outgoing {
    /// The item's kind.
    pub kind: Kind,
    /// The item's position on its path.
    pub place: Place,
}

/// A position on the path out of the node. The numbers of ticks count down with time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// The item is queued. The checks before its write have not begun.
    Queued,
    /// The node has loaded its lease, which lasts for this number of ticks.
    Leased(u8),
    /// The node has loaded its lease and then found the session open. The node writes the item
    /// next. Frames that are set aside and batches of publications wait in this position.
    Cleared(u8),
    /// The publication is in the socket towards Redis.
    Sent {
        /// Index of the server that will execute the publication.
        server: usize,
        /// Number of ticks until the publication's deadline, by the clock of that server.
        deadline: u8,
        /// True once the publisher was told `unavailable`; only without M26.
        called_off: bool,
    },
    /// The frame is written, or Redis has executed the publication.
    Done,
    /// Redis refused the publication as late.
    Refused,
    /// The node dropped the item, because its session has ended or its publisher was told that it
    /// failed.
    Dropped,
}

/// A node's knowledge of a server's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Clock {
    /// Index of the server with the clock.
    pub server: usize,
    /// Number of ticks by which a deadline that is computed with this clock is late; negative if
    /// the deadline is early.
    pub late_by: i8,
}

impl Clock {
    /// The node's knowledge of the clock of `server`. The server sent its time `told_for` ticks
    /// ago, in answer to a request that was sent `sent_for` ticks ago.
    pub(crate) fn told(server: usize, told_for: u8, sent_for: u8, rules: &Rules) -> Self {
        let told_for = told_for.cast_signed();
        let late_by = if rules.fence_from_receipt {
            -told_for
        } else {
            sent_for.cast_signed() - told_for
        };
        Self { server, late_by }
    }
}

impl Outgoing {
    /// An item in [`Place::Queued`].
    pub(crate) fn queued(kind: Kind) -> Self {
        Self {
            kind,
            place: Place::Queued,
        }
    }

    /// Lets the item continue after a stall of the node. With M29, a lease that was loaded before
    /// the stall counts as expired.
    pub(crate) fn resume(&mut self, rules: &Rules) {
        if let Place::Leased(lease) | Place::Cleared(lease) = &mut self.place
            && rules.void_loaded_leases
        {
            *lease = 0;
        }
    }

    /// True if the node has begun the checks before the write.
    pub(crate) fn is_in_hand(&self) -> bool {
        matches!(self.place, Place::Leased(_) | Place::Cleared(_))
    }

    /// Lets a tick pass.
    pub(crate) fn tick(&mut self) {
        match &mut self.place {
            Place::Leased(lease) | Place::Cleared(lease) => *lease = lease.saturating_sub(1),
            Place::Sent { deadline, .. } => *deadline = deadline.saturating_sub(1),
            Place::Queued | Place::Done | Place::Refused | Place::Dropped => {}
        }
    }
}

/// A step of an outgoing item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// The node loads its lease.
    Load,
    /// The node checks the session.
    Look,
    /// The node writes the item, or finds that it may not write it.
    Write,
    /// Redis executes the publication, or refuses it as late.
    Execute,
    /// The publisher is told that the publication failed.
    CallOff,
}

impl Way {
    /// All steps.
    pub(crate) const ALL: [Self; 5] = [
        Self::Load,
        Self::Look,
        Self::Write,
        Self::Execute,
        Self::CallOff,
    ];

    /// True if Redis takes this step, not the node.
    pub(crate) fn is_of_redis(self) -> bool {
        self == Self::Execute
    }
}

impl Peer {
    /// True if the node's outgoing item can take this step.
    pub(crate) fn can_go(&self, way: Way, rules: &Rules) -> bool {
        let Some(outgoing) = &self.outgoing else {
            return false;
        };
        match (way, outgoing.place) {
            (Way::Load, Place::Queued) => rules.lease_before_session && self.node.is_open(rules),
            (Way::Look, Place::Queued) => !rules.lease_before_session && self.node.is_open(rules),
            (Way::Look, Place::Leased(_))
            | (Way::Write, Place::Cleared(_))
            | (Way::Execute, Place::Sent { .. }) => true,
            (Way::CallOff, Place::Queued | Place::Cleared(_)) => outgoing.kind == Kind::Publication,
            (Way::CallOff, Place::Sent { .. }) => !rules.unknown_outcome,
            _ => false,
        }
    }
}

impl State {
    /// Takes a step with a node's outgoing item. Returns `None` if the item cannot take the step.
    pub(crate) fn go(
        &mut self,
        node: usize,
        way: Way,
        bounds: &Bounds,
        rules: &Rules,
    ) -> Option<()> {
        let place = match way {
            Way::Load => Place::Leased(self.nodes[node].node.lease),
            Way::Look => self.look(node)?,
            Way::Write => self.write(node, bounds, rules)?,
            Way::Execute => self.publish(node, bounds, rules)?,
            Way::CallOff => self.call_off(node)?,
        };
        self.nodes[node].outgoing.as_mut()?.place = place;
        Some(())
    }

    fn look(&self, node: usize) -> Option<Place> {
        let peer = &self.nodes[node];
        let session = &peer.node.session;
        Some(match peer.outgoing.as_ref()?.place {
            Place::Leased(lease) if session.is_open() => Place::Cleared(lease),
            // Without M20 the session is checked before the lease is loaded.
            Place::Queued if session.is_open() => Place::Cleared(0),
            _ if session.revoked => Place::Dropped,
            _ => Place::Queued,
        })
    }

    fn write(&mut self, node: usize, bounds: &Bounds, rules: &Rules) -> Option<Place> {
        let peer = &self.nodes[node];
        let outgoing = peer.outgoing.as_ref()?;
        let Place::Cleared(loaded) = outgoing.place else {
            return None;
        };
        let now = if peer.node.is_open(rules) {
            peer.node.lease
        } else {
            0
        };
        let lease = if rules.lease_before_session {
            loaded
        } else {
            now
        };
        if rules.lease_at_write && lease == 0 {
            return Some(Place::Queued);
        }
        if outgoing.kind == Kind::Frame {
            self.took_effect_late |= self.is_late(bounds);
            return Some(Place::Done);
        }
        let until = if rules.fence_from_acceptance {
            lease
        } else {
            now
        };
        let (clock, server) = (peer.clock?, self.current);
        if rules.fence_by_executing_clock && clock.server != server {
            return None;
        }
        let skew = if clock.server == server { 0 } else { SKEW };
        let deadline = until.saturating_add_signed(clock.late_by);
        Some(Place::Sent {
            server,
            deadline: deadline + skew,
            called_off: false,
        })
    }

    fn publish(&mut self, node: usize, bounds: &Bounds, rules: &Rules) -> Option<Place> {
        let Place::Sent {
            deadline,
            called_off,
            ..
        } = self.nodes[node].outgoing.as_ref()?.place
        else {
            return None;
        };
        if rules.fence && deadline == 0 {
            return Some(Place::Refused);
        }
        self.took_effect_late |= self.is_late(bounds);
        self.took_effect_after_all |= called_off;
        Some(Place::Done)
    }

    fn call_off(&self, node: usize) -> Option<Place> {
        Some(match self.nodes[node].outgoing.as_ref()?.place {
            Place::Sent {
                server, deadline, ..
            } => Place::Sent {
                server,
                deadline,
                called_off: true,
            },
            _ => Place::Dropped,
        })
    }

    /// True if the revocation is so old that no item of the session may take effect any more.
    fn is_late(&self, bounds: &Bounds) -> bool {
        let patience = if bounds.extras.timely { 1 } else { LEASE };
        self.revoked_for.is_some_and(|age| age >= patience)
    }
}
