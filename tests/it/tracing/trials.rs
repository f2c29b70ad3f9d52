//! Traces and logs of the configurations that are shipped for trials, with a collector.

use std::fs;

use curfew_testkit::PATIENCE;
use curfew_tests::{Gateway, Settings};
use serde_json::json;

use super::collector::Collector;

/// The configurations that are shipped for trials.
const TRIALS: [&str; 2] = ["deploy/config/compose.toml", "k8s/overlays/dev/curfew.toml"];

/// The tests' settings with the `[telemetry]` settings of the configuration at `path`.
fn settings(path: &str) -> Settings {
    let path = format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"));
    let file = fs::read_to_string(path).unwrap();
    let (_, section) = file.split_once("[telemetry]\n").unwrap();
    let lines = section.lines().filter(|line| line.contains(" = "));
    lines.fold(Settings::default(), |settings, line| {
        settings.with(&format!("telemetry.{line}"))
    })
}

/// The targets of log lines that do not come from Curfew, in the log of a node that has traced a
/// connect and two commands.
async fn others(settings: Settings, collector: &Collector) -> Vec<String> {
    let endpoint = format!("http://{}", collector.address());
    let settings = settings
        .with(&format!("telemetry.otlp_endpoint = \"{endpoint}\""))
        .with("drain.window = \"0s\"")
        .with("drain.accept_grace = \"0s\"");
    let mut node = Gateway::start_with(&settings).await;
    let mut alice = node.subscriber("alice", "room:1").await;
    alice
        .send(json!({"type":"publish","id":1,"channel":"room:1","data":1}))
        .await;
    alice.expect_json(json!({"type":"message","data":1})).await;
    for name in ["GET /ws", "curfew.subscribe", "curfew.publish"] {
        collector.wait(name, 1).await;
    }
    node.terminate();
    assert_eq!(node.exited(PATIENCE).await, 0);
    node.log()
        .line(PATIENCE, |line| line.contains("\"stopped\"").then_some(()))
        .await
        .unwrap();
    let entries = node.log().entries();
    let targets = entries.iter().filter_map(|entry| entry["target"].as_str());
    let others = targets.filter(|target| !target.starts_with("curfew"));
    others.map(str::to_owned).collect()
}

/// Regression: none of 60 operations in a trial was traced, and the log was full of lines from h2,
/// hyper and tower.
#[tokio::test]
async fn a_trial_traces_everything_and_its_log_is_ours() {
    for trial in TRIALS {
        let collector = Collector::start().await;
        assert_eq!(
            others(settings(trial), &collector).await,
            [""; 0],
            "{trial}"
        );
    }
}

#[tokio::test]
async fn what_libraries_say_is_in_the_log_where_it_is_asked_for() {
    let collector = Collector::start().await;
    let settings = Settings::default()
        .with("telemetry.trace_sample_ratio = 1.0")
        .with("telemetry.log_level = \"debug,h2=debug\"");
    let others = others(settings, &collector).await;
    assert!(!others.is_empty());
    assert!(
        others.iter().all(|target| target.starts_with("h2")),
        "{others:?}"
    );
}
