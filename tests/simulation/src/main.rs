//! `simulate`: runs seeds, and prints the seeds whose runs broke a promise.

use std::collections::VecDeque;
use std::env::args;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use curfew_simulation::machine::{Child, run_apart};
use curfew_simulation::plan::Plan;
use curfew_simulation::run::{Outcome, run};

/// Time after which a run counts as hanging.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let words: Vec<String> = args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["seeds", from, count] => seeds(number(from), number(count), false),
        ["find", from, count] => seeds(number(from), number(count), true),
        ["replay", seed] => replay(number(seed), &[]),
        ["replay", seed, ref without @ ..] => {
            let without: Vec<usize> = without.iter().map(|at| number(at) as usize).collect();
            replay(number(seed), &without)
        }
        ["shrink", seed] => shrink(number(seed)),
        _ => {
            eprintln!(
                "simulate seeds FROM COUNT | find FROM COUNT | replay SEED [WITHOUT ...] | shrink SEED"
            );
            ExitCode::from(2)
        }
    }
}

fn number(text: &str) -> u64 {
    text.parse()
        .unwrap_or_else(|_| panic!("{text:?} is not a number"))
}

/// Runs seeds, each in its own process, with two processes for each core. With `find`, stops at the
/// first seed whose run breaks a promise.
fn seeds(from: u64, count: u64, find: bool) -> ExitCode {
    let began = Instant::now();
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    let mut running: VecDeque<(u64, Child)> = VecDeque::new();
    let (mut broken, mut frames, mut publications) = (Vec::new(), 0, 0);
    let mut next = from;
    while next < from + count || !running.is_empty() {
        if next < from + count && running.len() < jobs * 2 {
            running.push_back((next, begin(Plan::of(next))));
            next += 1;
            continue;
        }
        let Some((seed, child)) = running.pop_front() else {
            break;
        };
        let told = end(child);
        frames += told.frames;
        publications += told.publications;
        if !told.violations.is_empty() {
            println!("seed {seed}: {}", told.violations[0]);
            broken.push(seed);
            if find {
                break;
            }
        }
    }
    println!(
        "{} seeds in {:.1?}: {} broke a promise, {frames} writes, {publications} publications {:?}",
        next - from,
        began.elapsed(),
        broken.len(),
        &broken[..broken.len().min(20)]
    );
    match broken.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// The result of a run.
#[derive(Debug, Default)]
struct RunSummary {
    violations: Vec<String>,
    digest: String,
    frames: usize,
    publications: usize,
}

fn begin(plan: Plan) -> Child {
    run_apart(move || apart(&plan)).expect("this process can fork")
}

/// Runs a plan on a new thread, so that its hash tables get new seeds.
fn apart(plan: &Plan) -> Vec<u8> {
    let outcome = thread::scope(|scope| scope.spawn(|| run(plan)).join());
    let Ok(Outcome {
        violations,
        digest,
        frames,
        publications,
        ..
    }) = outcome
    else {
        return b"0 0 0\nthe run panicked".to_vec();
    };
    let mut told = format!("{digest:016x} {frames} {publications}");
    for violation in violations {
        told += &format!("\n{violation}");
    }
    told.into_bytes()
}

fn end(child: Child) -> RunSummary {
    let Ok(Some(result)) = child.result(PATIENCE) else {
        return RunSummary {
            violations: vec!["the run gave no result in time".to_owned()],
            ..RunSummary::default()
        };
    };
    let text = String::from_utf8_lossy(&result).into_owned();
    let mut lines = text.lines();
    let mut head = lines.next().unwrap_or_default().split(' ');
    let digest = head.next().unwrap_or_default().to_owned();
    let mut count = || {
        head.next()
            .and_then(|word| word.parse().ok())
            .unwrap_or_default()
    };
    RunSummary {
        digest,
        frames: count(),
        publications: count(),
        violations: lines.map(str::to_owned).collect(),
    }
}

/// Runs the plan of a seed without the acts in `without`. Prints the plan, the story and the
/// violations.
fn replay(seed: u64, without: &[usize]) -> ExitCode {
    let plan = without_acts(Plan::of(seed), without);
    println!("{plan}");
    let twice = [begin(plan.clone()), begin(plan.clone())].map(|child| end(child).digest);
    println!("digests {twice:?}");
    if std::env::var_os("LOG").is_some() {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .init();
    }
    let outcome = thread::scope(|scope| scope.spawn(|| run(&plan)).join())
        .expect("the run has not panicked before");
    for (at, what) in &outcome.story {
        println!("{at:>12.3?} {what}");
    }
    for violation in &outcome.violations {
        println!("{violation}");
    }
    match outcome.violations.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn without_acts(mut plan: Plan, without: &[usize]) -> Plan {
    let mut at = 0;
    plan.acts.retain(|_| {
        at += 1;
        !without.contains(&(at - 1))
    });
    plan.settle();
    plan
}

/// Prints the seed's plan without the acts that are not needed to break a promise.
fn shrink(seed: u64) -> ExitCode {
    let whole = Plan::of(seed);
    let broken = |without: &[usize]| {
        let told = end(begin(without_acts(whole.clone(), without)));
        !told.violations.is_empty()
    };
    if !broken(&[]) {
        println!("seed {seed} breaks no promise");
        return ExitCode::SUCCESS;
    }
    let mut without = Vec::new();
    loop {
        let before = without.len();
        for act in 0..whole.acts.len() {
            if without.contains(&act) {
                continue;
            }
            without.push(act);
            if !broken(&without) {
                without.pop();
            }
        }
        if without.len() == before {
            break;
        }
    }
    let words: Vec<String> = without.iter().map(ToString::to_string).collect();
    println!("simulate replay {seed} {}", words.join(" "));
    replay(seed, &without)
}
