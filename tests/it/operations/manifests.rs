//! Manifests as `kubectl kustomize` renders them.

use std::fs;
use std::path::Path;

use curfew_testkit::mint::{Key, jwks};
use curfew_tests::{ADMIN_KEY, TestAuthority};
use serde_json::Value;
use tempfile::TempDir;

use super::tools::{Said, python_tool, repository, run, yaml};

/// The folders of the overlays.
pub(super) const OVERLAYS: [&str; 2] = ["overlays/dev", "overlays/production"];

/// A copy of `k8s/` that a test may change. It has secrets as an operator would put them there.
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
        fs::create_dir_all(path.parent().expect("the path has a parent folder")).expect("a folder");
        fs::write(path, content).expect("a file");
    }

    pub(super) fn remove(&self, path: &str) {
        fs::remove_file(self.directory.path().join(path)).expect("the file exists");
    }

    /// Tries to render a folder in `k8s/`.
    pub(super) fn try_render(&self, folder: &str) -> Said {
        run(python_tool("kubectl")
            .arg("kustomize")
            .arg(self.directory.path().join(folder)))
    }

    /// Renders a folder, and the folder `secrets` in it if there is one.
    pub(super) fn render(&self, folder: &str) -> Rendered {
        let mut text = self.try_render(folder).content().stdout;
        let secrets = format!("{folder}/secrets");
        if self.directory.path().join(&secrets).is_dir() {
            text += "---\n";
            text += &self.try_render(&secrets).content().stdout;
        }
        Rendered {
            folder: folder.to_owned(),
            documents: yaml(&text),
            text,
        }
    }

    /// Renders the base with one component.
    pub(super) fn render_component(&self, component: &str) -> Rendered {
        let folder = format!("overlays/only-{component}");
        self.write(
            &format!("{folder}/kustomization.yaml"),
            &format!("resources: [../../base]\ncomponents: [../../components/{component}]\n"),
        );
        self.render(&folder)
    }

    /// Renders the base, every overlay, the base with each component, and every example.
    pub(super) fn everything(&self) -> Vec<Rendered> {
        let folders = ["base"].into_iter().chain(OVERLAYS);
        let mut rendered: Vec<_> = folders.map(|folder| self.render(folder)).collect();
        rendered.extend(
            components()
                .iter()
                .map(|component| self.render_component(component)),
        );
        rendered.extend(self.examples());
        rendered
    }

    /// Renders the examples that have the gateway's pods. Each example is an overlay.
    fn examples(&self) -> impl Iterator<Item = Rendered> {
        let all = folders("k8s/examples").into_iter();
        let rendered = all.map(|name| self.render(&format!("examples/{name}")));
        rendered.filter(|rendered| rendered.of_kind("Deployment").next().is_some())
    }

    /// Renders every overlay.
    pub(super) fn overlays(&self) -> Vec<Rendered> {
        OVERLAYS.map(|overlay| self.render(overlay)).into()
    }
}

/// The names of the components.
pub(super) fn components() -> Vec<String> {
    folders("k8s/components")
}

/// The names of a folder's entries.
pub(super) fn folders(path: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(repository(path))
        .expect("the folder exists")
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("the folder can be read") {
        let path = entry.expect("the entry can be read").path();
        let target = to.join(path.file_name().expect("an entry has a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("the file can be copied");
        }
    }
}

/// The manifests that a folder renders.
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

    /// The object with this kind and name.
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
        // The ConfigMap is not found by its name, because the name may end in a hash.
        self.of_kind("ConfigMap")
            .find_map(|map| map["data"]["curfew.toml"].as_str())
            .unwrap_or_else(|| panic!("{} has no curfew.toml", self.folder))
    }

    /// The environment of the gateway's container: for each variable, its value or the pod's field
    /// that supplies the value.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let Some(variables) = self.container()["env"].as_array() else {
            return Vec::new();
        };
        let text = |value: &'_ Value| value.as_str().map(str::to_owned);
        let variables = variables.iter();
        variables
            .map(|variable| {
                let name = text(&variable["name"]).expect("a name");
                let field = text(&variable["valueFrom"]["fieldRef"]["fieldPath"]);
                (name, text(&variable["value"]).or(field).expect("a value"))
            })
            .collect()
    }
}

/// The items of a list, which must exist.
#[track_caller]
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

/// True if `labels` has every label in `selector`, and `selector` is not empty.
pub(super) fn selects(selector: &Value, labels: &Value) -> bool {
    let selector = selector.as_object().expect("a selector");
    !selector.is_empty() && selector.iter().all(|(key, value)| labels[key] == *value)
}
