//! The files of the code: their length, their names and their first comments.

use std::fs;
use std::path::{Path, PathBuf};

use super::markdown::{Page, quoted, repository};

/// Limit on the lines of a file. A longer file usually has two purposes.
const MOST_LINES: usize = 500;

/// Files that may be longer: tables of cases, and files with a test for each row of a list.
const MAY_BE_LONG: [(&str, &str); 5] = [
    (
        "crates/curfew-policy/src/policy/tests.rs",
        "tables of cases",
    ),
    (
        "crates/curfew-protocol/src/native/tests.rs",
        "tables of cases",
    ),
    ("crates/curfew-ws/src/decoder/tests.rs", "tables of cases"),
    ("tests/it/admin.rs", "a test for each operation"),
    ("tests/it/protocol.rs", "tables of frames"),
];

/// Folders with code.
const FOLDERS: [&str; 3] = ["crates", "tests", "benches"];

/// Every Rust file, by its path from the root of the repository.
pub(super) fn sources() -> Vec<(String, PathBuf)> {
    fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = repository("");
    let mut found = Vec::new();
    FOLDERS
        .iter()
        .for_each(|folder| collect(&root.join(folder), &mut found));
    assert!(found.len() > 100, "only {} files were found", found.len());
    let name = |path: &PathBuf| path.strip_prefix(&root).unwrap().display().to_string();
    found
        .iter()
        .map(|path| (name(path), path.clone()))
        .collect()
}

#[test]
fn no_file_is_too_long_to_read() {
    let sources = sources();
    for (excused, _) in MAY_BE_LONG {
        assert!(
            sources.iter().any(|(name, _)| name == excused),
            "{excused} of MAY_BE_LONG does not exist"
        );
    }
    let is_long = |path: &PathBuf| fs::read_to_string(path).unwrap().lines().count() > MOST_LINES;
    let too_long: Vec<&str> = sources
        .iter()
        .filter(|(_, path)| is_long(path))
        .map(|(name, _)| name.as_str())
        .filter(|name| !MAY_BE_LONG.iter().any(|(excused, _)| excused == name))
        .collect();
    assert!(
        too_long.is_empty(),
        "these files have more than {MOST_LINES} lines: {too_long:?}"
    );
}

#[test]
fn no_file_is_called_mod() {
    for (name, _) in sources() {
        assert!(
            !name.ends_with("/mod.rs"),
            "{name}: the code of a module foo belongs in foo.rs"
        );
    }
}

#[test]
fn every_crate_opens_with_what_it_owns_and_where_to_start() {
    for (name, path) in sources() {
        let root = name.ends_with("/src/lib.rs") || name == "crates/curfew/src/main.rs";
        if !root || !name.starts_with("crates/") {
            continue;
        }
        let text = fs::read_to_string(path).unwrap();
        for words in ["//! Owns: ", "//! Start at "] {
            assert!(text.contains(words), "{name} lacks {words:?}");
        }
    }
}

#[test]
fn the_files_on_the_code_map_exist() {
    let page = Page::read("crates/README.md");
    let mut named = 0;
    for path in quoted(page.text()) {
        if !path.starts_with("curfew") || !path.ends_with(".rs") {
            continue;
        }
        named += 1;
        assert!(
            repository("crates").join(path).is_file(),
            "crates/README.md names {path}"
        );
    }
    assert!(named > 25, "crates/README.md names only {named} files");
    let rows = page.table(&["#", "file", "what happens"]);
    for (at, row) in rows.iter().enumerate() {
        assert_eq!(row[0], (at + 1).to_string(), "{row:?}");
        assert!(quoted(row[1])[0].ends_with(".rs"), "{row:?}");
    }
    assert_eq!(
        rows.len(),
        20,
        "the table of a connection's life does not have 20 rows"
    );
}
