//! The cost of a message, in instructions and allocations. These figures do not depend on the speed
//! of a machine. They are compared with a baseline in the repository.
//!
//! `curfew-gate check FILE` fails if a figure has grown; `curfew-gate bless FILE` writes the file.
//! Either command runs each case twice under `valgrind --tool=callgrind`, the second time with more
//! rounds. The difference between the two runs is the cost of the additional rounds. It does not
//! include the start of the process.

mod cases;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

/// Number of rounds in the first and in the second run.
const ROUNDS: [u64; 2] = [50, 550];

/// Largest increase over the baseline that does not count as growth, as a share. The figures differ
/// by less than this share between processors, and between builds by the same version of the
/// compiler.
const TOLERANCE: f64 = 0.05;

/// Smallest decrease below the baseline that justifies a new baseline, as a share.
const GAIN: f64 = 0.10;

/// The cost of one round of a case.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Cost {
    instructions: f64,
    allocations: f64,
}

type Costs = BTreeMap<String, Cost>;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["check", file] => check(Path::new(file)),
        ["bless", file] => {
            let costs = measure()?;
            let text = serde_json::to_string_pretty(&costs)? + "\n";
            std::fs::write(file, text).with_context(|| format!("write {file}"))?;
            print(&costs, &costs);
            Ok(())
        }
        ["run", case, rounds] => {
            println!("{}", cases::run(case, rounds.parse()?)?);
            Ok(())
        }
        _ => bail!("curfew-gate check FILE | bless FILE"),
    }
}

fn check(file: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let baseline: Costs = serde_json::from_str(&text)?;
    let costs = measure()?;
    print(&costs, &baseline);
    let names = |costs: &Costs| costs.keys().cloned().collect::<Vec<_>>();
    if names(&costs) != names(&baseline) {
        bail!("the baseline has other cases: write it anew with bless");
    }
    let mut grown = Vec::new();
    for (case, cost) in &costs {
        let before = baseline[case];
        if cost.instructions > before.instructions * (1.0 + TOLERANCE) {
            grown.push(format!("{case}: instructions"));
        }
        // A small fraction of an allocation per round is ignored: it comes from a buffer that grows
        // now and then.
        if cost.allocations > before.allocations + 0.05 {
            grown.push(format!("{case}: allocations"));
        }
        if cost.instructions < before.instructions * (1.0 - GAIN) {
            println!("{case} has become cheaper: write the baseline anew with bless");
        }
    }
    if !grown.is_empty() {
        bail!(
            "the cost of a message has grown: {}. If this is intended, write the baseline anew with bless, and say why",
            grown.join(", ")
        );
    }
    Ok(())
}

fn measure() -> anyhow::Result<Costs> {
    let mut costs = Costs::new();
    for &case in cases::names() {
        let [few, many] = ROUNDS.map(|rounds| counted(case, rounds));
        let (few, many) = (few?, many?);
        let rounds = (ROUNDS[1] - ROUNDS[0]) as f64;
        let per_round = |few: u64, many: u64| many.saturating_sub(few) as f64 / rounds;
        let cost = Cost {
            instructions: per_round(few.0, many.0).round(),
            allocations: (per_round(few.1, many.1) * 100.0).round() / 100.0,
        };
        costs.insert(case.to_owned(), cost);
    }
    Ok(costs)
}

/// Runs a case. Returns the instructions of the whole run, and the allocations of its rounds.
fn counted(case: &str, rounds: u64) -> anyhow::Result<(u64, u64)> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["run", case, &rounds.to_string()])
        .output()
        .context("valgrind is needed")?;
    let told = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{case} failed: {told}");
    }
    let collected = told
        .lines()
        .find_map(|line| line.split_once("Collected : "))
        .context("callgrind printed no number of instructions")?;
    let allocations = String::from_utf8_lossy(&output.stdout);
    Ok((collected.1.trim().parse()?, allocations.trim().parse()?))
}

fn print(costs: &Costs, baseline: &Costs) {
    println!(
        "{:24} {:>12} {:>12} {:>12} {:>12}",
        "case", "instructions", "baseline", "allocations", "baseline"
    );
    for (case, cost) in costs {
        let before = |figure: fn(&Cost) -> f64| {
            baseline
                .get(case)
                .map_or("-".to_owned(), |cost| figure(cost).to_string())
        };
        println!(
            "{case:24} {:>12} {:>12} {:>12} {:>12}",
            cost.instructions,
            before(|cost| cost.instructions),
            cost.allocations,
            before(|cost| cost.allocations),
        );
    }
}
