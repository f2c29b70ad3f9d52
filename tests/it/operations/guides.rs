//! Pages for operators and contributors: the targets of their links and the recipes that they name
//! exist.

use std::path::Path;

use super::tools::{repository, run, system_tool, text_of};

/// Pages whose links and recipes are checked.
const PAGES: [&str; 17] = [
    "README.md",
    "benches/README.md",
    "crates/README.md",
    "crates/curfew-protocol/PROTOCOL.md",
    "crates/decisions/README.md",
    "deploy/README.md",
    "deploy/add-to-your-app.md",
    "deploy/centrifuge.md",
    "deploy/identity-providers.md",
    "deploy/install.md",
    "deploy/release/README.md",
    "deploy/upgrading.md",
    "k8s/README.md",
    "tests/README.md",
    "tests/simulation/README.md",
    ".github/CONTRIBUTING.md",
    ".github/SECURITY.md",
];

/// Maximum number of words of the front page, which must be short enough to be read at once.
const MOST_WORDS_OF_THE_FRONT_PAGE: usize = 900;

/// The anchors of a page, which are made from its headings.
fn anchors(text: &str) -> Vec<String> {
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    for page in PAGES {
        let text = text_of(page);
        let folder = Path::new(page).parent().unwrap();
        let mut links = 0;
        for link in text.split("](").skip(1) {
            let target = link.split(')').next().unwrap();
            // The link leads to another site, or to a page of the repository's host.
            if target.contains("://") || target.starts_with("../../security") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let linked = if path.is_empty() {
                repository(page)
            } else {
                repository("").join(folder).join(path)
            };
            assert!(linked.exists(), "{page}: {target}");
            if !anchor.is_empty() {
                let known = anchors(&std::fs::read_to_string(linked).unwrap());
                assert!(known.iter().any(|name| name == anchor), "{page}: {target}");
            }
            links += 1;
        }
        assert!(links > 0, "{page} has no links");
    }
}

#[test]
fn every_recipe_that_a_page_names_is_in_the_justfile() {
    let justfile = text_of("justfile");
    let recipes: Vec<&str> = justfile
        .lines()
        .filter(|line| {
            !line.starts_with([' ', '#', '_']) && line.ends_with(':') || line.contains("\":")
        })
        .filter_map(|line| line.split([' ', ':']).next())
        .collect();
    assert!(recipes.len() > 10, "{recipes:?}");
    let mut named = 0;
    for page in PAGES {
        let text = text_of(page);
        let in_blocks = text.lines().filter_map(|line| line.strip_prefix("just "));
        let in_lines = text.split("`just ").skip(1);
        for command in in_blocks.chain(in_lines) {
            let name = command.split([' ', '`', '\n']).next().unwrap();
            assert!(
                recipes.contains(&name),
                "{page} names just {name}, which is not in the justfile"
            );
            named += 1;
        }
    }
    assert!(named > 10, "the pages name only {named} recipes");
}

#[test]
fn the_front_page_is_short() {
    let words = text_of("README.md").split_whitespace().count();
    assert!(
        words <= MOST_WORDS_OF_THE_FRONT_PAGE,
        "README.md has {words} words"
    );
}

#[test]
fn every_folder_of_deploy_is_explained() {
    let text = text_of("deploy/README.md");
    for entry in std::fs::read_dir(repository("deploy")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        // The folder `secrets` holds an operator's own secrets.
        assert!(
            name == "secrets" || text.contains(&name),
            "deploy/README.md does not explain {name}"
        );
    }
}

/// The entries that the top folder of the repository may have, apart from dotfiles. They are
/// folders with one purpose each, and files that tools look for there.
const TOP: [&str; 12] = [
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "benches",
    "crates",
    "deploy",
    "justfile",
    "k8s",
    "rust-toolchain.toml",
    "tests",
];

#[test]
fn the_top_of_the_repository_holds_nothing_else() {
    let listed = run(system_tool("git")
        .args(["ls-files", "-z"])
        .current_dir(repository("")));
    let listed = listed.content().stdout;
    for path in listed.split_terminator('\0') {
        let name = path.split('/').next().unwrap();
        let expected = name.starts_with('.') || TOP.contains(&name);
        assert!(expected, "{name} is at the top of the repository");
    }
    for name in TOP {
        assert!(repository(name).exists(), "{name}");
    }
}
