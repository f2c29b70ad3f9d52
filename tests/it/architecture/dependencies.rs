//! The locked dependencies, compared with the workspace's manifest.

use std::process::Command;

use serde_json::Value;

/// Major, minor and patch of a Rust version.
fn version(text: &str) -> [u32; 3] {
    let mut parts = [0; 3];
    for (at, part) in text.split('.').enumerate() {
        parts[at] = part.parse().unwrap_or_else(|_| panic!("version {text}"));
    }
    parts
}

/// All packages of a build for Linux, as cargo resolves them from Cargo.lock.
fn packages() -> Vec<Value> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(option_env!("CARGO").unwrap_or("cargo"))
        .args(["metadata", "--format-version", "1", "--offline", "--locked"])
        .args(["--filter-platform", &target])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let mut metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let Value::Array(packages) = metadata["packages"].take() else {
        panic!("cargo metadata has listed no packages");
    };
    packages
}

#[test]
fn rust_version_is_the_one_that_the_locked_dependencies_need() {
    let (mut stated, mut needed) = ([0; 3], ([0; 3], String::new()));
    for package in packages() {
        let Some(text) = package["rust_version"].as_str() else {
            continue;
        };
        if package["source"].is_null() {
            stated = version(text);
        } else {
            needed = needed.max((version(text), package["name"].to_string()));
        }
    }
    let (needed, by) = needed;
    assert_eq!(
        stated, needed,
        "rust-version in Cargo.toml differs from the version that {by} needs"
    );
}
