//! Runs every target over its corpus, and over thousands of changed inputs, which are the same in
//! each run. The coverage-guided fuzzers in `guided` have the same targets.

use std::path::Path;

use curfew_fuzz::{TARGETS, Target};
use fastrand::Rng;

/// Number of changed inputs for each target.
const CHANGES: usize = 10_000;

/// Longest input, in bytes.
const MOST_BYTES: usize = 4 * 1024;

/// Limit on the memory that a check may hold at once, in bytes: a fixed part, and a part for each
/// byte of the input.
const MOST_HELD: (u64, u64) = (256 * 1024, 128);

/// Runs a check, and verifies that it holds no more memory than [`MOST_HELD`] allows.
fn bounded(target: &Target, bytes: &[u8]) -> bool {
    let mut accepted = false;
    let used = allocation_counter::measure(|| accepted = (target.check)(bytes));
    let most = MOST_HELD.0 + MOST_HELD.1 * bytes.len() as u64;
    assert!(
        used.bytes_max <= most,
        "the check holds {} bytes for an input of {} bytes",
        used.bytes_max,
        bytes.len()
    );
    accepted
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(name);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("the folder can be listed").path())
        .collect();
    files.sort();
    assert!(
        !files.is_empty(),
        "the corpus {} is empty",
        folder.display()
    );
    files
        .iter()
        .map(|file| std::fs::read(file).expect("the file can be read"))
        .collect()
}

/// Makes one random change: flips, replaces, removes or repeats bytes, or inserts bytes, for
/// example from the input `other`.
fn change(random: &mut Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = random.usize(..=bytes.len());
    match random.u8(..6) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
        1 if at < bytes.len() => bytes[at] = random.u8(..),
        2 => {
            let end = (at + random.usize(..8)).min(bytes.len());
            bytes.drain(at..end);
        }
        3 => {
            let end = (at + random.usize(..16)).min(bytes.len());
            let part = bytes[at..end].to_vec();
            bytes.splice(at..at, part);
        }
        4 if !other.is_empty() => {
            let from = random.usize(..other.len());
            let end = (from + random.usize(..32)).min(other.len());
            bytes.splice(at..at, other[from..end].iter().copied());
        }
        _ => bytes.insert(
            at,
            *random
                .choice(br#"{}[]",:\/0-9.eE=;%~"#)
                .expect("the list of bytes is not empty"),
        ),
    }
    bytes.truncate(MOST_BYTES);
}

#[test]
fn no_reader_is_wrong_about_its_corpus_and_what_is_close_to_it() {
    for target in TARGETS {
        let corpus = corpus(target.name);
        let good = corpus.iter().filter(|bytes| bounded(target, bytes));
        let good: Vec<_> = good.cloned().collect();
        assert!(
            !good.is_empty(),
            "{} accepts nothing of its corpus",
            target.name
        );
        let mut random = Rng::with_seed(7);
        let mut accepted = 0;
        for _ in 0..CHANGES {
            // Half of the changes start from accepted inputs.
            let of = if random.bool() { &good } else { &corpus };
            let mut bytes = random.choice(of).unwrap().clone();
            let other = random.choice(&corpus).unwrap();
            for _ in 0..random.usize(1..6) {
                change(&mut random, &mut bytes, other);
            }
            let shown = String::from_utf8_lossy(&bytes).into_owned();
            let tried = std::panic::catch_unwind(|| bounded(target, &bytes));
            assert!(
                tried.is_ok(),
                "the check of {} panics for {shown:?} {bytes:?}",
                target.name
            );
            accepted += usize::from(tried.is_ok_and(|accepted| accepted));
        }
        assert!(
            accepted > CHANGES / 200,
            "{}: only {accepted} changed inputs are accepted",
            target.name
        );
    }
}

#[test]
fn every_reader_is_fuzzed_with_guidance_as_well() {
    let guided = Path::new(env!("CARGO_MANIFEST_DIR")).join("guided");
    let manifest =
        std::fs::read_to_string(guided.join("Cargo.toml")).expect("the manifest can be read");
    for target in TARGETS {
        let path = format!("targets/{}.rs", target.name);
        let bin = format!("[[bin]]\nname = \"{}\"\npath = \"{path}\"\n", target.name);
        assert!(manifest.contains(&bin), "the manifest does not have {bin}");
        let main = std::fs::read_to_string(guided.join(&path));
        let main = main.unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(main.contains("    curfew_fuzz::"), "{path}: {main}");
    }
    assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
}
