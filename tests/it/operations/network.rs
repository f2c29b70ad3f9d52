//! The peers that may connect to the pods, and the peers that the pods may connect to.

use super::configuration::effective;
use super::manifests::{Manifests, Rendered, list};

/// The ports that the gateway's pods may connect to.
fn egress(rendered: &Rendered) -> Vec<u64> {
    let policies = rendered.of_kind("NetworkPolicy");
    let mut ports = Vec::new();
    for policy in policies {
        let labels = &policy["spec"]["podSelector"]["matchLabels"];
        if labels["app.kubernetes.io/name"] != "curfew" {
            continue;
        }
        for rule in policy["spec"]["egress"].as_array().into_iter().flatten() {
            for port in list(&rule["ports"]) {
                ports.extend(port["port"].as_u64());
            }
        }
    }
    ports
}

/// The port of a URL.
fn port(url: &str) -> u64 {
    let (_, port) = url.rsplit_once(':').expect("the URL has a port");
    port.trim_end_matches('/').parse().expect("a number")
}

#[tokio::test]
async fn pods_reach_redis_and_the_collector_and_little_else() {
    for rendered in Manifests::copy().overlays() {
        let config = effective(&rendered).await;
        let open = egress(&rendered);
        let mut needed = vec![
            53,
            port(config["backend"]["redis"]["url"].as_str().unwrap()),
        ];
        if let Some(endpoint) = config["telemetry"]["otlp_endpoint"].as_str() {
            needed.push(port(endpoint));
        }
        for port in &needed {
            assert!(
                open.contains(port),
                "{}: pods cannot connect to {port}, which they need",
                rendered.folder
            );
        }
        for port in &open {
            assert!(
                needed.contains(port),
                "{}: pods can connect to {port}, which they do not need",
                rendered.folder
            );
        }
    }
}

#[test]
fn each_port_of_the_pods_is_open_to_its_own_callers() {
    for rendered in Manifests::copy().everything() {
        let spec = &rendered.object("NetworkPolicy", "curfew")["spec"];
        assert_eq!(list(&spec["policyTypes"]).len(), 2);
        let rules = list(&spec["ingress"]);
        assert_eq!(rules.len(), 2);
        for (rule, (port, label)) in rules.iter().zip([
            ("ws", "curfew.dev/ingress"),
            ("admin", "curfew.dev/monitoring"),
        ]) {
            assert_eq!(rule["ports"][0]["port"], port);
            let from = list(&rule["from"]);
            assert_eq!(from.len(), 1);
            let labels = &from[0]["namespaceSelector"]["matchLabels"];
            assert_eq!(labels[label], "true");
        }
    }
}
