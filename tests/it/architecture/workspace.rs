//! The members of the workspace, as cargo reports them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

/// Crates that are not part of the gateway.
pub(super) const TOOLS: [&str; 7] = [
    "curfew-testkit",
    "curfew-model-check",
    "curfew-simulation",
    "curfew-fuzz",
    "curfew-tests",
    "curfew-benches",
    "curfew-gate",
];

/// A member of the workspace.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) manifest: PathBuf,
    /// The member's dependencies, without its dev-dependencies.
    pub(super) dependencies: Vec<String>,
}

impl Member {
    pub(super) fn manifest_text(&self) -> String {
        fs::read_to_string(&self.manifest).unwrap()
    }

    pub(super) fn is_tool(&self) -> bool {
        TOOLS.contains(&self.name.as_str())
    }

    pub(super) fn names(&self, dependency: &str) -> bool {
        self.dependencies.iter().any(|name| name == dependency)
    }
}

/// All members of the workspace.
pub(super) fn members() -> Vec<Member> {
    let output = Command::new(option_env!("CARGO").unwrap_or("cargo"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let members: Vec<Member> = packages.iter().map(member).collect();
    assert!(members.len() > TOOLS.len(), "{members:?}");
    for tool in TOOLS {
        assert!(members.iter().any(|member| member.name == tool), "{tool}");
    }
    members
}

fn member(package: &Value) -> Member {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let dependencies = package["dependencies"].as_array().unwrap();
    Member {
        name: text(&package["name"]),
        manifest: text(&package["manifest_path"]).into(),
        dependencies: dependencies
            .iter()
            .filter(|dependency| dependency["kind"] != "dev")
            .map(|dependency| text(&dependency["name"]))
            .collect(),
    }
}
