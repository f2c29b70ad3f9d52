//! The compose file, the image and the load balancer, checked as far as this is possible without a
//! container engine.

use serde_json::Value;

use super::manifests::list;
use super::tools::{repository, text_of, yaml_file};

const NODES: [&str; 3] = ["curfew-1", "curfew-2", "curfew-3"];

#[test]
fn everything_that_is_mounted_is_there() {
    let compose = yaml_file("deploy/compose.yaml");
    for (name, service) in compose["services"].as_object().unwrap() {
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let source = volume.as_str().unwrap().split(':').next().unwrap();
            let known = match source.strip_prefix("./") {
                Some(path) => repository("deploy").join(path).exists(),
                None => compose["volumes"].as_object().unwrap().contains_key(source),
            };
            assert!(known, "{name}: {source}");
        }
        for secret in service["secrets"].as_array().into_iter().flatten() {
            let secret = secret.as_str().unwrap();
            assert!(compose["secrets"][secret].is_object(), "{name}: {secret}");
        }
        for port in service["ports"].as_array().into_iter().flatten() {
            let port = port.as_str().unwrap();
            assert!(
                port.starts_with("127.0.0.1:"),
                "{name} listens on all addresses: {port}"
            );
        }
        for other in service["depends_on"].as_array().into_iter().flatten() {
            assert!(compose["services"][other.as_str().unwrap()].is_object());
        }
    }
}

#[test]
fn every_node_is_balanced_and_scraped() {
    let compose = yaml_file("deploy/compose.yaml");
    let balanced: Vec<String> = servers().collect();
    let prometheus = yaml_file("deploy/prometheus/prometheus.yml");
    let scraped = &prometheus["scrape_configs"][0]["static_configs"][0]["targets"];
    assert_eq!(balanced.len(), NODES.len());
    assert_eq!(list(scraped).len(), NODES.len());
    for node in NODES {
        assert!(compose["services"][node].is_object(), "{node}");
        assert!(balanced.contains(&format!("{node}:8080")), "{balanced:?}");
        let target = Value::from(format!("{node}:9090"));
        assert!(list(scraped).contains(&target), "{scraped}");
    }
}

/// The addresses of the nodes in the load balancer's configuration.
fn servers() -> impl Iterator<Item = String> {
    let text = text_of("deploy/haproxy/haproxy.cfg");
    let servers: Vec<String> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("server "))
        .map(|line| line.split_whitespace().nth(1).unwrap().to_owned())
        .collect();
    servers.into_iter()
}

#[test]
fn the_load_balancer_leaves_sessions_alone_and_asks_for_readiness() {
    let text = text_of("deploy/haproxy/haproxy.cfg");
    for line in [
        "balance leastconn",
        "timeout tunnel 1h",
        "option httpchk GET /readyz",
    ] {
        assert!(
            text.lines().any(|has| has.trim() == line),
            "haproxy.cfg lacks {line:?}"
        );
    }
    assert!(
        text.contains("check port 9090"),
        "haproxy.cfg does not check the admin listener"
    );
}

#[test]
fn grafana_finds_its_data_and_its_dashboard() {
    let sources = yaml_file("deploy/grafana/provisioning/datasources/prometheus.yml");
    let compose = yaml_file("deploy/compose.yaml");
    for source in list(&sources["datasources"]) {
        let url = source["url"].as_str().unwrap();
        let host = url.trim_start_matches("http://").split(':').next().unwrap();
        assert!(compose["services"][host].is_object(), "{url}");
    }
    let provider = yaml_file("deploy/grafana/provisioning/dashboards/curfew.yml");
    let path = provider["providers"][0]["options"]["path"]
        .as_str()
        .unwrap();
    let mounts = list(&compose["services"]["grafana"]["volumes"]);
    let mount = Value::from(format!("./grafana/dashboards:{path}:ro"));
    assert!(mounts.contains(&mount), "{mounts:?}");
}

#[test]
fn the_image_is_empty_but_for_the_binary_and_runs_as_nobody() {
    let dockerfile = text_of("deploy/Dockerfile");
    let last = dockerfile.lines().rfind(|line| line.starts_with("FROM "));
    assert_eq!(last, Some("FROM scratch"));
    for line in [
        "USER 65532:65532",
        "ENTRYPOINT [\"/curfew\"]",
        "CMD [\"serve\", \"--config\", \"/etc/curfew/curfew.toml\"]",
    ] {
        assert!(dockerfile.lines().any(|has| has == line), "{line}");
    }
    assert!(
        dockerfile.contains("+crt-static"),
        "the binary is not linked statically, so the image lacks its libraries"
    );
}

#[test]
fn the_build_gets_what_it_reads_and_no_secrets() {
    let ignored = text_of("deploy/Dockerfile.dockerignore");
    let lines: Vec<&str> = ignored
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    assert_eq!(
        lines[0], "*",
        ".dockerignore does not exclude every file by default"
    );
    for needed in [
        ".cargo",
        "Cargo.toml",
        "Cargo.lock",
        "crates",
        "tests",
        "benches",
    ] {
        assert!(lines.contains(&format!("!{needed}").as_str()), "{needed}");
        assert!(repository(needed).exists(), "{needed}");
    }
    assert!(!ignored.contains("!deploy") && !ignored.contains("!k8s"));
}
