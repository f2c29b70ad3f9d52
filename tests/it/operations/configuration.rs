//! The shipped configurations, as the binary reads them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use curfew_testkit::http;
use curfew_testkit::mint::{Key, SECRET, jwks};
use curfew_tests::{ADMIN_KEY, Finished, Gateway, curfew_with};
use serde_json::Value;
use tempfile::TempDir;

use super::manifests::{Manifests, Rendered, list};
use super::tools::text_of;

/// Folder in which pods mount their Secrets.
const MOUNTED: &str = "/var/run/secrets/curfew";

/// A folder with the configuration of an overlay, and with its secrets in the paths of its volumes.
fn laid_out(rendered: &Rendered) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for volume in list(&rendered.pod()["volumes"]) {
        let Some(name) = volume["secret"]["secretName"].as_str() else {
            continue;
        };
        let mounts = list(&rendered.container()["volumeMounts"]).iter();
        let mount = mounts
            .clone()
            .find(|mount| mount["name"] == volume["name"])
            .unwrap_or_else(|| panic!("{name} is not mounted"));
        let path = mount["mountPath"].as_str().unwrap();
        let below = path
            .strip_prefix(MOUNTED)
            .expect("secrets are mounted below one folder");
        let target = folder.path().join(below.trim_start_matches('/'));
        std::fs::create_dir_all(&target).unwrap();
        let secret = rendered.object("Secret", name);
        for (key, value) in secret["stringData"].as_object().unwrap() {
            std::fs::write(target.join(key), value.as_str().unwrap()).unwrap();
        }
    }
    let config = rendered
        .config()
        .replace(MOUNTED, folder.path().to_str().unwrap());
    std::fs::write(folder.path().join("curfew.toml"), config).unwrap();
    folder
}

async fn command(name: &str, folder: &Path, environment: &[(String, String)]) -> Finished {
    let environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let file = folder.join("curfew.toml");
    let arguments = [name, "--json", "--config", file.to_str().unwrap()];
    let arguments = if name == "check-config" {
        vec![arguments[0], arguments[2], arguments[3]]
    } else {
        arguments.to_vec()
    };
    curfew_with(&arguments, &environment).await
}

/// The configuration that is in force in the pods of an overlay.
pub(super) async fn effective(rendered: &Rendered) -> Value {
    let folder = laid_out(rendered);
    let printed = command("print-config", folder.path(), &rendered.environment()).await;
    serde_json::from_str(&printed.stdout).unwrap_or_else(|error| panic!("{error}: {printed:?}"))
}

/// Parses a duration that the binary has printed, such as `1m 30s`.
pub(super) fn duration(value: &Value) -> Duration {
    let text = value.as_str().expect("a duration is a text");
    let part = |part: &str| {
        let digits = part.find(|c: char| !c.is_ascii_digit()).expect("a unit");
        let (number, unit) = part.split_at(digits);
        let number: u64 = number.parse().expect("a number");
        match unit {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(number * 60),
            "h" => Duration::from_secs(number * 3600),
            _ => panic!("{text} has an unknown unit"),
        }
    };
    text.split(' ').map(part).sum()
}

#[tokio::test]
async fn the_configuration_of_every_overlay_is_accepted() {
    for rendered in Manifests::copy().overlays() {
        let folder = laid_out(&rendered);
        let checked = command("check-config", folder.path(), &rendered.environment()).await;
        assert_eq!(checked.code, 0, "{}: {checked:?}", rendered.folder);
    }
}

/// A gateway with the configuration of these manifests, but on free ports and without Redis.
async fn started(rendered: &Rendered) -> Gateway {
    let folder = laid_out(rendered);
    let text = std::fs::read_to_string(folder.path().join("curfew.toml")).unwrap();
    let text = text
        .replace("0.0.0.0:8080", "127.0.0.1:0")
        .replace("0.0.0.0:9090", "127.0.0.1:0")
        .replace(
            "[backend.redis]",
            "[backend]\nkind = \"memory\"\n[backend.redis]",
        );
    Gateway::start_in(folder, &text).await
}

#[tokio::test]
async fn the_configuration_of_the_base_is_accepted() {
    let manifests = Manifests::copy();
    // The base has no secrets of its own, so the test uses the secrets of production.
    let production = manifests.render("overlays/production");
    let folder = laid_out(&production);
    let base = manifests.render("base");
    let config = base
        .config()
        .replace(MOUNTED, folder.path().to_str().unwrap());
    std::fs::write(folder.path().join("curfew.toml"), config).unwrap();
    let checked = command("check-config", folder.path(), &[]).await;
    assert_eq!(checked.code, 0, "{checked:?}");
}

#[tokio::test]
async fn the_examples_of_deploy_are_accepted() {
    for (path, secrets) in [
        ("deploy/config/curfew.toml", "/etc/curfew"),
        ("deploy/config/compose.toml", "/run/secrets"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().to_str().unwrap();
        for (name, content) in [
            ("admin-key", ADMIN_KEY),
            ("token-secret", SECRET),
            ("redis-password", "password"),
        ] {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        let config = text_of(path).replace(&format!("\"{secrets}/"), &format!("\"{here}/"));
        assert!(
            config.contains(here),
            "{path} does not name a file with a secret"
        );
        std::fs::write(folder.path().join("curfew.toml"), config).unwrap();
        let checked = command("check-config", folder.path(), &[]).await;
        assert_eq!(checked.code, 0, "{path}: {checked:?}");
    }
}

#[tokio::test]
async fn the_paths_and_ports_that_manifests_name_are_there() {
    let manifests = Manifests::copy();
    let rendered = manifests.render("overlays/production");
    let config = effective(&rendered).await;
    let ports: BTreeMap<&str, u64> = list(&rendered.container()["ports"])
        .iter()
        .map(|port| {
            let number = port["containerPort"].as_u64().unwrap();
            (port["name"].as_str().unwrap(), number)
        })
        .collect();
    for (name, section) in [("ws", "server"), ("admin", "admin")] {
        let listen = config[section]["listen"].as_str().unwrap();
        assert_eq!(listen, format!("0.0.0.0:{}", ports[name]), "{section}");
    }

    let gateway = started(&rendered).await;

    let container = rendered.container();
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let get = &container[probe]["httpGet"];
        assert_eq!(get["port"], "admin", "{probe}");
        let path = get["path"].as_str().unwrap();
        let answer = http::request(gateway.admin_address(), "GET", path, &[], b"").await;
        assert_eq!(answer.status, 200, "{probe} {path}");
    }
    let monitoring = manifests.render_component("monitoring");
    let monitor = monitoring.object("PodMonitor", "curfew");
    for endpoint in list(&monitor["spec"]["podMetricsEndpoints"]) {
        assert_eq!(endpoint["port"], "admin");
        let path = endpoint["path"].as_str().unwrap();
        let answer = http::request(gateway.admin_address(), "GET", path, &[], b"").await;
        assert_eq!(answer.status, 200, "{path}");
    }
    let gateway_api = manifests.render_component("gateway");
    let route = gateway_api.object("HTTPRoute", "curfew");
    let ingress = manifests.render_component("ingress-nginx");
    let ingress = ingress.object("Ingress", "curfew");
    for path in [
        &route["spec"]["rules"][0]["matches"][0]["path"]["value"],
        &ingress["spec"]["rules"][0]["http"]["paths"][0]["path"],
    ] {
        let path = path.as_str().unwrap();
        let answer = http::request(gateway.address(), "GET", path, &[], b"").await;
        assert_eq!(answer.status, 426, "{path} is not the endpoint");
    }
}

#[tokio::test]
async fn keys_that_a_secret_brings_later_are_taken_up() {
    let manifests = Manifests::copy();
    let rendered = manifests.render("overlays/production");
    let gateway = started(&rendered).await;
    gateway.until_metric("curfew_jwt_keys", |n| n == 1.0).await;
    let (old, new) = (
        Key::generate("ES256").with_kid("2026-11"),
        Key::generate("ES256").with_kid("2026-12"),
    );
    gateway.write("keys/jwks.json", &jwks(&[&old, &new]));
    gateway.until_metric("curfew_jwt_keys", |n| n == 2.0).await;
}
