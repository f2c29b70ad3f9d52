//! Actions of the model and their effects.

use crate::connection::Connection;
use crate::message::{Message, Request};
use crate::node::{LEASE, Next, Phase};
use crate::outgoing::{Clock, Outgoing, Way};
use crate::reload::Progress;
use crate::rules::Rules;
use crate::server::Effect;
use crate::session::Stage;
use crate::stall::Stall;
use crate::state::{Bounds, Peer, State};

/// One step of the model. The number in a variant is the index of the node that the step concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// The revocation's key is written to the primary.
    Revoke,
    /// The revocation's key is written to the primary in its other spelling.
    Respell,
    /// The first spelling of the revocation's key is deleted from the primary.
    Lift,
    /// The other spelling of the revocation's key is deleted from the primary.
    LiftRespelt,
    /// The replica copies the primary's data.
    Replicate,
    /// The replica is promoted; the old primary refuses writes from now on.
    Failover,
    /// `FLUSHALL` on the primary.
    FlushAll,
    /// The primary restarts without data.
    RestartEmpty,
    /// The primary restarts from an old snapshot, which has the epoch but lacks the revocation.
    RestartStale,
    /// A tick of time passes.
    Tick,
    /// The node's control connection breaks.
    Cut(usize),
    /// The node connects to the primary.
    Connect(usize),
    /// The server executes the node's next request.
    Execute(usize),
    /// An iteration of the server's event loop ends: the server sends the node its collected
    /// output.
    EndIteration(usize),
    /// The node reads the next message from its control connection.
    Receive(usize),
    /// The node sends the request for the keys that were pushed.
    Ask(usize),
    /// The node sends a heartbeat.
    Beat(usize),
    /// The node sends a heartbeat over a connection other than its control connection. Only
    /// searches without M9 have this action.
    BeatApart(usize),
    /// The node stops running for a while.
    Stop(usize),
    /// The node runs again.
    Resume(usize),
    /// The node's settings change.
    Reload(usize),
    /// The node indexes its sessions by the new settings.
    Index(usize),
    /// After a change of settings, the node sends the request for the keys of every session.
    Compare(usize),
    /// The node sends the request for the key that a receipt asks about.
    Confirm(usize),
    /// The node's outgoing frame or publication takes a step.
    Go(usize, Way),
    /// A session arrives and its token is verified (A1); only in searches whose settings change.
    Verify(usize),
    /// The session is registered (A3).
    Register(usize),
    /// The session's keys are read and its record is written (A4 and A6).
    Read(usize),
    /// The session is activated or denied (A7).
    Activate(usize),
}

/// Adds every action that is possible in `state` to `actions`.
pub(crate) fn enabled(state: &State, bounds: &Bounds, rules: &Rules, actions: &mut Vec<Action>) {
    let (happened, most) = (&state.happened, &bounds.events);
    let [primary, replica] = &state.servers;
    let shared = [
        (happened.revocations < most.revocations, Action::Revoke),
        (
            happened.lifts < most.lifts && state.servers[state.current].revoked,
            Action::Lift,
        ),
        (happened.respellings < most.respellings, Action::Respell),
        (
            happened.lifts < most.lifts && state.servers[state.current].respelt,
            Action::LiftRespelt,
        ),
        (
            state.current == 0 && primary.data() != replica.data(),
            Action::Replicate,
        ),
        (
            state.current == 0 && happened.failovers < most.failovers,
            Action::Failover,
        ),
        (happened.wipes < most.wipes, Action::FlushAll),
        (happened.restarts < most.restarts, Action::RestartEmpty),
        (
            happened.stale_restarts < most.stale_restarts,
            Action::RestartStale,
        ),
        (!bounds.extras.timely || state.is_quiet(), Action::Tick),
    ];
    actions.extend(
        shared
            .iter()
            .filter(|(on, _)| *on)
            .map(|(_, action)| action),
    );
    for node in 0..state.nodes.len() {
        let peer = &state.nodes[node];
        let can_go = |way: &Way| {
            let runs = peer.node.runs() || way.is_of_redis();
            runs && peer.can_go(*way, rules)
        };
        let ways = Way::ALL.into_iter().filter(can_go);
        actions.extend(ways.map(|way| Action::Go(node, way)));
        if !peer.node.runs() {
            actions.push(Action::Resume(node));
            if let Some(connection) = &peer.connection {
                enabled_at_redis(connection, node, state, actions);
            }
            continue;
        }
        match &peer.connection {
            None => actions.push(Action::Connect(node)),
            Some(connection) => enabled_on(connection, node, state, bounds, rules, actions),
        }
        enabled_for_session(node, state, rules, actions);
        if happened.stalls < most.stalls && peer.node.stall.is_none() {
            actions.push(Action::Stop(node));
        }
        if peer
            .node
            .reload
            .is_some_and(|reload| reload.progress == Progress::Old)
        {
            actions.push(Action::Reload(node));
        }
        if peer.node.may_index(rules) {
            actions.push(Action::Index(node));
        }
    }
}

/// Adds the steps that Redis can take for `connection`.
fn enabled_at_redis(
    connection: &Connection,
    node: usize,
    state: &State,
    actions: &mut Vec<Action>,
) {
    let live = state.is_live(connection);
    if live && !connection.requests.is_empty() {
        actions.push(Action::Execute(node));
    }
    if live && connection.has_output() {
        actions.push(Action::EndIteration(node));
    }
}

fn enabled_on(
    connection: &Connection,
    node: usize,
    state: &State,
    bounds: &Bounds,
    rules: &Rules,
    actions: &mut Vec<Action>,
) {
    if state.happened.cuts < bounds.events.cuts || !state.is_current(connection) {
        actions.push(Action::Cut(node));
    }
    enabled_at_redis(connection, node, state, actions);
    if !connection.unread.is_empty() {
        actions.push(Action::Receive(node));
    }
    let peer = &state.nodes[node].node;
    if peer.phase != Phase::Synced {
        return;
    }
    let awaited = connection.awaited();
    if peer.may_send(Request::Get, &awaited, rules) {
        actions.push(Action::Ask(node));
    }
    if peer.may_send(Request::Heartbeat, &awaited, rules) {
        actions.push(Action::Beat(node));
    }
    if peer.may_send(Request::Compare, &awaited, rules) {
        actions.push(Action::Compare(node));
    }
    if peer.may_send(Request::Confirm, &awaited, rules) {
        actions.push(Action::Confirm(node));
    }
    if !rules.one_connection && state.is_live(connection) {
        actions.push(Action::BeatApart(node));
    }
}

fn enabled_for_session(node: usize, state: &State, rules: &Rules, actions: &mut Vec<Action>) {
    let peer = &state.nodes[node].node;
    match peer.session.stage {
        Stage::Absent if peer.is_open(rules) && peer.reload.is_some() => {
            actions.push(Action::Verify(node));
        }
        Stage::Absent if peer.is_open(rules) => actions.push(Action::Register(node)),
        Stage::Verified { .. } => actions.push(Action::Register(node)),
        Stage::Pending if peer.phase == Phase::Synced => actions.push(Action::Read(node)),
        Stage::Read { .. } => actions.push(Action::Activate(node)),
        _ => {}
    }
}

/// The state after `action`; `None` if `action` changes nothing or would exceed `bounds`.
pub(crate) fn apply(
    before: &State,
    action: Action,
    bounds: &Bounds,
    rules: &Rules,
) -> Option<State> {
    let mut state = before.clone();
    match action {
        Action::Revoke => {
            state.happened.revocations += 1;
            state.revoke(state.current);
        }
        Action::Respell => {
            state.happened.respellings += 1;
            state.servers[state.current].respelt = true;
            state.key_written(state.current);
        }
        Action::Lift => {
            state.servers[state.current].revoked = false;
            state.lifted();
        }
        Action::LiftRespelt => {
            state.servers[state.current].respelt = false;
            state.lifted();
        }
        Action::Replicate => {
            let [primary, replica] = &mut state.servers;
            replica.copy(primary);
        }
        Action::Failover => state.fail_over(),
        Action::FlushAll => state.flush_all(),
        Action::RestartEmpty => {
            state.happened.restarts += 1;
            state.servers[state.current].incarnation += 1;
            state.lose_data();
        }
        Action::RestartStale => {
            state.happened.stale_restarts += 1;
            let server = &mut state.servers[state.current];
            server.incarnation += 1;
            server.lose_key();
            state.revoked_for = None;
        }
        Action::Tick => state.tick(),
        Action::Cut(node) => {
            let connection = state.nodes[node].connection.as_ref()?;
            state.happened.cuts += u8::from(state.is_current(connection));
            state.nodes[node].disconnect();
        }
        Action::Connect(node) => state.connect(node, bounds, rules)?,
        Action::Execute(node) => state.execute(node, rules)?,
        Action::EndIteration(node) => {
            let connection = state.nodes[node].connection.as_mut()?;
            connection.end_iteration().then_some(())?;
        }
        Action::Receive(node) => state.receive(node, rules)?,
        Action::Ask(node) => state.send(node, Request::Get, rules)?,
        Action::Beat(node) => state.send(node, Request::Heartbeat, rules)?,
        Action::Compare(node) => state.send(node, Request::Compare, rules)?,
        Action::Confirm(node) => state.send(node, Request::Confirm, rules)?,
        Action::BeatApart(node) => state.beat_apart(node, rules)?,
        Action::Stop(node) => {
            state.happened.stalls += 1;
            state.nodes[node].node.stall = Some(Stall::Stopped);
        }
        Action::Resume(node) => {
            let peer = &mut state.nodes[node];
            peer.node.resume(rules);
            if let Some(outgoing) = &mut peer.outgoing {
                outgoing.resume(rules);
            }
        }
        Action::Reload(node) => state.nodes[node].node.reload(),
        Action::Index(node) => state.nodes[node].node.index(rules),
        Action::Go(node, way) => state.go(node, way, bounds, rules)?,
        Action::Verify(node) => state.nodes[node].node.verify(),
        Action::Register(node) => state.nodes[node].node.register(rules),
        Action::Read(node) => state.read(node, rules)?,
        Action::Activate(node) => state.activate(node, rules)?,
    }
    Some(state)
}

impl State {
    fn lifted(&mut self) {
        self.happened.lifts += 1;
        if !self.servers[self.current].has_key() {
            self.revoked_for = None;
        }
        for connection in self.tracking(self.current) {
            connection.push_due = true;
        }
    }

    fn fail_over(&mut self) {
        self.happened.failovers += 1;
        self.current = 1;
        self.servers[0].fenced = true;
        let kept = self.servers[1].has_key();
        self.revoked_for = kept.then(|| self.revoked_for.unwrap_or(0));
        self.lost_for = None;
    }

    fn flush_all(&mut self) {
        self.happened.wipes += 1;
        for connection in self.tracking(self.current) {
            connection.null_push_due = true;
        }
        self.lose_data();
    }

    fn lose_data(&mut self) {
        let server = &mut self.servers[self.current];
        if server.has_key() || self.lost_for.is_some() {
            self.lost_for = Some(0);
        }
        server.wipe();
        self.revoked_for = None;
    }

    fn tick(&mut self) {
        let older = |age: u8| (age + 1).min(LEASE + 1);
        for peer in &mut self.nodes {
            peer.node.lease = peer.node.lease.saturating_sub(1);
            peer.node.heartbeat_age = older(peer.node.heartbeat_age);
            if let Some(outgoing) = &mut peer.outgoing {
                outgoing.tick();
            }
            if let Some(connection) = &mut peer.connection {
                connection.told_time_for = connection.told_time_for.map(older);
            }
        }
        self.revoked_for = self.revoked_for.map(older);
        self.lost_for = self.lost_for.map(older);
    }

    fn connect(&mut self, node: usize, bounds: &Bounds, rules: &Rules) -> Option<()> {
        let primary = self.primary();
        let peer = &mut self.nodes[node];
        if peer.node.generation > bounds.generations {
            return None;
        }
        let first = peer.node.connect(peer.node.generation + 1, rules);
        peer.connection = Some(Connection::new(primary, Some(first)));
        Some(())
    }

    fn execute(&mut self, node: usize, rules: &Rules) -> Option<()> {
        let peer = &mut self.nodes[node];
        let connection = peer.connection.as_mut()?;
        let request = connection.requests.remove(0);
        let server = connection.primary.server;
        let (answer, effect) = self.servers[server].execute(request, peer.node.seen, rules);
        connection.answers.push(answer);
        if request == Request::Barrier && peer.clock.is_some() {
            connection.told_time_for = Some(0);
        }
        match effect {
            Effect::None => {}
            Effect::TrackingOn => connection.tracking = true,
            Effect::Revoke => self.revoke(server),
        }
        Some(())
    }

    fn receive(&mut self, node: usize, rules: &Rules) -> Option<()> {
        let peer = &mut self.nodes[node];
        let connection = peer.connection.as_mut()?;
        let message = connection.unread.remove(0);
        if message.answers() == Some(Request::Barrier)
            && let Some(age) = connection.told_time_for.take()
        {
            peer.clock = Some(Clock::told(
                connection.primary.server,
                age,
                peer.node.heartbeat_age,
                rules,
            ));
        }
        let awaited = match message {
            Message::Push | Message::Refused(_) => Vec::new(),
            Message::NullPush | Message::Reply(_) => connection.awaited(),
        };
        match peer
            .node
            .receive(message, connection.primary, &awaited, rules)
        {
            Next::Send(request) => connection.requests.push(request),
            Next::Wait => {}
            Next::Disconnect => peer.disconnect(),
        }
        Some(())
    }

    fn send(&mut self, node: usize, request: Request, rules: &Rules) -> Option<()> {
        let peer = &mut self.nodes[node];
        let request = peer.node.send(request, rules);
        peer.connection.as_mut()?.requests.push(request);
        Some(())
    }

    fn beat_apart(&mut self, node: usize, rules: &Rules) -> Option<()> {
        let peer = &mut self.nodes[node];
        let server = peer.connection.as_ref()?.primary.server;
        if self.servers[server].fenced && rules.fenced_heartbeat {
            peer.disconnect();
        } else if peer.node.lease == LEASE {
            return None;
        } else {
            peer.node.lease = LEASE;
        }
        Some(())
    }

    fn read(&mut self, node: usize, rules: &Rules) -> Option<()> {
        let connection = self.nodes[node].connection.as_ref()?;
        let server = if rules.admission_apart {
            self.current
        } else {
            self.is_live(connection).then_some(())?;
            connection.primary.server
        };
        let server = &self.servers[server];
        let refused = server.fenced && rules.admission_writes;
        let node = &mut self.nodes[node].node;
        let remembered = node.seen && rules.admission_remembers;
        // In searches whose settings change, `registered` means that the session is indexed under
        // the revocation's key.
        let asks = node.reload.is_none() || node.session.registered;
        let revoked = asks && server.revokes_by(rules.compare_both_spellings);
        let denied = revoked || refused || remembered;
        node.session.stage = Stage::Read { denied };
        node.session.generation = node.generation;
        node.session.read_stale = asks && self.revoked_for.is_some() && !denied;
        Some(())
    }

    fn activate(&mut self, node: usize, rules: &Rules) -> Option<()> {
        let node = &mut self.nodes[node].node;
        let Stage::Read { denied } = node.session.stage else {
            return None;
        };
        let same_generation =
            node.phase == Phase::Synced && node.generation == node.session.generation;
        if denied {
            if same_generation {
                node.know();
            }
            node.session.revoke();
        } else if node.session.revoked || rules.recheck_generation && !same_generation {
            node.session.stage = Stage::Closed;
        } else {
            node.session.registered |= !rules.register_first;
            node.session.stage = Stage::Active;
            self.admitted_late |= node.session.read_stale;
        }
        node.let_go_of_closed_session();
        Some(())
    }

    /// True if nothing waits for the network, for Redis, or for a node that runs.
    fn is_quiet(&self) -> bool {
        let is_in_hand = |peer: &Peer| {
            let mut outgoing = peer.outgoing.iter();
            peer.node.runs() && outgoing.any(Outgoing::is_in_hand)
        };
        let is_quiet = |peer: &Peer| {
            !is_in_hand(peer)
                && peer.connection.as_ref().is_none_or(|connection| {
                    let answered = connection.requests.is_empty() && !connection.has_output();
                    let read = connection.unread.is_empty() && !peer.node.get_due;
                    answered && (read || !peer.node.runs())
                })
        };
        self.nodes.iter().all(is_quiet)
    }
}
