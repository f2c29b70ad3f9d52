//! Facts about the build, which the binary reports in `curfew --version` and in the labels of
//! `curfew_build_info`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Number of characters of a commit's hash in `curfew --version`. The Linux kernel recommends this
/// number for references to commits.
const SHORT: usize = 12;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CURFEW_REVISION");
    let given = env::var("CURFEW_REVISION").unwrap_or_default();
    let revision = match given.trim() {
        "" => commit(),
        revision => Some(revision.to_owned()),
    };
    let version = env::var("CARGO_PKG_VERSION").expect("cargo sets CARGO_PKG_VERSION");
    let version = match &revision {
        Some(revision) => format!("{version} ({})", revision.get(..SHORT).unwrap_or(revision)),
        None => version,
    };
    let revision = revision.as_deref().unwrap_or("unknown");
    println!("cargo::rustc-env=CURFEW_REVISION={revision}");
    println!("cargo::rustc-env=CURFEW_VERSION={version}");
    println!("cargo::rustc-env=CURFEW_RUSTC={}", rustc());
}

/// The commit of the git tree that this package is in. `None` outside of a tree, or without git.
///
/// A debug build has no commit, because it would have to be linked again after each commit.
fn commit() -> Option<String> {
    if env::var("PROFILE").is_ok_and(|profile| profile == "debug") {
        return None;
    }
    let said = git(&["rev-parse", "--show-prefix", "HEAD"])?;
    // The commit is used only if the repository is Curfew's own. A tarball may be unpacked inside
    // another repository.
    let commit = said.strip_prefix("crates/curfew/\n")?;
    // Cargo watches the reflog, because every commit and checkout writes to it. Without a reflog,
    // Cargo watches HEAD, which shows only checkouts.
    let logged = git(&["rev-parse", "--git-path", "logs/HEAD"]).map(PathBuf::from);
    let head = git(&["rev-parse", "--git-path", "HEAD"]).map(PathBuf::from);
    let watched = logged.filter(|path| path.is_file()).or(head)?;
    println!("cargo::rerun-if-changed={}", watched.display());
    Some(commit.to_owned())
}

/// The output of git in this package's directory, without the last line break; `None` if git fails.
fn git(arguments: &[&str]) -> Option<String> {
    let package = env::var_os("CARGO_MANIFEST_DIR")?;
    let output = Command::new("git")
        .args(arguments)
        .current_dir(Path::new(&package))
        .output()
        .ok()?;
    let said = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| said.trim_end().to_owned())
}

/// The compiler's version, for example `1.88.0`.
fn rustc() -> String {
    let rustc = env::var_os("RUSTC").expect("cargo sets RUSTC");
    let output = Command::new(rustc).arg("--version").output();
    let output = output.expect("the compiler that cargo uses can be run");
    let said = String::from_utf8_lossy(&output.stdout);
    said.split_whitespace()
        .nth(1)
        .unwrap_or("unknown")
        .to_owned()
}
