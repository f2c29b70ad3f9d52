//! Facts about the build that the binary reports: the labels of `curfew_build_info`.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CURFEW_REVISION");
    // The build of an image or a release gives it. Asking git would build the crate anew at
    // every commit, and an image is built without git.
    let revision = env::var("CURFEW_REVISION").unwrap_or_default();
    let revision = match revision.trim() {
        "" => "unknown",
        revision => revision,
    };
    println!("cargo::rustc-env=CURFEW_REVISION={revision}");
    println!("cargo::rustc-env=CURFEW_RUSTC={}", rustc());
}

/// The compiler's version: `1.88.0`.
fn rustc() -> String {
    let rustc = env::var_os("RUSTC").expect("cargo says which compiler it uses");
    let output = Command::new(rustc).arg("--version").output();
    let output = output.expect("the compiler that cargo uses can be run");
    let said = String::from_utf8_lossy(&output.stdout);
    said.split_whitespace()
        .nth(1)
        .unwrap_or("unknown")
        .to_owned()
}
