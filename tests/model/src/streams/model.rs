//! Streams in the form that stateright searches.

use stateright::{Model, Property};

use super::actions::{self, StreamAction};
use super::properties;
use super::rules::StreamRules;
use super::state::{StreamBounds, StreamState};

/// The rules of a node for a stream, and the bounds of the searched state space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Streams {
    /// The rules of the node.
    pub rules: StreamRules,
    /// The bounds of the search, with the possible events.
    pub bounds: StreamBounds,
}

impl Model for Streams {
    type State = StreamState;
    type Action = StreamAction;

    fn init_states(&self) -> Vec<StreamState> {
        vec![StreamState::initial(&self.bounds)]
    }

    fn actions(&self, state: &StreamState, actions: &mut Vec<StreamAction>) {
        actions::enabled(state, &self.bounds, &self.rules, actions);
    }

    fn next_state(&self, state: &StreamState, action: StreamAction) -> Option<StreamState> {
        actions::apply(state, action, &self.bounds, &self.rules)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(self)
    }
}
