//! The patches that take a rule out of the code, compared with the code.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::markdown::{Page, quoted, repository};

const FOLDER: &str = "tests/simulation/mutants";

fn patches() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(repository(FOLDER))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "patch")
        })
        .collect();
    found.sort();
    assert!(found.len() > 40, "{} patches", found.len());
    found
}

/// A change of the code that a patch does not follow leaves its rule without a proof that the
/// simulator notices its absence.
#[test]
fn every_mutant_applies_to_the_code() {
    let refused: Vec<String> = patches()
        .iter()
        .filter_map(|patch| {
            let check = Command::new("git")
                .args(["apply", "--check"])
                .arg(patch)
                .current_dir(repository(""))
                .output()
                .expect("git runs");
            let why = String::from_utf8_lossy(&check.stderr).into_owned();
            (!check.status.success()).then_some(why)
        })
        .collect();
    assert!(refused.is_empty(), "{}", refused.concat());
}

#[test]
fn every_mutant_is_listed() {
    let page = Page::read("tests/simulation/mutants/README.md");
    let listed = quoted(page.text());
    for patch in patches() {
        let name = patch.file_stem().unwrap().to_str().unwrap();
        assert!(listed.contains(&name), "{name} is not on the page");
    }
}
