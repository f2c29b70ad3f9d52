//! The standard variables of OpenTelemetry, and the settings that they replace.

use std::fs;

use curfew_tests::{Gateway, Settings, curfew_with};
use serde_json::json;

use super::collector::Collector;

/// The rows of the reference's table of variables: the name, the values and the effect.
fn documented() -> Vec<[String; 3]> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/curfew/CONFIG.md");
    let page = fs::read_to_string(path).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `OTEL_"));
    rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        [cells[0], cells[1], cells[2]].map(|cell| cell.trim_matches('`').to_owned())
    })
    .collect()
}

/// The exit code and the output of `check-config` with these variables.
async fn checked(settings: &Settings, variables: &[(&str, &str)]) -> (i32, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("curfew.toml");
    fs::write(&file, settings.to_toml()).unwrap();
    let finished = curfew_with(
        &["check-config", "--config", file.to_str().unwrap()],
        variables,
    )
    .await;
    (finished.code, finished.stdout + &finished.stderr)
}

/// Regression: variables that have no effect were ignored, and nothing reported it.
#[tokio::test]
async fn every_variable_of_the_table_is_known_and_refused_when_it_makes_no_sense() {
    let rows = documented();
    assert!(rows.len() > 30, "{rows:?}");
    for [name, takes, _] in &rows {
        let (code, told) = checked(&Settings::default(), &[(name, "\u{7f}canary")]).await;
        if takes == "text" {
            assert_eq!(code, 0, "{name}: {told}");
            continue;
        }
        assert_eq!(code, 2, "{name}: {told}");
        assert!(told.contains(name.as_str()), "{name}: {told}");
        assert!(!told.contains("canary"), "{name}: {told}");
    }
    let (code, told) = checked(&Settings::default(), &[("OTEL_LOG_LEVEL", "debug")]).await;
    assert_eq!(code, 0);
    assert!(told.contains("OTEL_LOG_LEVEL: is not supported"), "{told}");
}

/// Regression: `http://127.0.0.1:43a7` counted as valid, and the port of OTLP over HTTP caused no
/// warning.
#[tokio::test]
async fn an_endpoint_that_cannot_work_is_refused_with_what_to_write() {
    for (endpoint, code, expect) in [
        ("http://127.0.0.1:43a7", 2, "as in http://127.0.0.1:4317"),
        ("http://jaeger", 2, "as in http://jaeger:4317"),
        (
            "http://jaeger:4318/v1/traces",
            2,
            "as in http://jaeger:4317",
        ),
        ("http://jaeger:4318", 0, "whose usual port is 4317"),
        ("http://jaeger:4317", 0, "the configuration is valid\n"),
    ] {
        let setting = format!("telemetry.otlp_endpoint = \"{endpoint}\"");
        let (found, told) = checked(&Settings::default().with(&setting), &[]).await;
        assert_eq!(found, code, "{endpoint}: {told}");
        assert!(told.contains(expect), "{endpoint}: {told}");
        // The standard variable gives the same result, and the text then names the variable.
        let variables = [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint)];
        let (found, told) = checked(&Settings::default(), &variables).await;
        assert_eq!(found, code, "{endpoint}: {told}");
        assert!(told.contains(expect), "{endpoint}: {told}");
        if !told.starts_with("the configuration is valid") {
            assert!(told.contains(variables[0].0), "{endpoint}: {told}");
        }
    }
}

#[tokio::test]
async fn a_node_is_set_up_by_standard_variables_alone() {
    let collector = Collector::start().await;
    let endpoint = format!("http://{}", collector.address());
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.0"),
        ("OTEL_SERVICE_NAME", "gateway"),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "deployment.environment.name=a%2Cb,service.version=7,service.instance.id=pod-1",
        ),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=tenant%20canary"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_PROPAGATORS", "tracecontext,baggage"),
    ];
    let node = Gateway::start_with_variables(&Settings::default(), &variables).await;
    node.user("alice").await;
    let span = collector.wait("GET /ws", 1).await.remove(0);
    for (name, value) in [
        ("service.name", "gateway"),
        ("deployment.environment.name", "a,b"),
        ("service.version", "7"),
        ("service.instance.id", "pod-1"),
        ("curfew.node.id", &*node.id().await),
    ] {
        assert_eq!(span.resource[name], value, "{name}");
    }
    assert_eq!(
        collector.header("x-tenant").as_deref(),
        Some("tenant canary")
    );
    // The value of a header is a secret, so the log does not have it.
    assert!(!node.log().text().contains("canary"));
    let printed = curfew_with(
        &[
            "print-config",
            "--config",
            node.config_path().to_str().unwrap(),
        ],
        &variables,
    )
    .await;
    assert!(!printed.stdout.contains("canary"));
    let expect = format!("otlp_endpoint = \"{endpoint}\"  # OTEL_EXPORTER_OTLP_ENDPOINT\n");
    assert!(printed.stdout.contains(&expect), "{}", printed.stdout);
    // A variable that has only a part of its effect causes a warning.
    let warned = node.log().entries();
    assert!(
        warned
            .iter()
            .any(|entry| entry["source"] == "OTEL_PROPAGATORS" && entry["level"] == "WARN")
    );
}

#[tokio::test]
async fn settings_of_ours_win_and_the_service_is_curfew() {
    let (ours, theirs) = (Collector::start().await, Collector::start().await);
    let endpoint = format!("http://{}", theirs.address());
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_TRACES_SAMPLER", "always_off"),
    ];
    let node = Gateway::start_with_variables(&ours.settings(), &variables).await;
    node.user("alice").await;
    let span = ours.wait("GET /ws", 1).await.remove(0);
    assert_eq!(span.resource["service.name"], "curfew");
    assert_eq!(span.resource["service.instance.id"], node.id().await);
    assert_eq!(theirs.spans().len(), 0);
}

#[tokio::test]
async fn traces_can_be_switched_off_whatever_else_is_set() {
    let collector = Collector::start().await;
    for variable in [
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_TRACES_EXPORTER", "none"),
    ] {
        let node = Gateway::start_with_variables(&collector.settings(), &[variable]).await;
        let mut alice = node.subscriber("alice", "room:1").await;
        node.publish("room:1", json!(1)).await;
        alice.expect_json(json!({"data":1})).await;
        // If a span were recorded, its trace would be named in the log.
        assert!(!node.log().text().contains("trace_id"), "{variable:?}");
    }
    assert_eq!(collector.spans().len(), 0);
}

/// Regression: a sampler or a service name without an endpoint was accepted, but nothing was
/// exported.
#[tokio::test]
async fn without_an_endpoint_the_others_are_said_to_do_nothing() {
    let variables = [("OTEL_SERVICE_NAME", "gateway")];
    let (code, told) = checked(&Settings::default(), &variables).await;
    assert_eq!(code, 0);
    assert!(told.contains("OTEL_SERVICE_NAME: has no effect"), "{told}");
}
