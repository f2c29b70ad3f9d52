//! Properties that must hold in every state or in at least one state.

use stateright::Property;

use crate::model::{Asked, Protocol};
use crate::node::{LEASE, Node, Phase};
use crate::rules::OnDataLoss;
use crate::state::{Peer, State};

mod extras;

/// The only property that some searches cannot reach, because their nodes make too few connections.
pub(crate) const RESUMED: &str = "a session is delivered to again after a reconnect";

/// Every property that a search of `protocol` checks. The name of an invariant begins with its
/// number in the specification.
pub(crate) fn all(protocol: &Protocol) -> Vec<Property<Protocol>> {
    let mut properties = vec![
        Property::always(
            "I1/I2: nothing is delivered later than a lease after the revocation",
            |protocol: &Protocol, state: &State| {
                let mut nodes = state.nodes.iter();
                !past_lease(state.revoked_for) || !nodes.any(|peer| delivers(&peer.node, protocol))
            },
        ),
        Property::always(
            "I1': a synced node with nothing left to read has no revoked session open",
            |protocol: &Protocol, state: &State| {
                state.revoked_for.is_none()
                    || !state
                        .nodes
                        .iter()
                        .any(|peer| is_up_to_date(peer, state) && delivers(&peer.node, protocol))
            },
        ),
        Property::always(
            "I3: no session is admitted whose keys were read after the revocation",
            |_, state: &State| !state.admitted_late,
        ),
        Property::always(
            "I5: a revocation that a synced node knows is on its primary",
            |protocol: &Protocol, state: &State| {
                protocol.lifts() || state.nodes.iter().all(|peer| keeps(peer, protocol, state))
            },
        ),
    ];
    match protocol.rules.on_data_loss {
        OnDataLoss::Reauth => properties.push(Property::always(
            "I6: nothing is delivered later than a lease after a loss of data",
            |protocol: &Protocol, state: &State| {
                !past_lease(state.lost_for) || !any_delivers(protocol, state)
            },
        )),
        OnDataLoss::Reassert => properties.push(Property::always(
            "I6': a node that knows of a loss delivers to no session that it has seen revoked",
            |protocol: &Protocol, state: &State| {
                let forgets = |peer: &Peer| {
                    let told = peer.connection.as_ref().is_some_and(|connection| {
                        state.is_current(connection) && !connection.brings_null_push()
                    });
                    let heeds = told || past_lease(state.lost_for);
                    peer.node.seen && heeds && delivers(&peer.node, protocol)
                };
                protocol.lifts() || !state.nodes.iter().any(forgets)
            },
        )),
    }
    match protocol.asked {
        None | Some(Asked::NeverLose) => {}
        Some(Asked::NothingAfterReceipt) => properties.push(Property::always(
            "R5+: no publication takes effect once its session was confirmed as closed",
            |_, state: &State| !state.nodes.iter().any(extras::may_publish_after_receipt),
        )),
        Some(Asked::NeverForget) => properties.push(Property::always(
            "R6+: no node ever delivers to a session that it has seen revoked",
            |protocol: &Protocol, state: &State| {
                let forgets = |node: &Node| node.seen && delivers(node, protocol);
                !state.nodes.iter().any(|peer| forgets(&peer.node))
            },
        )),
        Some(Asked::HeedOthers) => properties.push(Property::always(
            "R6: a lease after a loss, no node delivers to a session that any node knows as revoked",
            |protocol: &Protocol, state: &State| {
                let seen = state.nodes.iter().any(|peer| peer.node.seen);
                !(seen && past_lease(state.lost_for) && any_delivers(protocol, state))
            },
        )),
    }
    properties.extend(extras::all(protocol));
    properties.extend([
        Property::sometimes("a session is delivered to", any_delivers),
        Property::sometimes(RESUMED, |protocol: &Protocol, state: &State| {
            let again = |node: &Node| node.generation > 1 && node.delivers(&protocol.rules);
            state.nodes.iter().any(|peer| again(&peer.node))
        }),
        Property::sometimes(
            "a revoked session is closed by a push or by reconciliation",
            |_, state: &State| {
                let closed = state.nodes.iter().any(|peer| peer.node.session.revoked);
                state.revoked_for.is_some() && closed
            },
        ),
    ]);
    properties
}

/// True if a node delivers to its session. Always false in searches whose settings change, because
/// in these searches the revocation may not cover the session. They have the properties C1 and C2
/// instead.
fn delivers(node: &Node, protocol: &Protocol) -> bool {
    node.reload.is_none() && node.delivers(&protocol.rules)
}

fn past_lease(age: Option<u8>) -> bool {
    age.is_some_and(|age| age >= LEASE)
}

fn any_delivers(protocol: &Protocol, state: &State) -> bool {
    let mut nodes = state.nodes.iter();
    nodes.any(|peer| peer.node.delivers(&protocol.rules))
}

/// True if a node is synced with the primary and has processed everything that the primary sent.
fn is_up_to_date(peer: &Peer, state: &State) -> bool {
    let node = &peer.node;
    let drained = peer
        .connection
        .as_ref()
        .is_some_and(|connection| state.is_current(connection) && connection.is_drained());
    node.phase == Phase::Synced && drained && !node.get_due
}

/// False if the node is synced with a primary that lacks a revocation known to the node.
fn keeps(peer: &Peer, protocol: &Protocol, state: &State) -> bool {
    let (node, Some(connection)) = (&peer.node, &peer.connection) else {
        return true;
    };
    let knows = match protocol.asked {
        Some(Asked::NeverLose) => node.ever_seen,
        _ => node.seen,
    };
    let bound = node.phase == Phase::Synced
        && knows
        && node.known_primary == Some(connection.primary)
        && state.is_current(connection)
        && !connection.brings_null_push();
    // With `reauth` a floor replaces the lost revocations. I6 limits the time until the floor is
    // raised.
    let excused = protocol.rules.on_data_loss == OnDataLoss::Reauth && state.lost_for.is_some();
    !bound || state.servers[state.current].revokes() || excused
}
