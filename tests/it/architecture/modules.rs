//! The modules of curfew-server, and the uses between them.

use std::fs;
use std::path::Path;

use super::markdown::{Page, quoted, repository};

/// Adds every source file of a folder, each with the top-level module that it belongs to.
fn sources(folder: &Path, module: Option<&str>, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let module = module.unwrap_or(stem);
        if path.is_dir() {
            sources(&path, Some(module), found);
        } else {
            found.push((module.to_owned(), fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn modules_of_the_server_use_only_those_below_them() {
    let page = Page::read("crates/README.md");
    let rows = page.table(&["module", "what it owns"]);
    let order: Vec<&str> = rows.iter().map(|row| quoted(row[0])[0]).collect();
    let mut found = Vec::new();
    sources(&repository("crates/curfew-server/src"), None, &mut found);
    let floor = |module: &str| order.iter().position(|known| *known == module);
    let mut uses = 0;
    for (module, text) in &found {
        if module == "lib" {
            continue;
        }
        let own = floor(module).unwrap_or_else(|| panic!("{module} is not in the table"));
        for (at, _) in text.match_indices("crate::") {
            let rest = &text[at + "crate::".len()..];
            let used: String = rest
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            let below = floor(&used).unwrap_or_else(|| {
                panic!("{module} uses crate::{used}, which is not a module in the table")
            });
            assert!(below >= own, "{module} uses {used}, which is above it");
            uses += usize::from(below != own);
        }
    }
    let listed = |module: &&str| found.iter().any(|(known, _)| known == module);
    assert!(
        order.iter().all(listed),
        "a module of the table does not exist"
    );
    assert!(uses > 30, "only {uses} uses were found");
}
