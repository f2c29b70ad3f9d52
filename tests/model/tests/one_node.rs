//! The searches that take only seconds. Each search must have the result that `Run::expect` states.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use curfew_model_check::runs::{self, Depth, Expect, Part, Run};

/// Runs the searches of CI in these parts. Each core runs one search at a time.
fn search(parts: &[Part]) {
    let chosen = |run: &Run| run.is_in_ci() && parts.contains(&run.part);
    let runs: Vec<Run> = runs::all().into_iter().filter(chosen).collect();
    assert!(!runs.is_empty());
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(run) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
            check(run);
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, Into::into) {
            scope.spawn(work);
        }
    });
}

fn check(run: &Run) {
    let depth = match run.expect {
        Expect::Breaks | Expect::BreaksOnly(_) => Depth::FirstViolation,
        Expect::Holds | Expect::HoldsWithoutResuming => Depth::All,
    };
    let findings = run.search(1, depth);
    assert!(
        findings.as_expected,
        "{} ({}): expected {:?}, found {findings:#?}",
        run.id, run.title, run.expect
    );
}

#[test]
fn the_protocol_keeps_its_invariants() {
    search(&[Part::Reauth, Part::Reassert, Part::Extras]);
}

#[test]
fn without_any_one_rule_it_does_not() {
    search(&[Part::Removals]);
}

#[test]
fn it_does_without_redundant_rules_and_with_liberties() {
    search(&[Part::Redundant, Part::Allowed]);
}

#[test]
fn streams_keep_their_promises() {
    search(&[Part::Streams, Part::StreamsRedundant]);
}

#[test]
fn without_any_one_check_they_do_not() {
    search(&[Part::StreamRemovals]);
}

#[test]
fn every_run_has_a_name_of_its_own() {
    let mut ids: Vec<&str> = runs::all().iter().map(|run| run.id).collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count);
}
