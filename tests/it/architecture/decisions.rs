//! The records in `crates/decisions`: their form, their index and the files that they name.

use std::fs;

use super::markdown::{quoted, repository};

/// The sections of a record, in order.
const SECTIONS: [&str; 4] = ["Context", "Decision", "Reason", "Revisit if"];

/// Name and text of each record, in order.
fn records() -> Vec<(String, String)> {
    let folder = repository("crates/decisions");
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name != "README.md" {
            found.push((name, fs::read_to_string(path).unwrap()));
        }
    }
    found.sort();
    assert!(found.len() > 50, "only {} records were found", found.len());
    found
}

fn title(text: &str) -> &str {
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("# ").unwrap_or_default()
}

#[test]
fn every_decision_has_a_date_a_reason_and_a_condition() {
    for (name, text) in records() {
        assert!(!title(&text).is_empty(), "{name}: title");
        let date = text
            .lines()
            .nth(2)
            .and_then(|line| line.strip_prefix("Date: "));
        let date: Vec<&str> = date.unwrap_or_default().split('-').collect();
        let lengths: Vec<usize> = date.iter().map(|part| part.len()).collect();
        let digits = date
            .iter()
            .all(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
        assert!(lengths == [4, 2, 2] && digits, "{name}: date {date:?}");
        let sections: Vec<(&str, &str)> = text
            .split("\n## ")
            .skip(1)
            .map(|section| section.split_once('\n').unwrap_or((section, "")))
            .collect();
        let titles: Vec<&str> = sections.iter().map(|(title, _)| *title).collect();
        assert_eq!(titles, SECTIONS, "{name}");
        for (title, words) in sections {
            assert!(!words.trim().is_empty(), "{name}: {title} is empty");
        }
    }
}

#[test]
fn the_index_lists_every_decision_once_and_in_order() {
    let index = fs::read_to_string(repository("crates/decisions/README.md")).unwrap();
    let listed: Vec<&str> = index
        .lines()
        .filter(|line| line.starts_with("- "))
        .collect();
    let records = records();
    let mut expected = Vec::new();
    for (name, text) in &records {
        let (number, _) = name.split_once('-').unwrap_or_default();
        let digits = number.len() == 4 && number.bytes().all(|byte| byte.is_ascii_digit());
        assert!(digits && name.ends_with(".md"), "{name}: NNNN-title.md");
        expected.push(format!("- [{number}]({name}) {}", title(text)));
    }
    assert_eq!(
        listed, expected,
        "the index in crates/decisions/README.md differs from the records"
    );
    let mut numbers: Vec<&str> = records.iter().map(|(name, _)| &name[..4]).collect();
    numbers.dedup();
    assert_eq!(
        numbers.len(),
        records.len(),
        "two records have the same number"
    );
}

#[test]
fn the_files_that_decisions_name_exist() {
    let mut named = 0;
    for (name, text) in records() {
        for path in quoted(&text) {
            if path.starts_with("curfew") && path.ends_with(".rs") {
                named += 1;
                let file = repository("crates").join(path);
                assert!(file.is_file(), "{name} names {path}");
            }
        }
    }
    assert!(named > 25, "the records name only {named} files");
}
