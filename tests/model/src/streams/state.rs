//! The state of the whole.

use super::server::{Answer, Link, Position, Server};
use super::subscription::{Faults, Subscription};
use super::window::Window;
use crate::node::LEASE;

/// Two servers, one node and its subscriptions to one channel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StreamState {
    /// The first primary, and its replica.
    pub servers: [Server; 2],
    /// Which of them is the primary.
    pub current: usize,
    /// The node.
    pub node: ChannelNode,
    /// The history up to here has been deleted, and the node was told.
    pub deleted: Option<Position>,
    /// Positions that clients have from a stream that is gone: up to this one.
    pub gone: Option<Position>,
    /// How many epochs there have been.
    pub epochs: u8,
    /// How many histories.
    pub lines: u8,
    /// Ticks since the revocation of the first session; only where one may come.
    pub revoked_for: Option<u8>,
    /// How often each thing has happened.
    pub happened: StreamEvents,
    /// What has gone wrong.
    pub faults: Faults,
}

/// A node, as far as one channel goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ChannelNode {
    /// The server of its generation.
    pub primary: usize,
    /// The `master_replid` that its connection has read.
    pub replid: u8,
    /// True while a null push is on its way to it.
    pub null_push_due: bool,
    /// Its link.
    pub link: Option<Link>,
    /// Its window.
    pub window: Option<Window>,
    /// The read under way.
    pub read: Option<Read>,
    /// Ticks that it may deliver for.
    pub lease: u8,
    /// True once its policy denies every subscription.
    pub denies: bool,
    /// Its sessions' subscriptions.
    pub subscriptions: Vec<Subscription>,
}

/// A read under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Read {
    /// The server that executes it.
    pub server: usize,
    /// The `master_replid` that it passes.
    pub replid: u8,
    /// Hidden from the node: a frame was lost on the link since it was sent.
    pub behind: bool,
    /// False once what it says must not fill the window.
    pub valid: bool,
    /// The entries that it has found; only without SR3.
    pub entries: Option<Answer>,
    /// The answer, when the server has executed it.
    pub answer: Option<Answer>,
}

/// How often each thing has happened, or may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct StreamEvents {
    /// A publication is executed.
    pub publications: u8,
    /// The link breaks, and what is on it is lost.
    pub cuts: u8,
    /// A publication is lost on a link that stays up.
    pub losses: u8,
    /// `FLUSHALL`.
    pub wipes: u8,
    /// The replica is promoted.
    pub failovers: u8,
    /// The history is deleted.
    pub deletions: u8,
    /// The node gives up the window for want of room.
    pub evictions: u8,
    /// A session unsubscribes and subscribes again.
    pub returns: u8,
    /// A read takes too long.
    pub timeouts: u8,
    /// The first session is revoked.
    pub revocations: u8,
    /// A policy is put in force that denies every subscription.
    pub reloads: u8,
}

/// How large a part of the state space is searched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamBounds {
    /// Sessions.
    pub sessions: usize,
    /// Events, at most.
    pub events: StreamEvents,
    /// Entries that a stream keeps.
    pub size: u8,
    /// Entries that the window keeps; without a window, 0.
    pub window: u8,
    /// Frames that a subscription's buffer takes.
    pub buffer: usize,
}

impl StreamBounds {
    /// True when access may end. Elsewhere time stands still, and what is queued is written at once.
    pub(super) fn access_may_end(&self) -> bool {
        self.events.revocations + self.events.reloads > 0
    }
}

impl StreamState {
    /// The one initial state: an empty stream, a node that does not listen, no subscription.
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

    /// True when the node has been told of every loss of data there was.
    pub(super) fn is_told(&self) -> bool {
        self.node.primary == self.current && !self.node.null_push_due
    }

    /// The positions that a client may come with, from this node or another.
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
