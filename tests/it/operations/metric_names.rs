//! Every metric that alerts, dashboard, scalers and guides name exists, with the labels that they
//! name.

use std::collections::{BTreeMap, BTreeSet};

use curfew_tests::Gateway;
use serde_json::Value;

use super::manifests::{Manifests, list};
use super::tools::{text_of, yaml_file};

/// Suffixes of the series of a histogram.
const OF_HISTOGRAMS: [&str; 3] = ["_bucket", "_sum", "_count"];

/// The values of each label of each metric. The labels `job` and `instance` come from a scrape, and
/// are not listed.
type Series = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

async fn series() -> Series {
    let gateway = Gateway::start_default().await;
    let mut found = Series::new();
    for line in gateway.metrics().await.lines() {
        if line.starts_with('#') {
            continue;
        }
        let (name, rest) = line.split_at(line.find(['{', ' ']).expect("a series has a value"));
        let labels = found.entry(name.to_owned()).or_default();
        let inside = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        for pair in inside.map_or("", |(inside, _)| inside).split(',') {
            if let Some((label, value)) = pair.split_once('=') {
                let values = labels.entry(label.to_owned()).or_default();
                values.insert(value.trim_matches('"').to_owned());
            }
        }
    }
    found
}

/// The metrics that an expression names.
fn named(expression: &str) -> BTreeSet<&str> {
    expression
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("curfew_") || word.starts_with("process_"))
        .collect()
}

/// Every `label=~"a|b"` in an expression, with the name of its metric.
fn matchers(expression: &str) -> Vec<(&str, &str, Vec<&str>)> {
    let mut found = Vec::new();
    for (at, _) in expression.match_indices('{') {
        let before = &expression[..at];
        let start = before
            .rfind(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .map_or(0, |at| at + 1);
        let metric = &before[start..];
        let Some((inside, _)) = expression[at + 1..].split_once('}') else {
            continue;
        };
        for pair in inside.split(',') {
            if let Some((label, value)) = pair.split_once('=') {
                let value = value.trim_start_matches('~').trim_matches('"');
                found.push((metric, label.trim(), value.split('|').collect()));
            }
        }
    }
    found
}

/// Fails unless the binary has every metric, label and value that an expression names.
fn assert_there(series: &Series, expression: &str) {
    for name in named(expression) {
        assert!(
            series.contains_key(name),
            "the binary has no metric {name}: {expression}"
        );
        let histogram = OF_HISTOGRAMS.iter().any(|ending| name.ends_with(ending));
        assert!(
            histogram || name.ends_with("_total") || !series.contains_key(&format!("{name}_total")),
            "{name} is a counter, whose name ends in _total: {expression}"
        );
    }
    for (metric, label, values) in matchers(expression) {
        if ["job", "instance"].contains(&label) || metric == "up" {
            continue;
        }
        let known = series.get(metric).and_then(|labels| labels.get(label));
        let known = known.unwrap_or_else(|| panic!("{metric} has no {label}: {expression}"));
        for value in values {
            assert!(known.contains(value), "{metric} has no {label} {value}");
        }
    }
}

#[tokio::test]
async fn alerts_name_metrics_of_the_binary() {
    let series = series().await;
    let rules = yaml_file("deploy/prometheus/curfew.rules.yml");
    let mut counted = 0;
    for group in list(&rules["groups"]) {
        for rule in list(&group["rules"]) {
            assert_there(&series, rule["expr"].as_str().unwrap());
            counted += 1;
        }
    }
    assert!(counted > 10, "only {counted} rules were checked");
    let trials = yaml_file("deploy/prometheus/curfew.rules.test.yml");
    for trial in list(&trials["tests"]) {
        for input in list(&trial["input_series"]) {
            let input = input["series"].as_str().unwrap();
            if !input.contains("job=\"other\"") && !input.contains("le=") {
                assert_there(&series, input);
            }
        }
    }
}

#[tokio::test]
async fn the_dashboard_names_metrics_of_the_binary() {
    let series = series().await;
    let dashboard: Value =
        serde_json::from_str(&text_of("deploy/grafana/dashboards/curfew.json")).unwrap();
    let mut shown = BTreeSet::new();
    for panel in list(&dashboard["panels"]) {
        if panel["type"] == "row" {
            continue;
        }
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{panel}");
        for target in list(&panel["targets"]) {
            let expression = target["expr"].as_str().unwrap();
            assert_there(&series, expression);
            assert!(!named(expression).is_empty(), "{expression}");
            shown.extend(named(expression).into_iter().map(str::to_owned));
        }
    }
    for annotation in list(&dashboard["annotations"]["list"]) {
        assert_there(&series, annotation["expr"].as_str().unwrap());
    }
    for variable in list(&dashboard["templating"]["list"]) {
        if let Some(query) = variable["query"]["query"].as_str() {
            assert_there(&series, query);
        }
    }
    assert!(shown.len() > 30, "{shown:?}");
}

#[tokio::test]
async fn scalers_name_metrics_of_the_binary() {
    let series = series().await;
    let manifests = Manifests::copy();
    let hpa = manifests.render_component("hpa");
    let hpa = hpa.object("HorizontalPodAutoscaler", "curfew");
    let metrics = list(&hpa["spec"]["metrics"]).iter();
    let pods = metrics.filter_map(|metric| metric["pods"]["metric"]["name"].as_str());
    let names: Vec<&str> = pods.collect();
    assert!(!names.is_empty(), "the autoscaler uses no metric");
    for name in names {
        assert_there(&series, name);
    }
    let keda = manifests.render_component("keda");
    for trigger in list(&keda.object("ScaledObject", "curfew")["spec"]["triggers"]) {
        let query = trigger["metadata"]["query"].as_str().unwrap();
        assert!(!named(query).is_empty(), "{query}");
        assert_there(&series, query);
    }
}

#[tokio::test]
async fn the_guides_name_metrics_of_the_binary() {
    let series = series().await;
    for path in ["deploy/README.md", "k8s/README.md"] {
        let text = text_of(path);
        for quoted in text.split('`').skip(1).step_by(2) {
            let histogram = series.contains_key(&format!("{quoted}_bucket"));
            if quoted.starts_with("curfew_") && !histogram {
                assert_there(&series, quoted);
            }
        }
    }
}
