//! The crates, their dependencies on each other, and the dependencies that only some crates may
//! name.

use std::collections::BTreeSet;
use std::fs;

use super::markdown::{Page, quoted, repository};
use super::workspace::{Member, members};

/// Dependencies that only one crate of the gateway may name. crates/README.md must give each of
/// them to exactly one crate.
const WALLED: [&str; 8] = [
    "anyhow",
    "cel",
    "clap",
    "fastwebsockets",
    "figment",
    "jsonwebtoken",
    "prometheus-client",
    "tracing-subscriber",
];

/// Crates that do no I/O and never wait.
const PURE: [&str; 5] = [
    "curfew-model",
    "curfew-protocol",
    "curfew-protocol-centrifuge",
    "curfew-policy",
    "curfew-hub",
];

/// Dependencies that do I/O or wait.
const IMPURE: [&str; 8] = [
    "hyper",
    "hyper-util",
    "mio",
    "rustls",
    "socket2",
    "tokio",
    "tokio-rustls",
    "tokio-util",
];

/// Dependencies that do the work of rustls and aws-lc-rs a second time. `ring` is not in the list:
/// Cargo.lock has it for an optional dependency that no crate enables.
const REFUSED: [&str; 3] = ["native-tls", "openssl", "openssl-sys"];

/// A row of the table of crates in crates/README.md.
struct Row {
    name: String,
    edges: BTreeSet<String>,
    alone: Vec<String>,
}

fn rows() -> Vec<Row> {
    let page = Page::read("crates/README.md");
    let rows = page.table(&["crate", "what it is", "depends on", "alone names"]);
    let row = |cells: &Vec<&str>| Row {
        name: quoted(cells[0])[0].to_owned(),
        edges: cells[2]
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(|name| format!("curfew-{name}"))
            .collect(),
        alone: quoted(cells[3]).into_iter().map(str::to_owned).collect(),
    };
    rows.iter().map(row).collect()
}

/// The crate that replaces functions of the C library, and therefore needs unsafe code. No other
/// crate has its own lints.
const STAND_IN: &str = "curfew-simulation";

fn find<'a>(members: &'a [Member], name: &str) -> &'a Member {
    let found = members.iter().find(|member| member.name == name);
    found.unwrap_or_else(|| panic!("{name} is no member of the workspace"))
}

#[test]
fn every_crate_is_on_the_map_with_exactly_the_edges_it_has() {
    let (members, rows) = (members(), rows());
    let names: BTreeSet<&str> = members.iter().map(|member| member.name.as_str()).collect();
    let mapped: BTreeSet<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(
        names, mapped,
        "the workspace's crates differ from the rows of crates/README.md"
    );
    assert_eq!(
        mapped.len(),
        rows.len(),
        "a crate has two rows in crates/README.md"
    );
    for row in &rows {
        let member = find(&members, &row.name);
        let edges = member
            .dependencies
            .iter()
            .filter(|name| names.contains(name.as_str()));
        let edges: BTreeSet<String> = edges.cloned().collect();
        if member.is_tool() {
            let more: Vec<&String> = edges.difference(&row.edges).collect();
            assert!(more.is_empty(), "{} may not depend on {more:?}", row.name);
        } else {
            assert_eq!(
                edges, row.edges,
                "{}: its edges differ from its row in crates/README.md",
                row.name
            );
        }
    }
}

#[test]
fn crates_depend_only_on_crates_above_them_on_the_map() {
    let mut above = BTreeSet::new();
    for row in rows() {
        for edge in &row.edges {
            assert!(
                above.contains(edge),
                "{} depends on {edge}, which is below it in crates/README.md",
                row.name
            );
        }
        above.insert(row.name);
    }
}

#[test]
fn the_gateway_is_not_made_of_tools() {
    for member in members().iter().filter(|member| !member.is_tool()) {
        for tool in super::workspace::TOOLS {
            assert!(!member.names(tool), "{} depends on {tool}", member.name);
        }
    }
}

#[test]
fn what_one_crate_alone_names_no_other_does() {
    let (members, rows) = (members(), rows());
    for row in &rows {
        for dependency in &row.alone {
            let naming = members
                .iter()
                .filter(|m| !m.is_tool() && m.names(dependency));
            let naming: Vec<&str> = naming.map(|member| member.name.as_str()).collect();
            assert_eq!(
                naming,
                [row.name.as_str()],
                "crates that name {dependency}, and the only crate that may"
            );
        }
    }
    for dependency in WALLED {
        let walls = rows
            .iter()
            .filter(|row| row.alone.iter().any(|name| name == dependency));
        assert_eq!(
            walls.count(),
            1,
            "crates/README.md must give {dependency} to exactly one crate"
        );
    }
}

#[test]
fn pure_crates_cannot_wait() {
    let members = members();
    for name in PURE {
        let member = find(&members, name);
        for dependency in IMPURE {
            assert!(!member.names(dependency), "{name} depends on {dependency}");
        }
    }
}

#[test]
fn there_is_one_implementation_of_tls() {
    let lock = fs::read_to_string(repository("Cargo.lock")).unwrap();
    assert!(lock.contains("\nname = \"rustls\"\n"));
    for name in REFUSED {
        assert!(
            !lock.contains(&format!("\nname = \"{name}\"\n")),
            "{name} is in Cargo.lock"
        );
    }
}

#[test]
fn every_member_inherits_lints_and_versions() {
    for member in members() {
        let manifest = member.manifest_text();
        let lints = if member.name == STAND_IN {
            "\n[lints.rust]\nunsafe_code = \"deny\"\n"
        } else {
            "\n[lints]\nworkspace = true\n"
        };
        assert!(
            manifest.contains(lints),
            "{}: the manifest lacks the expected lints",
            member.name
        );
        for key in ["version", "edition", "rust-version", "license", "publish"] {
            let line = format!("\n{key}.workspace = true\n");
            assert!(manifest.contains(&line), "{}: {key}", member.name);
        }
        for line in dependency_lines(&manifest) {
            let inherits = line.contains(".workspace = true") || line.contains("workspace = true,");
            assert!(
                inherits,
                "{}: the version belongs in the root manifest: {line}",
                member.name
            );
        }
    }
}

/// The lines of a manifest that name a dependency.
fn dependency_lines(manifest: &str) -> Vec<&str> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]");
        } else if inside && !line.is_empty() && !line.starts_with('#') {
            found.push(line);
        }
    }
    found
}
