//! Manifests as `kubectl kustomize` renders them.

use std::fs;
use std::path::Path;

use curfew_testkit::mint::{Key, jwks};
use curfew_tests::{ADMIN_KEY, TestAuthority};
use serde_json::Value;
use tempfile::TempDir;

use super::tools::{Said, python_tool, repository, run, yaml};

/// The overlays.
pub(super) const OVERLAYS: [&str; 2] = ["overlays/dev", "overlays/production"];

/// A copy of `k8s/` that a test may change, with the secrets an operator would have put there.
pub(super) struct Manifests {
    directory: TempDir,
}

impl Manifests {
    pub(super) fn copy() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        copy(&repository("k8s"), directory.path());
        let manifests = Self { directory };
        let key = Key::generate("ES256").with_kid("2026-11");
        let secrets = "overlays/production/secrets";
        manifests.write(&format!("{secrets}/admin-key"), ADMIN_KEY);
        manifests.write(&format!("{secrets}/jwks.json"), &jwks(&[&key]));
        manifests.write(&format!("{secrets}/redis-password"), "password");
        let folder = manifests.directory.path().join(secrets);
        TestAuthority::new().write(&folder);
        fs::copy(folder.join("ca.pem"), folder.join("redis-ca.crt")).expect("an authority");
        manifests
    }

    pub(super) fn write(&self, path: &str, content: &str) {
        let path = self.directory.path().join(path);
        fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("a folder");
        fs::write(path, content).expect("a file");
    }

    pub(super) fn remove(&self, path: &str) {
        fs::remove_file(self.directory.path().join(path)).expect("it is there");
    }

    /// Tries to render a folder below `k8s/`.
    pub(super) fn try_render(&self, folder: &str) -> Said {
        run(python_tool("kubectl")
            .arg("kustomize")
            .arg(self.directory.path().join(folder)))
    }

    pub(super) fn render(&self, folder: &str) -> Rendered {
        let text = self.try_render(folder).content().stdout;
        Rendered {
            folder: folder.to_owned(),
            documents: yaml(&text),
            text,
        }
    }

    /// The base with one component.
    pub(super) fn render_component(&self, component: &str) -> Rendered {
        let folder = format!("overlays/only-{component}");
        self.write(
            &format!("{folder}/kustomization.yaml"),
            &format!("resources: [../../base]\ncomponents: [../../components/{component}]\n"),
        );
        self.render(&folder)
    }

    /// The base, every overlay, and the base with each component.
    pub(super) fn everything(&self) -> Vec<Rendered> {
        let folders = ["base"].into_iter().chain(OVERLAYS);
        let mut rendered: Vec<_> = folders.map(|folder| self.render(folder)).collect();
        rendered.extend(
            components()
                .iter()
                .map(|component| self.render_component(component)),
        );
        rendered
    }

    /// The overlays.
    pub(super) fn overlays(&self) -> Vec<Rendered> {
        OVERLAYS.map(|overlay| self.render(overlay)).into()
    }
}

/// The names of the components.
pub(super) fn components() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(repository("k8s/components"))
        .expect("there are components")
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("it can be read") {
        let path = entry.expect("it can be read").path();
        let target = to.join(path.file_name().expect("it has a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("it can be copied");
        }
    }
}

/// What a folder rendered to.
#[derive(Debug)]
pub(super) struct Rendered {
    pub(super) folder: String,
    pub(super) text: String,
    pub(super) documents: Vec<Value>,
}

impl Rendered {
    pub(super) fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        let documents = self.documents.iter();
        documents.filter(move |document| document["kind"] == kind)
    }

    /// The object of this kind and name.
    #[track_caller]
    pub(super) fn object<'a>(&'a self, kind: &'a str, name: &str) -> &'a Value {
        self.of_kind(kind)
            .find(|document| document["metadata"]["name"] == name)
            .unwrap_or_else(|| panic!("{} has no {kind} {name}", self.folder))
    }

    /// The spec of the gateway's pods.
    pub(super) fn pod(&self) -> &Value {
        &self.object("Deployment", "curfew")["spec"]["template"]["spec"]
    }

    /// The gateway's container.
    pub(super) fn container(&self) -> &Value {
        let containers = list(&self.pod()["containers"]);
        assert_eq!(containers.len(), 1, "{}", self.folder);
        &containers[0]
    }

    /// The gateway's configuration.
    pub(super) fn config(&self) -> &str {
        self.object("ConfigMap", "curfew")["data"]["curfew.toml"]
            .as_str()
            .expect("the configuration is a text")
    }

    /// What the gateway's container has in its environment.
    pub(super) fn environment(&self) -> Vec<(&str, &str)> {
        let Some(variables) = self.container()["env"].as_array() else {
            return Vec::new();
        };
        let variables = variables.iter();
        variables
            .map(|variable| {
                let text = |key: &str| variable[key].as_str().expect("a text");
                (text("name"), text("value"))
            })
            .collect()
    }
}

/// The items of a list, which must be there.
#[track_caller]
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

/// Whether `labels` has everything in `selector`, which must not be empty.
pub(super) fn selects(selector: &Value, labels: &Value) -> bool {
    let selector = selector.as_object().expect("a selector");
    !selector.is_empty() && selector.iter().all(|(key, value)| labels[key] == *value)
}
