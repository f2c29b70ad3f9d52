//! A node: the requests that it may send next, given the messages that it has received.
//!
//! The search of the model and the check of a real node's log use the same functions, so that there
//! is only one description of a node's permitted steps. Comments name the steps as the
//! specification does (C2 to C6, P, L).

use crate::message::{Epoch, Message, Primary, Reply, Request};
use crate::reload::Reload;
use crate::rules::{Forgetting, OnDataLoss, PushedInSetup, Rules};
use crate::session::{Session, Stage};
use crate::stall::Stall;

/// The delivery lease, in ticks.
pub const LEASE: u8 = 2;

/// The protocol's state on one node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Node {
    /// Phase of the control connection.
    pub phase: Phase,
    /// Generation of the last control connection; 0 before the first connection.
    pub generation: u64,
    /// Number of ticks for which the node may still deliver.
    pub lease: u8,
    /// Number of ticks since the last heartbeat was sent.
    pub heartbeat_age: u8,
    /// The epoch that the node has stored.
    pub epoch: Option<Epoch>,
    /// The epoch that the node will store once it is synced; always `None` without V4.
    pub next_epoch: Option<Epoch>,
    /// The primary that the node was last synced with.
    pub known_primary: Option<Primary>,
    /// True if the node knows of the revocation.
    pub seen: bool,
    /// True if the node has ever known of the revocation.
    pub ever_seen: bool,
    /// True if the answer to the next heartbeat makes the node forget the revocation; only with V8.
    pub forget_due: bool,
    /// True if a key was pushed and the GET for it is not sent yet.
    pub get_due: bool,
    /// True if tracking is still to be turned on; only without M5.
    pub tracking_due: bool,
    /// True if the node drops the answers that it awaits, and then reads the epoch again; only with
    /// V2.
    pub restarting: bool,
    /// The node's session, which may not have arrived yet.
    pub session: Session,
    /// The state of the node's reload; only in searches whose settings change.
    pub reload: Option<Reload>,
    /// The stall from which the node has not recovered yet.
    pub stall: Option<Stall>,
}

/// Phase of a node's control connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The node has no control connection.
    Down,
    /// The node cannot yet be sure to receive every revocation.
    Setup,
    /// The node delivers while its lease lasts.
    Synced,
}

/// A node's next step after a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The node sends this request at once.
    Send(Request),
    /// The node sends nothing because of the message.
    Wait,
    /// The node closes the connection.
    Disconnect,
}

impl Node {
    /// A newly started node.
    pub fn new() -> Self {
        Self {
            phase: Phase::Down,
            generation: 0,
            lease: 0,
            heartbeat_age: 0,
            epoch: None,
            next_epoch: None,
            known_primary: None,
            seen: false,
            ever_seen: false,
            forget_due: false,
            get_due: false,
            tracking_due: false,
            restarting: false,
            session: Session::absent(),
            reload: None,
            stall: None,
        }
    }

    /// True if the node may deliver to open sessions: it is synced, holds its lease and has
    /// recovered from any stall.
    pub fn is_open(&self, rules: &Rules) -> bool {
        let leased = !rules.lease || self.lease > 0;
        self.phase == Phase::Synced && leased && self.stall.is_none()
    }

    /// True if the node delivers to its session.
    pub fn delivers(&self, rules: &Rules) -> bool {
        self.session.is_open() && self.is_open(rules)
    }

    /// Starts a new control connection. Returns the first request on it.
    pub fn connect(&mut self, generation: u64, rules: &Rules) -> Request {
        self.generation = generation;
        self.phase = Phase::Setup;
        self.tracking_due = !rules.track_first;
        if rules.track_first {
            Request::Track
        } else {
            Request::Epoch
        }
    }

    /// Ends the control connection.
    pub fn disconnect(&mut self) {
        self.phase = Phase::Down;
        self.get_due = false;
        self.next_epoch = None;
        self.forget_due = false;
        self.restarting = false;
        self.heartbeat_age = 0;
    }

    /// True if the node may now send `request` of its own accord, although no message has triggered
    /// it. The requests in `awaited` are unanswered.
    pub fn may_send(&self, request: Request, awaited: &[Request], rules: &Rules) -> bool {
        let free = |kinds: &[Request]| {
            let blocks = |request| rules.heartbeat_waits || kinds.contains(request);
            !awaited.iter().any(blocks)
        };
        let wanted = match request {
            Request::Get => self.get_due && free(&[Request::Get]),
            Request::Heartbeat => {
                rules.one_connection
                    && !(self.get_due && rules.heartbeat_waits)
                    && free(&[Request::Heartbeat, Request::Barrier])
            }
            Request::Compare => {
                self.is_comparison_due(rules) && free(&[Request::Compare, Request::Reconcile])
            }
            Request::Confirm => self.may_confirm() && free(&[Request::Confirm]),
            _ => false,
        };
        self.phase == Phase::Synced && wanted
    }

    /// Records that the node sends `request`, and returns `request`.
    pub fn send(&mut self, request: Request, rules: &Rules) -> Request {
        match request {
            Request::Get => self.get_due = false,
            Request::Heartbeat => self.heartbeat_age = 0,
            _ => {}
        }
        self.asks_after_stall(request);
        self.asks_by_index(request, rules);
        request
    }

    /// Reads a message from the connection to `primary`. The requests in `awaited` are unanswered.
    pub fn receive(
        &mut self,
        message: Message,
        primary: Primary,
        awaited: &[Request],
        rules: &Rules,
    ) -> Next {
        let next = match message {
            Message::Refused(_) => Next::Disconnect,
            Message::Push => self.pushed(rules),
            Message::NullPush => self.pushed_null(awaited, rules),
            Message::Reply(_) if self.restarting => self.restart(awaited),
            Message::Reply(reply) => self.replied(reply, primary, rules),
        };
        self.let_go_of_closed_session();
        match next {
            Next::Send(request) => Next::Send(self.send(request, rules)),
            next => next,
        }
    }

    /// If the session is closed, clears the GET that is due for the session.
    pub(crate) fn let_go_of_closed_session(&mut self) {
        if self.session.stage == Stage::Closed {
            self.session.suspended = false;
            self.get_due = false;
        }
    }

    fn pushed(&mut self, rules: &Rules) -> Next {
        if self.session.registered {
            self.session.suspended |= rules.suspend_on_push;
            self.get_due = true;
        }
        Next::Wait
    }

    fn pushed_null(&mut self, awaited: &[Request], rules: &Rules) -> Next {
        if !rules.heed_null_push {
            return Next::Wait;
        }
        let was_synced = self.phase == Phase::Synced;
        if was_synced {
            self.phase = Phase::Setup;
            self.lease = 0;
            self.forget_due = false;
            if rules.forget_reads {
                self.session.forget_denial();
            }
        }
        if was_synced && awaited.is_empty() {
            return Next::Send(Request::Epoch);
        }
        if !rules.null_push_keeps_connection {
            return Next::Disconnect;
        }
        self.restarting = true;
        Next::Wait
    }

    fn restart(&mut self, awaited: &[Request]) -> Next {
        if !awaited.is_empty() {
            return Next::Wait;
        }
        self.restarting = false;
        Next::Send(Request::Epoch)
    }

    fn replied(&mut self, reply: Reply, primary: Primary, rules: &Rules) -> Next {
        match reply {
            Reply::Tracking if self.tracking_due => {
                self.tracking_due = false;
                Next::Send(Request::Heartbeat)
            }
            Reply::Tracking => Next::Send(Request::Epoch),
            Reply::Epoch(found) => self.epoch_read(found, primary, rules),
            Reply::EpochRenewed(_)
                if rules.on_data_loss == OnDataLoss::Reauth && !rules.floor_with_epoch =>
            {
                Next::Send(Request::Floor)
            }
            Reply::EpochRenewed(epoch) => {
                self.remember(epoch, rules);
                self.check_primary(primary, rules.reassert_after_loss, rules)
            }
            Reply::FloorRaised(epoch) => {
                self.remember(epoch, rules);
                self.check_primary(primary, false, rules)
            }
            Reply::Reasserted => self.check_sessions(rules),
            Reply::Reconciled { revoked } => self.reconciled(revoked, primary, rules),
            Reply::Value { revoked } => self.value_read(revoked, primary, rules),
            Reply::Compared { revoked } => {
                if self.compared(revoked, rules) {
                    self.know();
                    self.session.revoke();
                }
                Next::Wait
            }
            Reply::Found { revoked } => {
                if revoked {
                    self.learn();
                    self.confirm(rules);
                }
                Next::Wait
            }
            Reply::Written => {
                self.seen &= !std::mem::take(&mut self.forget_due);
                if rules.barrier {
                    Next::Send(Request::Barrier)
                } else {
                    self.synced(primary, rules)
                }
            }
            Reply::Passed => self.synced(primary, rules),
        }
    }

    /// Step C3: handles the epoch that Redis has returned. The loss rule L is applied here.
    fn epoch_read(&mut self, found: Option<Epoch>, primary: Primary, rules: &Rules) -> Next {
        let first = self.epoch.is_none();
        let lost = !first && self.epoch != found;
        let renew = lost || first && found.is_none();
        if !rules.heed_loss || !renew {
            self.remember(found, rules);
            return self.check_primary(primary, false, rules);
        }
        let written_back = rules.on_data_loss == OnDataLoss::Reassert || rules.reassert_with_floor;
        if lost && written_back && rules.forget_primaries {
            self.known_primary = None;
        }
        if lost && rules.on_data_loss == OnDataLoss::Reauth && rules.floor_with_epoch {
            return Next::Send(Request::Floor);
        }
        if found.is_none() {
            return Next::Send(Request::NewEpoch);
        }
        // Another node has renewed the epoch. With `Reassert` this node still writes its own
        // revocations back. With `Reauth` only searches without M8 get here, and this node then
        // raises no floor.
        let lacks_all = written_back && rules.reassert_after_loss;
        self.remember(found, rules);
        self.check_primary(primary, lacks_all, rules)
    }

    fn remember(&mut self, epoch: Option<Epoch>, rules: &Rules) {
        if rules.epoch_when_synced {
            self.next_epoch = epoch;
        } else {
            self.epoch = epoch;
        }
    }

    /// Step C4: re-asserts the known revocations to a primary that may lack them.
    fn check_primary(&mut self, primary: Primary, lacks_all: bool, rules: &Rules) -> Next {
        let lacks_some = rules.reassert && self.known_primary != Some(primary);
        if !rules.known_when_synced {
            self.known_primary = Some(primary);
        }
        if self.seen && (lacks_some || lacks_all) {
            Next::Send(Request::Reassert)
        } else {
            self.check_sessions(rules)
        }
    }

    /// Step C5: compares the sessions with Redis.
    fn check_sessions(&mut self, rules: &Rules) -> Next {
        Next::Send(if rules.reconcile {
            Request::Reconcile
        } else {
            Request::Heartbeat
        })
    }

    fn reconciled(&mut self, revoked: bool, primary: Primary, rules: &Rules) -> Next {
        if self.compared(revoked, rules) {
            self.learn();
        } else {
            self.get_due &= rules.pushed_in_setup != PushedInSetup::Answered;
            self.session.suspended &= self.get_due;
        }
        if self.tracking_due {
            return Next::Send(Request::Track);
        }
        self.finish_setup(primary, rules)
    }

    /// Step C6: sends the heartbeat that ends the set-up.
    fn finish_setup(&mut self, primary: Primary, rules: &Rules) -> Next {
        if self.get_due && rules.pushed_in_setup == PushedInSetup::AskedFirst {
            Next::Send(Request::Get)
        } else if rules.one_connection {
            Next::Send(Request::Heartbeat)
        } else {
            self.heartbeat_age = 0;
            self.synced(primary, rules)
        }
    }

    /// Step P: handles the answer to the GET of pushed keys.
    fn value_read(&mut self, revoked: bool, primary: Primary, rules: &Rules) -> Next {
        if revoked {
            self.learn();
        } else {
            self.session.suspended &= self.get_due;
            self.seen &= rules.forgetting != Forgetting::AtOnce;
            self.forget_due = self.seen && rules.forgetting == Forgetting::AfterHeartbeat;
        }
        match self.phase {
            Phase::Setup => self.finish_setup(primary, rules),
            Phase::Synced | Phase::Down => Next::Wait,
        }
    }

    fn learn(&mut self) {
        self.know();
        if self.session.registered {
            self.session.revoke();
        }
    }

    /// Records that the node knows of the revocation.
    pub(crate) fn know(&mut self) {
        self.seen = true;
        self.ever_seen = true;
        self.forget_due = false;
    }

    fn synced(&mut self, primary: Primary, rules: &Rules) -> Next {
        let spent = if rules.lease_from_send {
            self.heartbeat_age
        } else {
            0
        };
        if self.has_caught_up(rules) {
            self.lease = LEASE.saturating_sub(spent);
        }
        self.phase = Phase::Synced;
        self.known_primary = Some(primary);
        if rules.epoch_when_synced && self.next_epoch.is_some() {
            self.epoch = self.next_epoch.take();
        }
        Next::Wait
    }
}

impl Default for Node {
    fn default() -> Self {
        Self::new()
    }
}
