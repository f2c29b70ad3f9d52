//! A Redis server, reduced to the state that matters to the protocol.

use crate::message::{Epoch, Message, Reply, Request};
use crate::rules::Rules;

/// A server's data and state.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Server {
    /// True if the revocation's key exists.
    pub revoked: bool,
    /// True if the key exists in its other spelling. A key is spelled readably or as a digest.
    pub respelt: bool,
    /// True if the floor exists. The floor covers every token of the model.
    pub floor: bool,
    /// The epoch of the server's data.
    pub epoch: Option<Epoch>,
    /// Number of restarts. Connections from before the last restart are dead.
    pub incarnation: u8,
    /// True if the server refuses writes, because it is demoted or without its replicas.
    pub fenced: bool,
}

/// Effect of a request besides its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// No effect outside the server's own data.
    None,
    /// Tracking is on for the connection that asked.
    TrackingOn,
    /// The revocation's key is written to the server.
    Revoke,
}

impl Server {
    /// A server with an epoch and nothing else.
    pub(crate) fn new(epoch: Option<Epoch>) -> Self {
        Self {
            revoked: false,
            respelt: false,
            floor: false,
            epoch,
            incarnation: 0,
            fenced: false,
        }
    }

    /// True if a session is revoked by the data of this server.
    pub(crate) fn revokes(&self) -> bool {
        self.revoked || self.respelt || self.floor
    }

    /// The same as [`Server::revokes`] for a reader that asks for only one spelling of a key unless
    /// `both_spellings` is true.
    pub(crate) fn revokes_by(&self, both_spellings: bool) -> bool {
        self.revoked || self.floor || both_spellings && self.respelt
    }

    /// True if the revocation's key exists in any spelling.
    pub(crate) fn has_key(&self) -> bool {
        self.revoked || self.respelt
    }

    /// Deletes the key in all spellings.
    pub(crate) fn lose_key(&mut self) {
        (self.revoked, self.respelt) = (false, false);
    }

    /// The data that replication copies.
    pub(crate) fn data(&self) -> (bool, bool, bool, Option<Epoch>) {
        (self.revoked, self.respelt, self.floor, self.epoch)
    }

    /// Copies another server's data.
    pub(crate) fn copy(&mut self, other: &Self) {
        (self.revoked, self.respelt, self.floor, self.epoch) = other.data();
    }

    /// Deletes all data.
    pub(crate) fn wipe(&mut self) {
        (self.floor, self.epoch) = (false, None);
        self.lose_key();
    }

    /// Executes a request of a node. `node_has_seen` is true if the node knows of the revocation,
    /// and can therefore re-assert it.
    pub(crate) fn execute(
        &mut self,
        request: Request,
        node_has_seen: bool,
        rules: &Rules,
    ) -> (Message, Effect) {
        let refused = match request {
            Request::Floor | Request::NewEpoch | Request::Reassert => self.fenced,
            Request::Heartbeat => self.fenced && rules.fenced_heartbeat,
            _ => false,
        };
        if refused {
            return (Message::Refused(request), Effect::None);
        }
        let (reply, effect) = match request {
            Request::Track => (Reply::Tracking, Effect::TrackingOn),
            Request::Epoch => (Reply::Epoch(self.epoch), Effect::None),
            Request::Floor => {
                self.floor = true;
                if rules.floor_with_epoch {
                    self.epoch.get_or_insert(Epoch::Second);
                }
                (Reply::FloorRaised(self.epoch), Effect::None)
            }
            Request::NewEpoch => {
                self.epoch.get_or_insert(Epoch::Second);
                (Reply::EpochRenewed(self.epoch), Effect::None)
            }
            Request::Reassert if node_has_seen && !self.revoked => {
                (Reply::Reasserted, Effect::Revoke)
            }
            Request::Reassert => (Reply::Reasserted, Effect::None),
            Request::Reconcile => {
                let revoked = self.revokes_by(rules.compare_both_spellings);
                (Reply::Reconciled { revoked }, Effect::None)
            }
            Request::Get => {
                let revoked = self.revokes_by(rules.get_both_spellings);
                (Reply::Value { revoked }, Effect::None)
            }
            Request::Compare => {
                let revoked = self.revokes_by(rules.compare_both_spellings);
                (Reply::Compared { revoked }, Effect::None)
            }
            Request::Confirm => {
                let revoked = self.revokes();
                (Reply::Found { revoked }, Effect::None)
            }
            Request::Heartbeat => (Reply::Written, Effect::None),
            Request::Barrier => (Reply::Passed, Effect::None),
        };
        (Message::Reply(reply), effect)
    }
}
