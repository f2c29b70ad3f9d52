//! The protocol in the form that stateright searches.

use stateright::{Model, Property};

use crate::actions::{self, Action};
use crate::properties;
use crate::rules::Rules;
use crate::state::{Bounds, State};

/// A protocol and the part of its state space that is searched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protocol {
    /// Rules of the nodes.
    pub rules: Rules,
    /// Bounds of the events around the nodes.
    pub bounds: Bounds,
    /// A property that is checked in addition to the invariants.
    pub asked: Option<Asked>,
}

/// Properties that a search can check in addition to the invariants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Later than a lease after a loss of data, no node delivers to a session that any node has
    /// seen revoked.
    HeedOthers,
    /// A node never delivers to a session that it has seen revoked, even while messages about a
    /// loss are on their way to the node.
    NeverForget,
    /// Every revocation that a node has ever seen is on the primary with which it is synced.
    NeverLose,
    /// Once a receipt has reported that a session is closed, none of the session's publications
    /// takes effect.
    NothingAfterReceipt,
}

impl Protocol {
    /// True if the revocation may be lifted. A node's knowledge of the revocation may then be
    /// outdated.
    pub(crate) fn lifts(&self) -> bool {
        self.bounds.events.lifts > 0
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::initial(&self.bounds)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions::enabled(state, &self.bounds, &self.rules, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        actions::apply(state, action, &self.bounds, &self.rules)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(self)
    }
}
