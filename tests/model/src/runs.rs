//! The table of searches, with what each is expected to find.

use std::time::{Duration, Instant};

use stateright::{Checker, Expectation, HasDiscoveries, Model};

use crate::actions::Action;
use crate::model::Protocol;
use crate::properties::RESUMED;

pub use table::all;

mod extras;
mod liberties;
mod removals;
mod table;

/// One search.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its short name: the rule's number, where it removes one.
    pub id: &'static str,
    /// Title of the search.
    pub title: &'static str,
    /// Its part of the table.
    pub part: Part,
    /// The protocol that is searched.
    pub protocol: Protocol,
    /// The expected result.
    pub expect: Expect,
}

/// A part of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The protocol as specified, `on_data_loss = "reauth"`.
    Reauth,
    /// The protocol as specified, `on_data_loss = "reassert"`.
    Reassert,
    /// The protocol as specified, with what only some searches have in their state.
    Extras,
    /// One rule removed at a time.
    Removals,
    /// Rules that could be left out.
    Redundant,
    /// The liberties V1 to V7, all at once.
    Allowed,
    /// Liberties one by one, those included that a node might like to take.
    Liberties,
    /// A property that is not promised, with the reason.
    NotPromised,
}

/// Expected result of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Every invariant holds, and everything that should be possible is.
    Holds,
    /// Holds, but no node connects often enough to deliver again.
    HoldsWithoutResuming,
    /// An invariant is violated.
    Breaks,
    /// Some of these invariants are violated, and no others.
    BreaksOnly(&'static [&'static str]),
}

/// Depth of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// All states within the bounds.
    All,
    /// Until the first violation.
    FirstViolation,
}

/// Findings of a search.
#[derive(Debug)]
pub struct Findings {
    /// Different states.
    pub states: usize,
    /// Time it took.
    pub elapsed: Duration,
    /// Invariants that do not hold, each with the steps that lead there.
    pub violations: Vec<(&'static str, Vec<Action>)>,
    /// Events that should be possible, and are not.
    pub unreached: Vec<&'static str>,
    /// True if the findings are as expected.
    pub as_expected: bool,
}

impl Part {
    /// Its heading.
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
        }
    }
}

impl Run {
    /// True if CI does it: it takes seconds, and says something about the protocol as it is.
    pub fn is_in_ci(&self) -> bool {
        let about_others = matches!(self.part, Part::Liberties | Part::NotPromised);
        self.protocol.bounds.nodes == 1 && !about_others
    }

    /// Searches with this many threads.
    pub fn search(&self, threads: usize, depth: Depth) -> Findings {
        let started = Instant::now();
        let mut checker = self.protocol.clone().checker().threads(threads);
        if depth == Depth::FirstViolation {
            checker = checker.finish_when(HasDiscoveries::AnyFailures);
        }
        let checker = checker.spawn_bfs().join();
        let mut discoveries = checker.discoveries();
        let (mut violations, mut unreached) = (Vec::new(), Vec::new());
        for property in self.protocol.properties() {
            let found = discoveries.remove(property.name);
            match (property.expectation, found) {
                (Expectation::Always, Some(path)) => {
                    violations.push((property.name, path.into_actions()));
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
