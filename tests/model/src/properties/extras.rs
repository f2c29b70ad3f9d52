//! The properties of searches with additional state.

use stateright::Property;

use super::{any_delivers, is_up_to_date, past_lease};
use crate::model::Protocol;
use crate::node::Node;
use crate::outgoing::{Kind, Place};
use crate::reload::{Progress, Reload};
use crate::session::Stage;
use crate::state::{Peer, State};

/// Every property of the additional state that `protocol` has.
pub(super) fn all(protocol: &Protocol) -> Vec<Property<Protocol>> {
    let mut properties = of_what_is_on_its_way(protocol);
    properties.extend(of_stalls(protocol));
    properties.extend(of_reload(protocol));
    properties.extend(of_spellings(protocol));
    properties
}

fn of_what_is_on_its_way(protocol: &Protocol) -> Vec<Property<Protocol>> {
    let timely = protocol.bounds.extras.timely;
    match protocol.bounds.extras.outgoing {
        None => Vec::new(),
        // W1 and E1 do not apply to a search with a reload, because by the old settings the
        // revocation does not cover the session.
        Some(_) if protocol.bounds.extras.reload => Vec::new(),
        Some(Kind::Frame) if timely => vec![
            Property::always(
                "T2: while the network is in time, no frame is written a tick after the revocation",
                |_, state: &State| !state.took_effect_late,
            ),
            Property::sometimes("a frame is written after a stall", |_, state: &State| {
                state.happened.stalls > 0 && is_at(state, Place::Done)
            }),
        ],
        Some(Kind::Frame) => vec![
            Property::always(
                "W1: no frame is written later than a lease after the revocation",
                |_, state: &State| !state.took_effect_late,
            ),
            Property::sometimes("a frame is written", |_, state: &State| {
                is_at(state, Place::Done)
            }),
        ],
        Some(Kind::Publication) => vec![
            Property::always(
                "E1: no publication takes effect later than a lease after the revocation",
                |_, state: &State| !state.took_effect_late,
            ),
            Property::always(
                "U1: no publication takes effect that was reported as failed",
                |_, state: &State| !state.took_effect_after_all,
            ),
            Property::sometimes("a publication takes effect", |_, state: &State| {
                is_at(state, Place::Done)
            }),
            Property::sometimes("Redis refuses a late publication", |_, state: &State| {
                is_at(state, Place::Refused)
            }),
        ],
    }
}

fn of_stalls(protocol: &Protocol) -> Vec<Property<Protocol>> {
    if !protocol.bounds.extras.timely {
        return Vec::new();
    }
    vec![
        Property::always(
            "T1: while the network is in time, nothing is delivered a tick after the revocation",
            |protocol: &Protocol, state: &State| {
                state.revoked_for.is_none_or(|age| age == 0) || !any_delivers(protocol, state)
            },
        ),
        Property::sometimes(
            "a node that was stopped delivers again",
            |protocol: &Protocol, state: &State| {
                state.happened.stalls > 0 && any_delivers(protocol, state)
            },
        ),
    ]
}

fn of_reload(protocol: &Protocol) -> Vec<Property<Protocol>> {
    if !protocol.bounds.extras.reload {
        return Vec::new();
    }
    vec![
        Property::always(
            "C1: a node that has confirmed a revocation has no revoked session open",
            |_, state: &State| {
                let is_wrong = |node: &Node| {
                    let confirmed = |reload: Reload| reload.confirmed && reload.names();
                    node.reload.is_some_and(confirmed) && node.session.is_open()
                };
                let mut nodes = state.nodes.iter();
                state.revoked_for.is_none() || !nodes.any(|peer| is_wrong(&peer.node))
            },
        ),
        Property::always(
            "C2: I1 and I1' hold by the new settings once the reload counts as successful",
            |protocol: &Protocol, state: &State| {
                let is_wrong = |peer: &Peer| {
                    let late = past_lease(state.revoked_for) || is_up_to_date(peer, state);
                    is_done(&peer.node) && late && peer.node.delivers(&protocol.rules)
                };
                state.revoked_for.is_none() || !state.nodes.iter().any(is_wrong)
            },
        ),
        Property::sometimes(
            "a session is delivered to after a reload",
            |protocol: &Protocol, state: &State| {
                let serves = |node: &Node| is_done(node) && node.delivers(&protocol.rules);
                state.nodes.iter().any(|peer| serves(&peer.node))
            },
        ),
        Property::sometimes("a node confirms a revocation", |_, state: &State| {
            let confirmed = |reload: Reload| reload.confirmed;
            let mut nodes = state.nodes.iter();
            nodes.any(|peer| peer.node.reload.is_some_and(confirmed))
        }),
    ]
}

fn of_spellings(protocol: &Protocol) -> Vec<Property<Protocol>> {
    if protocol.bounds.events.respellings == 0 {
        return Vec::new();
    }
    vec![
        Property::always(
            "N1: while the key exists in either spelling, a synced node with nothing left to read \
             has no session open",
            |protocol: &Protocol, state: &State| {
                let is_wrong =
                    |peer: &Peer| is_up_to_date(peer, state) && peer.node.delivers(&protocol.rules);
                let there = state.servers[state.current].has_key();
                !there || !state.nodes.iter().any(is_wrong)
            },
        ),
        Property::sometimes(
            "a session is admitted after both spellings were deleted",
            |_, state: &State| {
                let admitted = |peer: &Peer| peer.node.session.stage == Stage::Active;
                let lifted = !state.servers[state.current].has_key() && state.happened.lifts > 1;
                lifted && state.nodes.iter().any(admitted)
            },
        ),
    ]
}

fn is_at(state: &State, place: Place) -> bool {
    let mut outgoing = state.nodes.iter().filter_map(|peer| peer.outgoing.as_ref());
    outgoing.any(|outgoing| outgoing.place == place)
}

/// True if the node's reload counts as successful.
fn is_done(node: &Node) -> bool {
    let is_done = |reload: Reload| reload.progress == Progress::Compared;
    node.reload.is_some_and(is_done)
}

/// True if the node has confirmed to a receipt that its session is closed, and a publication of the
/// session is in flight to Redis before its deadline.
pub(super) fn may_publish_after_receipt(peer: &Peer) -> bool {
    let confirmed = peer.node.reload.is_some_and(|reload| reload.confirmed);
    let place = peer.outgoing.as_ref().map(|outgoing| outgoing.place);
    confirmed && matches!(place, Some(Place::Sent { deadline: 1.., .. }))
}
