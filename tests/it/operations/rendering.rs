//! Kubernetes and the operators accept everything that `k8s/` renders.

use super::manifests::{Manifests, OVERLAYS, components, folders};
use super::tools::{files_below, python_tool, repository, run, run_on, system_tool, tools};

/// The oldest version of Kubernetes that `k8s/README.md` supports, and the newest version that was
/// checked.
const KUBERNETES: [&str; 2] = ["1.34.0", "1.37.0"];

#[test]
fn every_overlay_and_component_renders_to_valid_objects() {
    let manifests = Manifests::copy();
    let folder = tempfile::tempdir().unwrap();
    for rendered in manifests.everything() {
        let file = folder.path().join("rendered.yaml");
        std::fs::write(&file, &rendered.text).unwrap();
        for version in KUBERNETES {
            let mut validate = python_tool("kubernetes-validate");
            run(validate
                .args(["--strict", "--quiet", "--no-warn", "-k", version])
                .arg(&file))
            .content();
        }
        assert!(rendered.documents.len() >= 5, "{}", rendered.folder);
    }
}

#[test]
fn custom_resources_are_as_their_operators_want_them() {
    let manifests = Manifests::copy();
    let mut checked = Vec::new();
    for rendered in manifests.everything() {
        let documents = serde_json::to_string(&rendered.documents).unwrap();
        let mut node = system_tool("node");
        node.arg(repository("tests/tools/custom_resources.mjs"))
            .env("CURFEW_TOOLS", tools().canonicalize().unwrap());
        let said = run_on(&mut node, &documents).content();
        checked.extend(said.stdout.lines().map(str::to_owned));
    }
    for kind in ["HTTPRoute", "ScaledObject", "PodMonitor", "PrometheusRule"] {
        assert!(
            checked.iter().any(|name| name == kind),
            "no object of kind {kind} was checked"
        );
    }
}

#[test]
fn every_manifest_is_part_of_something() {
    for kustomization in files_below("k8s", "kustomization.yaml") {
        let folder = kustomization.parent().unwrap();
        let text = std::fs::read_to_string(&kustomization).unwrap();
        for entry in std::fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().to_string_lossy().into_owned();
            let is_source = name.contains('.') && name != "kustomization.yaml";
            assert!(
                !is_source
                    || text.contains(&format!("- {name}"))
                    || text.contains(&format!(": {name}")),
                "{} does not name {name}",
                kustomization.display()
            );
        }
    }
    let readme = super::tools::text_of("k8s/README.md");
    for component in components() {
        assert!(
            readme.contains(&format!("`components/{component}`")),
            "k8s/README.md does not explain {component}"
        );
    }
    for example in folders("k8s/examples") {
        assert!(
            readme.contains(&format!("`examples/{example}`")),
            "k8s/README.md does not explain {example}"
        );
    }
    for overlay in OVERLAYS {
        assert!(
            readme.contains(overlay),
            "k8s/README.md does not explain {overlay}"
        );
    }
}
