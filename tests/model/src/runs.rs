//! The table of searches, with the expected result of each.

use std::time::{Duration, Instant};

use std::fmt::Debug;
use std::hash::Hash;

use stateright::{Checker, Expectation, HasDiscoveries, Model};

use crate::model::{Asked, Protocol};
use crate::properties::RESUMED;
use crate::streams::Streams;

pub use table::all;

mod extras;
mod liberties;
mod removals;
mod streams;
mod table;

/// One search.
#[derive(Debug, Clone)]
pub struct Run {
    /// The search's short name. It is the number of the removed rule if the search removes one.
    pub id: &'static str,
    /// Title of the search.
    pub title: &'static str,
    /// The search's part of the table.
    pub part: Part,
    /// The searched protocol.
    pub searched: Searched,
    /// The expected result.
    pub expect: Expect,
}

/// A model within its bounds.
#[derive(Debug, Clone)]
pub enum Searched {
    /// The revocation protocol.
    Protocol(Protocol),
    /// A channel with a stream.
    Streams(Streams),
}

/// A part of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The protocol as specified, `on_data_loss = "reauth"`.
    Reauth,
    /// The protocol as specified, `on_data_loss = "reassert"`.
    Reassert,
    /// The protocol as specified, with additional state.
    Extras,
    /// One rule removed at a time.
    Removals,
    /// Single rules whose removal breaks no invariant.
    Redundant,
    /// The liberties V1 to V7, all at once.
    Allowed,
    /// Single liberties, including some that a node may not take.
    Liberties,
    /// Properties that the protocol does not promise. The search finds the steps that violate them.
    NotPromised,
    /// Streams as specified.
    Streams,
    /// Streams as specified, with more events.
    StreamsInDepth,
    /// One check of streams removed at a time.
    StreamRemovals,
    /// Checks of streams that no invariant needs.
    StreamsRedundant,
}

/// Expected result of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Every invariant holds, and every state that must be reachable is reached.
    Holds,
    /// Every invariant holds, but no node connects often enough to deliver again after a reconnect.
    HoldsWithoutResuming,
    /// An invariant is violated.
    Breaks,
    /// At least one of these invariants is violated, and no other invariant.
    BreaksOnly(&'static [&'static str]),
}

/// Depth of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// All states within the bounds.
    All,
    /// The states until the first violation.
    FirstViolation,
    /// All states, and then for each violated invariant the fewest steps that lead to a violation.
    Shortest,
}

/// Findings of a search.
#[derive(Debug)]
pub struct Findings {
    /// Number of distinct states.
    pub states: usize,
    /// Duration of the search.
    pub elapsed: Duration,
    /// The violated invariants, each with the steps that lead to the violation.
    pub violations: Vec<(&'static str, Vec<String>)>,
    /// The properties that must hold in at least one state but hold in none.
    pub unreached: Vec<&'static str>,
    /// True if the findings are as expected.
    pub as_expected: bool,
}

impl Part {
    /// The heading of the part.
    pub fn heading(self) -> &'static str {
        match self {
            Self::Reauth => "the protocol as specified, on_data_loss = \"reauth\"",
            Self::Reassert => "the protocol as specified, on_data_loss = \"reassert\"",
            Self::Extras => {
                "the protocol as specified: what is on its way, stalls, reload, two spellings"
            }
            Self::Removals => "one rule removed at a time: each must break an invariant",
            Self::Redundant => "rules that are redundant, and kept as assertions",
            Self::Allowed => "the liberties V1 to V7 at once (V3 as V3a)",
            Self::Liberties => "liberties one by one: may a node do this?",
            Self::NotPromised => "not promised: each must break, or more can be promised",
            Self::Streams => "streams as specified",
            Self::StreamsInDepth => "streams as specified, with more that can happen",
            Self::StreamRemovals => {
                "streams: one check removed at a time, each must break a promise"
            }
            Self::StreamsRedundant => "streams: checks that no promise needs",
        }
    }
}

impl Run {
    /// True if CI runs the search: it has one node and takes only seconds, and its part is neither
    /// `Liberties` nor `NotPromised`.
    pub fn is_in_ci(&self) -> bool {
        let about_others = matches!(self.part, Part::Liberties | Part::NotPromised);
        let takes_long = self.part == Part::StreamsInDepth;
        let nodes = match &self.searched {
            Searched::Protocol(protocol) => protocol.bounds.nodes,
            Searched::Streams(_) => 1,
        };
        nodes == 1 && !about_others && !takes_long
    }

    /// Adds a property beyond the invariants of the revocation protocol.
    fn ask(&mut self, asked: Asked) {
        if let Searched::Protocol(protocol) = &mut self.searched {
            protocol.asked = Some(asked);
        }
    }

    /// Runs the search. A search of the revocation protocol uses `threads` threads.
    pub fn search(&self, threads: usize, depth: Depth) -> Findings {
        match &self.searched {
            Searched::Protocol(protocol) => self.search_in(protocol, threads, depth),
            // Searches of streams are small, and one thread finds the shortest path.
            Searched::Streams(streams) => self.search_in(streams, 1, depth),
        }
    }

    fn search_in<M>(&self, model: &M, threads: usize, depth: Depth) -> Findings
    where
        M: Model + Clone + Send + Sync + 'static,
        M::State: Hash + Clone + Debug + PartialEq + Send + Sync,
        M::Action: Clone + Debug + PartialEq + Send + Sync,
    {
        let started = Instant::now();
        let mut checker = model.clone().checker().threads(threads);
        if depth == Depth::FirstViolation {
            checker = checker.finish_when(HasDiscoveries::AnyFailures);
        }
        let checker = checker.spawn_bfs().join();
        let mut discoveries = checker.discoveries();
        let (mut violations, mut unreached) = (Vec::new(), Vec::new());
        for property in model.properties() {
            let found = discoveries.remove(property.name);
            match (property.expectation, found) {
                (Expectation::Always, Some(path)) => {
                    let steps = path.into_actions();
                    let steps = match depth {
                        Depth::Shortest => shortest(model, threads, property.name, steps),
                        Depth::All | Depth::FirstViolation => steps,
                    };
                    let steps = steps.iter().map(|step| format!("{step:?}")).collect();
                    violations.push((property.name, steps));
                }
                (Expectation::Sometimes, None) => unreached.push(property.name),
                _ => {}
            }
        }
        if self.expect == Expect::HoldsWithoutResuming {
            unreached.retain(|name| *name != RESUMED);
        }
        let as_expected = match self.expect {
            Expect::Breaks => !violations.is_empty(),
            Expect::BreaksOnly(expected) => {
                let number = |name: &'static str| name.split(':').next().unwrap_or(name);
                let numbers = violations.iter().map(|(name, _)| number(name));
                !violations.is_empty() && numbers.into_iter().all(|name| expected.contains(&name))
            }
            Expect::Holds | Expect::HoldsWithoutResuming => {
                violations.is_empty() && unreached.is_empty()
            }
        };
        Findings {
            states: checker.unique_state_count(),
            elapsed: started.elapsed(),
            violations,
            unreached,
            as_expected,
        }
    }
}

/// The fewest steps to a state in which `property` does not hold. `steps` leads to such a state,
/// but need not be the shortest path: the checker stores the path that it found last.
fn shortest<M>(
    model: &M,
    threads: usize,
    property: &'static str,
    mut steps: Vec<M::Action>,
) -> Vec<M::Action>
where
    M: Model + Clone + Send + Sync + 'static,
    M::State: Hash + Clone + Debug + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    let mut too_few = 0;
    while too_few + 1 < steps.len() {
        let most = too_few.midpoint(steps.len());
        // `target_max_depth` counts states, which are one more than the steps, and the checker
        // stops before the last state.
        let checker = model.clone().checker().threads(threads);
        let checker = checker.target_max_depth(most + 2).spawn_bfs().join();
        match checker.discoveries().remove(property) {
            Some(path) => steps = path.into_actions(),
            None => too_few = most,
        }
    }
    steps
}
