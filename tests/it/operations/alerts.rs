//! The alert rules. Each rule has tests and an explanation. Prometheus and the Prometheus operator
//! get the same rules.

use std::collections::BTreeSet;

use serde_json::Value;

use super::manifests::list;
use super::tools::{repository, run, system_tool, text_of, yaml_file};

const RULES: &str = "deploy/prometheus/curfew.rules.yml";
const TRIALS: &str = "deploy/prometheus/curfew.rules.test.yml";

fn rules() -> Vec<Value> {
    let file = yaml_file(RULES);
    let groups = list(&file["groups"]).iter();
    groups
        .flat_map(|group| list(&group["rules"]).to_vec())
        .collect()
}

#[test]
fn the_rules_do_what_their_trials_say() {
    run(system_tool("promtool")
        .args(["test", "rules"])
        .arg(repository(TRIALS)))
    .content();
}

#[test]
fn every_alert_is_tried_firing_and_silent() {
    let trials = yaml_file(TRIALS);
    let mut tried = BTreeSet::new();
    for trial in list(&trials["tests"]) {
        for test in list(&trial["alert_rule_test"]) {
            let fires = !list(&test["exp_alerts"]).is_empty();
            tried.insert((test["alertname"].as_str().unwrap(), fires));
        }
    }
    for rule in rules() {
        let name = rule["alert"].as_str().unwrap();
        assert!(
            tried.contains(&(name, true)),
            "no test expects that {name} fires"
        );
        assert!(
            tried.contains(&(name, false)),
            "no test expects that {name} is silent"
        );
    }
}

#[test]
fn every_alert_leads_to_what_to_do() {
    let guide = text_of("deploy/README.md");
    let headings: Vec<&str> = guide
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .collect();
    let rules = rules();
    for rule in &rules {
        let name = rule["alert"].as_str().unwrap();
        let url = rule["annotations"]["runbook_url"].as_str().unwrap();
        assert_eq!(url, format!("deploy/README.md#{}", name.to_lowercase()));
        assert!(
            headings.contains(&name),
            "deploy/README.md does not explain {name}"
        );
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(
            ["critical", "warning", "info"].contains(&severity),
            "{name}"
        );
    }
    for heading in headings.iter().filter(|name| name.starts_with("Curfew")) {
        assert!(
            rules.iter().any(|rule| rule["alert"] == *heading),
            "deploy/README.md explains {heading}, which is no alert"
        );
    }
}

#[test]
fn the_operator_of_prometheus_gets_the_same_rules() {
    let object = yaml_file("k8s/components/monitoring/prometheusrule.yaml");
    assert_eq!(object["spec"]["groups"], yaml_file(RULES)["groups"]);
}

#[test]
fn prometheus_accepts_its_configuration() {
    run(system_tool("promtool")
        .args(["check", "config"])
        .arg(repository("deploy/prometheus/prometheus.yml")))
    .content();
}
