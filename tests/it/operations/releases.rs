//! `deploy/release`: the cases in which it refuses a release, and the list of components.
//!
//! `.ci/run` calls `deploy/release/try`, which installs the archive and the package.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::tools::{Said, repository, run, system_tool};

fn git(folder: &Path, arguments: &[&str]) {
    run(system_tool("git")
        .args(["-c", "user.name=test", "-c", "user.email=test@localhost"])
        .args(arguments)
        .current_dir(folder))
    .content();
}

/// A repository with one commit. It has the files that a release reads before it builds anything.
fn clone() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["Cargo.toml", "CHANGELOG.md", "deploy/release/release"] {
        let copy = folder.path().join(file);
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(repository(file), copy).unwrap();
    }
    git(folder.path(), &["init", "--quiet"]);
    commit(folder.path());
    folder
}

fn commit(folder: &Path) {
    git(folder, &["add", "--all"]);
    git(folder, &["commit", "--quiet", "--message", "a commit"]);
}

fn release(folder: &Path, version: &str) -> Said {
    run(system_tool("bash")
        .args(["deploy/release/release", version])
        .current_dir(folder))
}

#[test]
fn a_release_is_refused_before_anything_is_built() {
    let folder = clone();
    let folder = folder.path();
    let refused = |version: &str, why: &str| {
        let said = release(folder, version);
        assert!(!said.content, "{version} is released, and must be refused");
        assert!(said.stderr.contains(why), "{version}: {}", said.stderr);
    };
    let version = env!("CARGO_PKG_VERSION");
    refused("", "the version is like 0.2.0");
    refused("v0.2.0", "the version is like 0.2.0");
    refused("99.0.0", "Cargo.toml has version");
    let changes = folder.join("CHANGELOG.md");
    fs::write(&changes, "# Changelog\n\n## [Unreleased]\n\n- a change\n").unwrap();
    refused(version, "the tree has changes");
    commit(folder);
    refused(version, "CHANGELOG.md has no section");
    let empty =
        format!("# Changelog\n\n## [{version}] - 2026-12-01\n\n## [0.0.1] - 2026-01-01\n\n- old\n");
    fs::write(&changes, empty).unwrap();
    commit(folder);
    refused(version, "in CHANGELOG.md is empty");
    git(folder, &["tag", &format!("v{version}")]);
    refused(version, "is there already");
}

#[test]
fn the_list_of_components_is_of_the_binary_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (list, licenses) = (folder.path().join("list"), folder.path().join("licenses"));
    run(system_tool("python3")
        .arg("deploy/release/components")
        .args(["--version", "1.2.3", "--target", "x86_64-unknown-linux-gnu"])
        .arg("--list")
        .arg(&list)
        .arg("--licenses")
        .arg(&licenses)
        .current_dir(repository("")))
    .content();
    let list: Value = serde_json::from_str(&fs::read_to_string(list).unwrap()).unwrap();
    assert_eq!(list["metadata"]["component"]["version"], "1.2.3");
    let components = list["components"].as_array().unwrap();
    let has = |name: &str| components.iter().any(|component| component["name"] == name);
    for name in [
        "tokio",
        "rustls",
        "aws-lc-sys",
        "tikv-jemalloc-sys",
        "curfew-hub",
    ] {
        assert!(has(name), "the list lacks {name}");
    }
    // The dependencies of tests, macros and builds are not in the binary.
    for name in ["curfew-testkit", "tempfile", "serde_derive", "cc"] {
        assert!(
            !has(name),
            "the list has {name}, which is not in the binary"
        );
    }
    for component in components {
        assert!(component["licenses"][0]["expression"].is_string());
        let own = component["name"].as_str().unwrap().starts_with("curfew-");
        let known = component["hashes"][0]["content"].is_string();
        assert!(own || known, "{component} has no checksum");
    }
    // Every dependency leads to a component of the list.
    let known = |at: &Value| {
        *at == list["metadata"]["component"]["bom-ref"]
            || components
                .iter()
                .any(|component| component["bom-ref"] == *at)
    };
    for dependency in list["dependencies"].as_array().unwrap() {
        assert!(known(&dependency["ref"]), "{dependency}");
        assert!(
            dependency["dependsOn"]
                .as_array()
                .unwrap()
                .iter()
                .all(known)
        );
    }
    let licenses = fs::read_to_string(licenses).unwrap();
    for text in [
        "tokio",
        "aws-lc-sys",
        "jemalloc",
        "Permission is hereby granted",
    ] {
        assert!(licenses.contains(text), "the licences lack {text}");
    }
}
