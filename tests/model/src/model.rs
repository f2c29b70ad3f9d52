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
    /// Bounds of the events around them.
    pub bounds: Bounds,
    /// A property to check beside the invariants.
    pub asked: Option<Asked>,
}

/// Properties beyond the invariants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// A node obeys revocations that only other nodes know.
    HeedOthers,
    /// A node never delivers to a session that it has seen revoked, even while messages about a
    /// loss are on their way to it.
    NeverForget,
    /// Every revocation a node has ever seen is on the primary it is synced with.
    NeverLose,
    /// Nothing of a session takes effect once a receipt has reported that the session is closed.
    NothingAfterReceipt,
}

impl Protocol {
    /// True if the revocation may be lifted; then a node's knowledge may be outdated.
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
