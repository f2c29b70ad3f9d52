//! The state of the model: two servers, the nodes, and facts that the properties need.

use crate::connection::Connection;
use crate::message::{Epoch, Primary};
use crate::node::{LEASE, Node, Phase};
use crate::outgoing::{Clock, Kind, Outgoing};
use crate::reload::Reload;
use crate::session::Session;

/// The complete state at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    /// The first primary, and its replica.
    pub servers: [crate::Server; 2],
    /// Index of the primary.
    pub current: usize,
    /// The nodes.
    pub nodes: Vec<Peer>,
    /// Number of times that each bounded event has happened so far.
    pub happened: Events,
    /// Number of ticks since the revocation was committed; `None` while the primary lacks the
    /// revocation's key.
    pub revoked_for: Option<u8>,
    /// Number of ticks since a committed revocation was lost with the data.
    pub lost_for: Option<u8>,
    /// True if a session became active although its keys were read after the revocation.
    pub admitted_late: bool,
    /// True once an outgoing item took effect although the revocation had been committed for a
    /// lease, or for a tick if [`Extras::timely`] is set.
    pub took_effect_late: bool,
    /// True once a publication took effect although its publisher was told that it would not.
    pub took_effect_after_all: bool,
}

/// A node and its control connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The node.
    pub node: Node,
    /// The node's control connection.
    pub connection: Option<Connection>,
    /// The node's outgoing item.
    pub outgoing: Option<Outgoing>,
    /// The clock for deadlines; only in searches with a publication.
    pub clock: Option<Clock>,
}

/// Number of times that each event has happened, or may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Events {
    /// The revocation is written.
    pub revocations: u8,
    /// The revocation is deleted.
    pub lifts: u8,
    /// The replica is promoted.
    pub failovers: u8,
    /// `FLUSHALL`.
    pub wipes: u8,
    /// The primary restarts without data.
    pub restarts: u8,
    /// The primary restarts from a snapshot that has the epoch and lacks the revocation.
    pub stale_restarts: u8,
    /// A working connection is cut.
    pub cuts: u8,
    /// The revocation is written in another spelling of its key.
    pub respellings: u8,
    /// A node does not run for a while.
    pub stalls: u8,
}

/// Bounds of the searched part of the state space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// Number of nodes.
    pub nodes: usize,
    /// Maximum number of each event.
    pub events: Events,
    /// Each node makes at most this number of connections plus one.
    pub generations: u64,
    /// Start of the search.
    pub start: Start,
    /// State in addition to the protocol's core.
    pub extras: Extras,
}

/// Additional state that only some searches have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extras {
    /// An outgoing item of the session.
    pub outgoing: Option<Kind>,
    /// True if settings change once, and the revocation covers the session only by the new
    /// settings.
    pub reload: bool,
    /// True if the network and every running node have no delay: no tick passes while something
    /// waits for them.
    pub timely: bool,
}

/// Start of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Nodes are down, and have stored the epoch.
    Down,
    /// Nodes are down and have stored nothing, and Redis is new.
    New,
    /// Nodes are synced, and each has a session.
    Synced,
    /// Nodes are synced, each has a session, and the revocation has just been written.
    SyncedAndRevoked,
}

impl State {
    /// The only initial state.
    pub(crate) fn initial(bounds: &Bounds) -> Self {
        let epoch = (bounds.start != Start::New).then_some(Epoch::First);
        let revoked = bounds.start == Start::SyncedAndRevoked;
        let mut servers = [crate::Server::new(epoch), crate::Server::new(epoch)];
        servers[0].revoked = revoked;
        Self {
            servers,
            current: 0,
            nodes: vec![Peer::initial(bounds, epoch); bounds.nodes],
            happened: Events {
                revocations: u8::from(revoked),
                ..Events::default()
            },
            revoked_for: revoked.then_some(0),
            lost_for: None,
            admitted_late: false,
            took_effect_late: false,
            took_effect_after_all: false,
        }
    }

    /// The primary to which a new connection leads.
    pub(crate) fn primary(&self) -> Primary {
        Primary {
            server: self.current,
            incarnation: self.servers[self.current].incarnation,
        }
    }

    /// True if the server of `connection` still runs.
    pub(crate) fn is_live(&self, connection: &Connection) -> bool {
        let Primary {
            server,
            incarnation,
        } = connection.primary;
        self.servers[server].incarnation == incarnation
    }

    /// True if `connection` leads to the primary.
    pub(crate) fn is_current(&self, connection: &Connection) -> bool {
        connection.primary == self.primary()
    }

    /// Writes the revocation to a server.
    pub(crate) fn revoke(&mut self, server: usize) {
        self.servers[server].revoked = true;
        self.key_written(server);
    }

    /// Handles a write of the revocation's key to a server, in one spelling or the other.
    pub(crate) fn key_written(&mut self, server: usize) {
        for connection in self.tracking(server) {
            connection.push_due = true;
        }
        if server == self.current && self.revoked_for.is_none() {
            self.revoked_for = Some(0);
            self.lost_for = None;
        }
    }

    /// The live connections on which changes of `server` are pushed.
    pub(crate) fn tracking(&mut self, server: usize) -> impl Iterator<Item = &mut Connection> {
        let primary = Primary {
            server,
            incarnation: self.servers[server].incarnation,
        };
        self.nodes
            .iter_mut()
            .filter_map(|peer| peer.connection.as_mut())
            .filter(move |connection| connection.primary == primary && connection.tracking)
    }
}

impl Peer {
    fn initial(bounds: &Bounds, epoch: Option<Epoch>) -> Self {
        let start = bounds.start;
        let primary = Primary {
            server: 0,
            incarnation: 0,
        };
        let down = Node {
            epoch,
            known_primary: epoch.map(|_| primary),
            reload: bounds.extras.reload.then(Reload::old),
            ..Node::new()
        };
        let outgoing = bounds.extras.outgoing.map(Outgoing::queued);
        if matches!(start, Start::Down | Start::New) {
            return Self {
                node: down,
                connection: None,
                outgoing,
                clock: None,
            };
        }
        let mut connection = Connection::new(primary, None);
        connection.tracking = true;
        connection.push_due = start == Start::SyncedAndRevoked;
        Self {
            node: Node {
                phase: Phase::Synced,
                generation: 1,
                lease: LEASE,
                session: Session {
                    registered: !bounds.extras.reload,
                    ..Session::active(1)
                },
                ..down
            },
            connection: Some(connection),
            outgoing,
            clock: (bounds.extras.outgoing == Some(Kind::Publication)).then_some(Clock {
                server: 0,
                late_by: 0,
            }),
        }
    }

    /// Handles the end of the control connection.
    pub(crate) fn disconnect(&mut self) {
        self.connection = None;
        self.node.disconnect();
    }
}
