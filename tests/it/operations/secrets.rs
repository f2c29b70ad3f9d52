//! Secrets are never in the repository and never in the environment. A missing secret gives a clear
//! error.

use curfew_tests::curfew;

use super::manifests::{Manifests, list};
use super::tools::{repository, run, system_tool, yaml_file};

const SECRETS: [&str; 4] = ["admin-key", "jwks.json", "redis-password", "redis-ca.crt"];

#[test]
fn secrets_without_one_of_their_files_are_not_rendered_and_say_which() {
    for secret in SECRETS {
        let manifests = Manifests::copy();
        let path = format!("overlays/production/secrets/{secret}");
        manifests.remove(&path);
        let said = manifests.try_render("overlays/production/secrets");
        assert!(!said.content, "the Secrets are rendered without {secret}");
        assert!(
            said.stdout.is_empty(),
            "a part of the Secrets is rendered: {}",
            said.stdout
        );
        assert!(said.stderr.contains(secret), "{}", said.stderr);
        assert!(said.stderr.contains("no such file"), "{}", said.stderr);
        // The overlay itself still renders without the secret files, so it can be compared and
        // deleted.
        manifests.try_render("overlays/production").content();
    }
}

#[test]
fn a_pod_does_not_start_without_its_secrets() {
    for rendered in Manifests::copy().everything() {
        let volumes = list(&rendered.pod()["volumes"]).iter();
        let secrets: Vec<_> = volumes
            .filter(|volume| volume["secret"].is_object())
            .collect();
        assert_eq!(secrets.len(), 3, "{}", rendered.folder);
        for volume in secrets {
            assert_eq!(volume["secret"]["optional"], false, "{volume}");
        }
    }
}

#[tokio::test]
async fn a_node_without_its_secrets_does_not_start_and_says_which() {
    let rendered = Manifests::copy().render("base");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("curfew.toml");
    std::fs::write(&file, rendered.config()).unwrap();
    let checked = curfew(&["check-config", "--config", file.to_str().unwrap()]).await;
    assert_eq!(checked.code, 2, "{checked:?}");
    for key in ["admin.key_file", "jwks_file"] {
        assert!(checked.stderr.contains(key), "no {key} in {checked:?}");
    }
    // Regression: a configuration could only be checked on the target machine, where errors are
    // found too late.
    let offline = async || {
        let arguments = ["check-config", "--offline", "--config"];
        curfew(&[&arguments[..], &[file.to_str().unwrap()]].concat()).await
    };
    let checked = offline().await;
    assert_eq!(checked.code, 0, "{checked:?}");
    let wrong = rendered.config().replace("\"publish\"]", "\"publsh\"]");
    std::fs::write(&file, wrong).unwrap();
    let checked = offline().await;
    assert_eq!(checked.code, 2, "{checked:?}");
    assert!(
        checked.stderr.contains("policy.rules[0].actions"),
        "{checked:?}"
    );
    // If a file exists, its content must be usable.
    let admin = folder.path().join("admin-key");
    std::fs::write(&admin, "short").unwrap();
    let named = "/var/run/secrets/curfew/admin/admin-key";
    let config = rendered.config().replace(named, admin.to_str().unwrap());
    std::fs::write(&file, config).unwrap();
    let checked = offline().await;
    assert_eq!(checked.code, 2, "{checked:?}");
    assert!(checked.stderr.contains("admin.key_file"), "{checked:?}");
}

#[test]
fn secrets_are_files_and_never_variables() {
    for rendered in Manifests::copy().everything() {
        for (name, value) in rendered.environment() {
            let named = ["KEY", "SECRET", "PASSWORD"].iter();
            assert!(
                !named.clone().any(|word| name.contains(word)) && !value.contains('@'),
                "{name} in {}",
                rendered.folder
            );
        }
        assert!(rendered.container()["envFrom"].is_null());
        assert!(
            !rendered.text.contains("secretKeyRef"),
            "{}",
            rendered.folder
        );
        assert!(
            !rendered.text.contains("subPath"),
            "the manifest uses a subPath, which is never updated"
        );
    }
}

#[test]
fn the_files_of_secrets_are_ignored_by_git() {
    let secrets = SECRETS.map(|secret| format!("k8s/overlays/production/secrets/{secret}"));
    let compose = yaml_file("deploy/compose.yaml");
    let declared = compose["secrets"].as_object().unwrap().values();
    let more = declared.map(|secret| {
        let path = secret["file"].as_str().unwrap();
        path.replacen("./", "deploy/", 1)
    });
    for path in secrets.into_iter().chain(more) {
        let mut git = system_tool("git");
        run(git
            .args(["check-ignore", "--quiet", &path])
            .current_dir(repository(".")))
        .content();
    }
}
