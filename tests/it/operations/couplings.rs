//! Numbers and names that must agree between manifests, configuration and code.

use std::time::Duration;

use serde_json::Value;

use super::configuration::{duration, effective};
use super::manifests::{Manifests, components, list, selects};
use super::tools::{text_of, yaml_file};

/// What comes after the window: five seconds for the last closes and records, three for leaving the
/// backend, one for the last spans and one for what still runs.
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
            "refuses before the probe has noticed"
        );
    }
}

#[test]
fn a_drain_is_over_before_systemd_and_compose_kill() {
    // As the files have them; that they are accepted is tested elsewhere.
    let seconds = |text: &str, key: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let digits: String = line
            .unwrap_or_else(|| panic!("no {key}"))
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
            "no Service leads to the admin listener"
        );
        assert_eq!(ports[0]["appProtocol"], "kubernetes.io/ws");
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
                let deployment = rendered.object("Deployment", target.as_str().unwrap());
                assert!(deployment["spec"]["replicas"].is_null(), "it is scaled");
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
