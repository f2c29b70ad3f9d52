//! `protocol-model`: searches the model and prints the findings.
//!
//! Without arguments it runs the searches of CI. With `--all` it runs all searches, and with ids
//! (`M14 S6`) only the searches with these ids. `--trace` prints the steps to each violation. Exits
//! with 1 if a search does not end as expected, or if no search has one of the ids.

use std::env;
use std::process::ExitCode;
use std::thread;

use curfew_model_check::runs::{self, Depth, Findings, Run, Searched};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let flag = |name: &str| arguments.iter().any(|argument| argument == name);
    let (all, trace) = (flag("--all"), flag("--trace"));
    let ids: Vec<&String> = arguments
        .iter()
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let chosen = |run: &Run| match ids.is_empty() {
        true => all || run.is_in_ci(),
        false => ids.iter().any(|id| *id == run.id),
    };
    let all_runs = runs::all();
    if let Some(id) = ids
        .iter()
        .find(|id| !all_runs.iter().any(|run| run.id == **id))
    {
        eprintln!("no search has the id {id}");
        return ExitCode::FAILURE;
    }
    let runs: Vec<Run> = all_runs.into_iter().filter(chosen).collect();
    if search(&runs, trace) {
        println!("all searches ended as expected");
        ExitCode::SUCCESS
    } else {
        println!("NOT all searches ended as expected");
        ExitCode::FAILURE
    }
}

/// True if every search ended as expected.
fn search(runs: &[Run], trace: bool) -> bool {
    let threads = thread::available_parallelism().map_or(1, Into::into);
    let (mut part, mut as_expected) = (None, true);
    for run in runs {
        if part != Some(run.part) {
            println!("-- {}", run.part.heading());
            part = Some(run.part);
        }
        // Searches of streams are so small that they always look for the shortest violation.
        let depth = match (trace, &run.searched) {
            (false, Searched::Protocol(_)) => Depth::All,
            _ => Depth::Shortest,
        };
        let findings = run.search(threads, depth);
        as_expected &= findings.as_expected;
        print(run, &findings, trace);
    }
    as_expected
}

fn print(run: &Run, findings: &Findings, trace: bool) {
    println!(
        "{:4} {:5} {:62} {:>8} states {:>6.1} s  {}",
        if findings.as_expected { "ok" } else { "FAIL" },
        run.id,
        run.title,
        findings.states,
        findings.elapsed.as_secs_f32(),
        verdict(findings),
    );
    for name in &findings.unreached {
        println!("     never reached: {name}");
    }
    for (name, steps) in &findings.violations {
        if trace {
            println!("     {name}");
            steps.iter().for_each(|step| println!("       {step}"));
        }
    }
}

fn verdict(findings: &Findings) -> String {
    if findings.violations.is_empty() {
        return "all invariants hold".into();
    }
    let violation = |(name, steps): &(&str, Vec<_>)| {
        let number = name.split(':').next().unwrap_or(name);
        format!("violates {number} in {} steps", steps.len())
    };
    let violations: Vec<String> = findings.violations.iter().map(violation).collect();
    violations.join(", ")
}
