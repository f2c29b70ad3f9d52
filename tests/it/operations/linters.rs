//! Linters accept the files of `deploy/` and `k8s/`, and so do the programs that use the files.

use std::path::Path;

use curfew_tests::curfew_binary;

use super::tools::{files_below, python_tool, repository, run, system_tool, text_of};

#[test]
fn yaml_is_tidy() {
    run(python_tool("yamllint")
        .arg("--strict")
        .arg("--config-file")
        .arg(repository("tests/tools/yamllint.yml"))
        .arg(repository("deploy"))
        .arg(repository("k8s")))
    .content();
}

#[test]
fn json_is_json() {
    let files = files_below("deploy", ".json");
    assert!(!files.is_empty());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let parsed = serde_json::from_str::<serde_json::Value>(&text);
        assert!(parsed.is_ok(), "{}: {parsed:?}", file.display());
    }
}

#[test]
fn the_dockerfile_has_no_bad_habits() {
    run(python_tool("hadolint").arg(repository("deploy/Dockerfile"))).content();
}

#[test]
fn haproxy_accepts_its_configuration() {
    let said = run(system_tool("haproxy")
        .args(["-c", "-f"])
        .arg(repository("deploy/haproxy/haproxy.cfg")))
    .content();
    // Node names resolve only inside the compose network. No other warning is allowed.
    let other: Vec<&str> = said
        .stderr
        .lines()
        .filter(|line| line.starts_with("[WARNING]") || line.starts_with("[ALERT]"))
        .filter(|line| !line.contains("could not resolve address 'curfew-"))
        .collect();
    assert!(other.is_empty(), "{other:?}");
}

#[test]
fn systemd_accepts_the_unit() {
    let installed = "/usr/local/bin/curfew";
    let unit = text_of("deploy/systemd/curfew.service");
    assert!(unit.contains(installed));
    let binary = curfew_binary().canonicalize().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("curfew.service");
    std::fs::write(&file, unit.replace(installed, binary.to_str().unwrap())).unwrap();
    let said = run(system_tool("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&file))
    .content();
    assert!(
        !said
            .stderr
            .contains(Path::new("curfew.service").to_str().unwrap()),
        "{said:?}"
    );
}
