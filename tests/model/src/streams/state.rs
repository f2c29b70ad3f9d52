//! The state of the model of streams.

use super::server::{Answer, Link, Position, Server};
use super::subscription::{Faults, Subscription};
use super::window::Window;
use crate::node::LEASE;

/// Two servers, one node and its subscriptions to one channel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StreamState {
    /// The first primary, and its replica.
    pub servers: [Server; 2],
    /// The index of the primary.
    pub current: usize,
    /// The node.
    pub node: ChannelNode,
    /// Position up to which the history has been deleted, if the node was notified.
    pub deleted: Option<Position>,
    /// The last position that clients have received from a stream that no longer exists.
    pub gone: Option<Position>,
    /// The number of epochs so far.
    pub epochs: u8,
    /// The number of histories so far.
    pub lines: u8,
    /// Number of ticks since the revocation of the first session; only in searches with a
    /// revocation.
    pub revoked_for: Option<u8>,
    /// The number of times that each event has happened.
    pub happened: StreamEvents,
    /// The faults so far.
    pub faults: Faults,
}

/// A node, reduced to one channel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ChannelNode {
    /// Index of the server to which the node's control connection leads.
    pub primary: usize,
    /// The `master_replid` that the node's connection has read.
    pub replid: u8,
    /// True while a null push is on its way to the node.
    pub null_push_due: bool,
    /// The node's link.
    pub link: Option<Link>,
    /// The node's window.
    pub window: Option<Window>,
    /// The read under way.
    pub read: Option<Read>,
    /// Number of ticks for which the node may deliver.
    pub lease: u8,
    /// True once the node's policy allows no session to subscribe.
    pub denies: bool,
    /// The subscriptions of the node's sessions.
    pub subscriptions: Vec<Subscription>,
}

/// A read under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Read {
    /// Index of the server that executes the read.
    pub server: usize,
    /// The `master_replid` that the read passes.
    pub replid: u8,
    /// True if a frame was lost on the link after the read was sent. The node does not know this.
    pub behind: bool,
    /// False once the read's answer must not fill the window.
    pub valid: bool,
    /// The entries that the first half has found; only without SR3.
    pub entries: Option<Answer>,
    /// The answer, once the server has executed the read.
    pub answer: Option<Answer>,
}

/// The number of times that each event has happened, or may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct StreamEvents {
    /// A publication is executed.
    pub publications: u8,
    /// The link breaks, and everything on it is lost.
    pub cuts: u8,
    /// A publication is lost on a link that stays up.
    pub losses: u8,
    /// `FLUSHALL`.
    pub wipes: u8,
    /// The replica is promoted.
    pub failovers: u8,
    /// The history is deleted.
    pub deletions: u8,
    /// The node drops the window for lack of memory.
    pub evictions: u8,
    /// A session unsubscribes and subscribes again.
    pub returns: u8,
    /// A read takes too long.
    pub timeouts: u8,
    /// The first session is revoked.
    pub revocations: u8,
    /// A policy comes into force that allows no session to subscribe.
    pub reloads: u8,
}

/// The part of the state space that is searched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamBounds {
    /// Number of sessions.
    pub sessions: usize,
    /// Maximum number of each event.
    pub events: StreamEvents,
    /// Number of entries that a stream stores.
    pub size: u8,
    /// Number of entries that the window stores; 0 without a window.
    pub window: u8,
    /// Number of frames that a subscription's buffer holds.
    pub buffer: usize,
}

impl StreamBounds {
    /// True if the search has events that end access. In other searches time does not pass, and
    /// queued frames are written at once.
    pub(super) fn access_may_end(&self) -> bool {
        self.events.revocations + self.events.reloads > 0
    }
}

impl StreamState {
    /// The only initial state: an empty stream, a node that does not listen, no subscription.
    pub(super) fn initial(bounds: &StreamBounds) -> Self {
        Self {
            servers: [Server::new(), Server::new()],
            current: 0,
            node: ChannelNode {
                primary: 0,
                replid: 1,
                null_push_due: false,
                link: None,
                window: None,
                read: None,
                lease: LEASE,
                denies: false,
                subscriptions: vec![Subscription::absent(); bounds.sessions],
            },
            deleted: None,
            gone: None,
            epochs: 1,
            lines: 1,
            revoked_for: None,
            happened: StreamEvents::default(),
            faults: Faults::default(),
        }
    }

    /// True if the node has been notified of every loss of data so far.
    pub(super) fn is_told(&self) -> bool {
        self.node.primary == self.current && !self.node.null_push_due
    }

    /// The positions with which a client may subscribe. A client has received them from this node
    /// or from another node.
    pub(super) fn positions(&self) -> Vec<Position> {
        let mut tops: Vec<Position> = self.gone.into_iter().collect();
        for (index, server) in self.servers.iter().enumerate() {
            let is_primary = index == self.current || index == 0;
            let known = |stream: &&super::server::Stream| stream.replid == server.replid;
            if is_primary && let Some(stream) = server.stream.as_ref().filter(known) {
                tops.push(Position {
                    epoch: stream.epoch,
                    offset: stream.top,
                    line: server.line,
                });
            }
        }
        let mut positions: Vec<Position> = Vec::new();
        for top in tops {
            positions.extend((0..=top.offset).map(|offset| Position { offset, ..top }));
        }
        positions.dedup();
        positions
    }
}
