//! The mutants, compared with the code. A mutant is a patch that removes a rule from the code.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::files::sources;
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
    assert!(found.len() > 40, "only {} patches were found", found.len());
    found
}

/// A patch that does not apply cannot show that the simulator notices when its rule is missing.
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

/// A patch may name the test that detects it. Its line `Test: ` has arguments of `cargo test`, and
/// the last argument is the test's name.
#[test]
fn every_test_that_a_mutant_names_is_there() {
    let (mut named, sources) = (0, sources());
    for patch in patches() {
        let text = fs::read_to_string(&patch).unwrap();
        let Some(test) = text.lines().find_map(|line| line.strip_prefix("Test: ")) else {
            continue;
        };
        named += 1;
        let words: Vec<&str> = test.split(' ').collect();
        let ["-p", package, .., test] = words[..] else {
            panic!("{}: {test}", patch.display());
        };
        let folder = match package {
            "curfew-tests" => "tests/it/".to_owned(),
            _ => format!("crates/{package}/"),
        };
        let name = test.rsplit("::").next().unwrap();
        let wanted = format!("fn {name}(");
        let is_there = sources.iter().any(|(name, path)| {
            name.starts_with(&folder) && fs::read_to_string(path).unwrap().contains(&wanted)
        });
        assert!(is_there, "{}: {folder} has no test {name}", patch.display());
    }
    assert!(named > 15, "only {named} patches name a test");
}
