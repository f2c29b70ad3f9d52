//! Texts that packages contain: the version, completions and the manual.

use std::fs;

use crate::support::{Folder, curfew};

/// The commands that the help lists.
fn commands() -> Vec<String> {
    let help = curfew(&["--help"]).stdout;
    let listed = help.split("Commands:").nth(1).unwrap();
    let listed = listed.split("\n\n").next().unwrap();
    listed
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_version_is_the_packages() {
    let said = curfew(&["--version"]).stdout;
    let expected = concat!("curfew ", env!("CARGO_PKG_VERSION"));
    let commit = said.trim_end().strip_prefix(expected).unwrap();
    // A debug build names no commit, unless `CURFEW_REVISION` was set for the build.
    assert!(commit.is_empty() || commit.starts_with(" ("), "{said}");
}

#[test]
fn completions_know_every_command() {
    let commands = commands();
    assert!(commands.len() > 15, "{commands:?}");
    for shell in ["bash", "zsh", "fish"] {
        let said = curfew(&["completions", shell]);
        assert_eq!(said.code, 0, "{}", said.stderr);
        for name in &commands {
            assert!(
                said.stdout.contains(name),
                "the completions for {shell} lack {name}"
            );
        }
    }
    assert_eq!(curfew(&["completions", "cmd"]).code, 2);
}

#[test]
fn the_manual_has_a_page_for_every_command() {
    let folder = Folder::new();
    let pages = folder.path("new/man1");
    let said = curfew(&["man", &pages]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let mut expected = vec!["curfew.1".to_owned()];
    expected.extend(commands().iter().map(|name| format!("curfew-{name}.1")));
    expected.sort();
    let entries = fs::read_dir(&pages).unwrap();
    let mut found: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(found, expected);
    let page = fs::read_to_string(format!("{pages}/curfew-serve.1")).unwrap();
    assert!(page.contains("configuration file"), "{page}");

    let taken = folder.file("taken", "");
    let said = curfew(&["man", &taken]);
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains(&taken), "{}", said.stderr);
}
