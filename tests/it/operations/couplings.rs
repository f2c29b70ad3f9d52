//! Numbers and names that must agree between manifests, configuration and code.

use std::time::Duration;

use serde_json::Value;

use super::configuration::{duration, effective};
use super::manifests::{Manifests, components, list, selects};
use super::tools::{text_of, yaml_file};

/// Time that a node needs after the drain window: five seconds for the last closes and records,
/// three seconds for leaving the backend, one second for the last spans, and one second for other
/// tasks.
const FLUSH: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_drain_is_over_before_kubernetes_kills() {
    for rendered in Manifests::copy().overlays() {
        let drain = &effective(&rendered).await["drain"];
        let pod = rendered.pod();
        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        let stop = &rendered.container()["lifecycle"]["preStop"]["sleep"]["seconds"];
        let (sleep, accept, window) = (
            Duration::from_secs(stop.as_u64().unwrap()),
            duration(&drain["accept_grace"]),
            duration(&drain["window"]),
        );
        assert!(
            sleep + accept + window + FLUSH < Duration::from_secs(grace),
            "{}: {sleep:?} + {accept:?} + {window:?} + {FLUSH:?} is not below {grace} s",
            rendered.folder
        );
        let readiness = &rendered.container()["readinessProbe"];
        let noticed = readiness["periodSeconds"].as_u64().unwrap()
            * readiness["failureThreshold"].as_u64().unwrap();
        assert!(
            Duration::from_secs(noticed) <= sleep + accept,
            "the node refuses clients before the readiness probe has noticed"
        );
    }
}

#[test]
fn a_drain_is_over_before_systemd_and_compose_kill() {
    // Reads the number of seconds after `key`. Another test checks that the times are valid.
    let seconds = |text: &str, key: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let digits: String = line
            .unwrap_or_else(|| panic!("no line begins with {key}"))
            .chars()
            .skip_while(|c| !c.is_ascii_digit())
            .take_while(char::is_ascii_digit)
            .collect();
        digits.parse().unwrap()
    };
    let needed = |path: &str| {
        let text = text_of(path);
        Duration::from_secs(seconds(&text, "accept_grace") + seconds(&text, "window")) + FLUSH
    };
    let unit = text_of("deploy/systemd/curfew.service");
    let patience = Duration::from_secs(seconds(&unit, "TimeoutStopSec="));
    assert!(needed("deploy/config/curfew.toml") < patience);

    let compose = yaml_file("deploy/compose.yaml");
    for node in ["curfew-1", "curfew-2", "curfew-3"] {
        let patience = duration(&compose["services"][node]["stop_grace_period"]);
        assert!(needed("deploy/config/compose.toml") < patience, "{node}");
    }
}

#[test]
fn selectors_select_the_gateway_and_nothing_else() {
    for rendered in Manifests::copy().everything() {
        let deployment = &rendered.object("Deployment", "curfew")["spec"];
        let labels = &deployment["template"]["metadata"]["labels"];
        let mut selectors = vec![
            &deployment["selector"]["matchLabels"],
            &rendered.object("Service", "curfew")["spec"]["selector"],
            &rendered.object("NetworkPolicy", "curfew")["spec"]["podSelector"]["matchLabels"],
        ];
        for kind in ["PodDisruptionBudget", "PodMonitor"] {
            selectors.extend(
                rendered
                    .of_kind(kind)
                    .map(|object| &object["spec"]["selector"]["matchLabels"]),
            );
        }
        let spread = list(&rendered.pod()["topologySpreadConstraints"]).iter();
        selectors.extend(spread.map(|constraint| &constraint["labelSelector"]["matchLabels"]));
        let other: Vec<&Value> = rendered
            .of_kind("Deployment")
            .filter(|object| object["metadata"]["name"] != "curfew")
            .map(|object| &object["spec"]["template"]["metadata"]["labels"])
            .collect();
        for selector in selectors {
            assert!(selects(selector, labels), "{}: {selector}", rendered.folder);
            for labels in &other {
                assert!(!selects(selector, labels), "{selector} selects {labels}");
            }
        }
    }
}

#[test]
fn every_service_selects_pods_that_have_its_port() {
    for rendered in Manifests::copy().everything() {
        for service in rendered.of_kind("Service") {
            let mut selected = rendered.of_kind("Deployment").filter(|deployment| {
                let labels = &deployment["spec"]["template"]["metadata"]["labels"];
                selects(&service["spec"]["selector"], labels)
            });
            let deployment = selected.next().expect("a service has pods");
            let containers = &deployment["spec"]["template"]["spec"]["containers"];
            for port in list(&service["spec"]["ports"]) {
                let ports = list(&list(containers)[0]["ports"]);
                assert!(
                    ports.iter().any(|has| has["name"] == port["targetPort"]),
                    "{service}"
                );
            }
        }
        let ports = &rendered.object("Service", "curfew")["spec"]["ports"];
        assert_eq!(
            list(ports).len(),
            1,
            "a Service leads to the admin listener"
        );
        assert_eq!(ports[0]["appProtocol"], "kubernetes.io/ws");
    }
}

/// Regression: applying the manifests reset the number of pods that the autoscaler had set.
#[test]
fn no_apply_sets_back_how_many_pods_there_are() {
    for rendered in Manifests::copy().everything() {
        let deployment = rendered.object("Deployment", "curfew");
        assert!(
            deployment["spec"]["replicas"].is_null(),
            "{}",
            rendered.folder
        );
    }
}

/// Regression: the API server filled in or left out a value. The applied object then always
/// differed from the stored object, or could not be merged (ports are merged by number and
/// protocol).
#[test]
fn what_is_applied_is_what_is_kept() {
    fn each(value: &Value, within: &str, problems: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    let is_empty = value.as_array().is_some_and(Vec::is_empty);
                    if is_empty && matches!(name.as_str(), "egress" | "ingress") {
                        problems.push(format!("{within}.{name} is empty"));
                    }
                    if name == "fieldRef" && value["apiVersion"].is_null() {
                        problems.push(format!("{within}.fieldRef without an apiVersion"));
                    }
                    for port in value.as_array().into_iter().flatten() {
                        if name == "ports" && port["protocol"].is_null() {
                            problems.push(format!("{within}.ports without a protocol"));
                        }
                    }
                    each(value, &format!("{within}.{name}"), problems);
                }
            }
            Value::Array(elements) => {
                for value in elements {
                    each(value, within, problems);
                }
            }
            _ => {}
        }
    }
    for rendered in Manifests::copy().everything() {
        let mut problems = Vec::new();
        for document in &rendered.documents {
            each(document, &document["kind"].to_string(), &mut problems);
        }
        assert!(problems.is_empty(), "{}: {problems:?}", rendered.folder);
    }
}

/// Regression: objects lacked common labels, so selectors by these labels did not find the objects.
#[test]
fn every_object_says_what_it_is_and_what_it_is_part_of() {
    for rendered in Manifests::copy().everything() {
        for document in &rendered.documents {
            let labels = &document["metadata"]["labels"];
            for label in ["app.kubernetes.io/name", "app.kubernetes.io/part-of"] {
                assert!(
                    labels[label].is_string(),
                    "{}: {} has no {label}",
                    rendered.folder,
                    document["metadata"]["name"]
                );
            }
        }
    }
}

/// Regression: the configuration set no limit on connections, although the machine's memory sets
/// one.
#[tokio::test]
async fn a_pod_accepts_no_more_connections_than_its_memory_holds() {
    /// Memory for each connection, including the memory that the kernel uses for it.
    const EACH: u64 = 16 * 1024;
    const PROCESS: u64 = 64 * 1024 * 1024;
    let rendered = Manifests::copy().render("overlays/production");
    let limits = &effective(&rendered).await["limits"];
    let (connections, waiting) = (&limits["connections"], &limits["node_outbound_bytes"]);
    let needed = connections.as_u64().unwrap() * EACH + waiting.as_u64().unwrap() + PROCESS;
    let memory = &rendered.container()["resources"]["limits"]["memory"];
    assert_eq!(memory, "1Gi");
    assert!(
        connections.as_u64() > Some(0),
        "the configuration sets no limit on connections"
    );
    assert!(
        needed <= 1024 * 1024 * 1024,
        "{needed} bytes are needed, more than the pod's memory"
    );
}

/// Regression: the pods in a list of nodes could not be told apart.
#[tokio::test]
async fn pods_say_which_they_are() {
    for rendered in Manifests::copy().everything() {
        let variables = rendered.environment();
        let value = |name: &str| {
            let mut found = variables.iter();
            let found = found.find(|(known, _)| known == name);
            found
                .unwrap_or_else(|| panic!("the container has no variable {name}"))
                .1
                .clone()
        };
        for (name, field) in [
            ("POD_NAME", "metadata.name"),
            ("POD_IP", "status.podIP"),
            ("NODE_NAME", "spec.nodeName"),
            ("CURFEW__SERVER__NODE_NAME", "$(POD_NAME)"),
            ("CURFEW__SERVER__NODE_ADDRESS", "$(POD_IP)"),
        ] {
            assert_eq!(value(name), field, "{}", rendered.folder);
        }
        let resource = value("OTEL_RESOURCE_ATTRIBUTES");
        for part in ["k8s.pod.name=$(POD_NAME)", "k8s.node.name=$(NODE_NAME)"] {
            assert!(resource.contains(part), "{resource}");
        }
        // A variable can only refer to variables that are defined before it.
        let at = |wanted: &str| variables.iter().position(|(name, _)| name == wanted);
        assert!(at("ZONE") < at("OTEL_RESOURCE_ATTRIBUTES"));
        assert!(at("POD_IP") < at("CURFEW__SERVER__NODE_ADDRESS"));
    }
}

#[test]
fn scalers_and_routes_lead_to_what_is_there() {
    let manifests = Manifests::copy();
    let names = components();
    let rendered: Vec<_> = names
        .iter()
        .map(|component| manifests.render_component(component))
        .collect();
    let mut scalers = 0;
    for rendered in &rendered {
        for kind in ["HorizontalPodAutoscaler", "ScaledObject"] {
            for scaler in rendered.of_kind(kind) {
                scalers += 1;
                let target = &scaler["spec"]["scaleTargetRef"]["name"];
                rendered.object("Deployment", target.as_str().unwrap());
            }
        }
        let port = &rendered.object("Service", "curfew")["spec"]["ports"][0];
        for route in rendered.of_kind("HTTPRoute") {
            let backend = &route["spec"]["rules"][0]["backendRefs"][0];
            assert_eq!(backend["name"], "curfew");
            assert_eq!(backend["port"], port["port"]);
            assert_eq!(route["spec"]["rules"][0]["timeouts"]["request"], "0s");
        }
        for ingress in rendered.of_kind("Ingress") {
            let backend = &ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"];
            assert_eq!(backend["name"], "curfew");
            assert_eq!(backend["port"]["name"], port["name"]);
        }
    }
    assert_eq!(scalers, 2);
}

/// Every path of the public listener, read from the code. A prefix ends with a slash.
pub(super) fn public_paths() -> Vec<String> {
    let code = text_of("crates/curfew-server/src/config/paths.rs");
    let paths: Vec<String> = code
        .lines()
        .filter_map(|line| line.split_once(": &str = \"/"))
        .filter_map(|(_, rest)| rest.strip_suffix("\";"))
        .map(|path| format!("/{path}"))
        .collect();
    assert!(
        paths.len() > 5 && paths.contains(&"/ws".to_owned()),
        "{paths:?}"
    );
    paths
}

#[test]
fn every_public_path_is_let_through() {
    let haproxy = text_of("deploy/haproxy/haproxy.cfg");
    let acl: Vec<&str> = haproxy
        .lines()
        .filter_map(|line| line.trim().strip_prefix("acl public "))
        .flat_map(str::split_whitespace)
        .collect();
    let manifests = Manifests::copy();
    let route = manifests.render_component("gateway");
    let route = route.object("HTTPRoute", "curfew");
    let matches = list(&route["spec"]["rules"][0]["matches"]);
    let ingress = manifests.render_component("ingress-nginx");
    let ingress = ingress.object("Ingress", "curfew");
    let rules = list(&ingress["spec"]["rules"][0]["http"]["paths"]);
    for path in public_paths() {
        assert!(acl.contains(&path.as_str()), "haproxy.cfg: {path}");
        let (bare, exact) = match path.strip_suffix('/') {
            Some(bare) => (bare, false),
            None => (path.as_str(), true),
        };
        let route = if exact { "Exact" } else { "PathPrefix" };
        let routed =
            |found: &&Value| found["path"]["value"] == bare && found["path"]["type"] == route;
        assert!(
            matches.iter().any(|found| routed(&found)),
            "httproute.yaml: {path}"
        );
        let ingress = if exact { "Exact" } else { "Prefix" };
        let ruled = |found: &&Value| {
            found["path"] == bare
                && found["pathType"] == ingress
                && found["backend"]["service"]["name"] == "curfew"
        };
        assert!(
            rules.iter().any(|found| ruled(&found)),
            "ingress.yaml: {path}"
        );
    }
}
