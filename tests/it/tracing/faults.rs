//! Collectors that are missing, hang or send malformed answers, and clients that send a malformed
//! trace context.

use std::time::{Duration, Instant};

use curfew_testkit::mint::Key;
use curfew_tests::{Gateway, Settings};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::collector::{Collector, exporting_to};

/// Deadline for the log line about the end of an outage. The line comes after the end of an export.
const TOLD: Duration = Duration::from_secs(20);

/// Asserts that a node works as usual, counts the spans that it drops, logs the outage once, and
/// stops in time. Returns the hint in the log line.
async fn assert_unharmed(settings: &Settings) -> Option<String> {
    let settings = settings
        .clone()
        .with("telemetry.trace_sample_ratio = 1.0")
        .with("drain.window = \"0s\"")
        .with("drain.accept_grace = \"0s\"");
    let mut node = Gateway::start_with(&settings).await;
    let mut alice = node.subscriber("alice", "room:1").await;
    // The publications make more spans than the queue of spans can hold.
    for n in 0..3000 {
        let began = Instant::now();
        alice
            .send(json!({"type":"publish","channel":"room:1","data":n}))
            .await;
        alice.expect_json(json!({"type":"message","data":n})).await;
        assert!(began.elapsed() < Duration::from_secs(2), "{n}");
    }
    node.until_metric("curfew_trace_spans_dropped_total", |dropped| dropped > 0.0)
        .await;
    assert_eq!(node.metric("curfew_trace_spans_exported_total").await, 0.0);
    let begun = |line: &str| line.contains("\"spans are dropped\"").then_some(());
    node.log().line(TOLD, begun).await.unwrap();
    let told = Instant::now();
    node.terminate();
    assert_eq!(node.exited(Duration::from_secs(10)).await, 0);
    assert!(
        told.elapsed() < Duration::from_secs(5),
        "{:?}",
        told.elapsed()
    );
    // All dropped spans belong to one outage.
    let lines = |message: &str| {
        let entries = node.log().entries();
        let found = entries.iter().filter(|entry| entry["message"] == message);
        found.cloned().collect::<Vec<_>>()
    };
    let begun = lines("spans are dropped");
    assert_eq!(begun.len(), 1, "{begun:?}");
    assert_eq!(begun[0]["level"], "WARN");
    let ended = lines("spans were dropped until the process ended");
    assert_eq!(ended.len(), 1, "{ended:?}");
    assert!(ended[0]["dropped"].as_u64() >= begun[0]["dropped"].as_u64());
    begun[0]["hint"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn a_collector_that_is_not_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    assert_unharmed(&exporting_to(address)).await;
}

#[tokio::test]
async fn a_collector_that_accepts_and_hangs() {
    // The kernel accepts connections, but nothing answers on them.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = exporting_to(listener.local_addr().unwrap());
    assert_unharmed(&settings).await;
}

#[tokio::test]
async fn a_collector_that_answers_rubbish() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            connections.spawn(async move {
                drop(stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhello").await);
                // The collector reads first. Otherwise its close would reset the connection, and
                // the answer would be lost.
                drop(tokio::io::copy(&mut stream, &mut tokio::io::sink()).await);
            });
        }
    });
    // Regression: the log said only "frame with invalid size", which does not help an operator who
    // configured the port of OTLP over HTTP.
    let hint = assert_unharmed(&exporting_to(address)).await.unwrap();
    assert!(hint.contains("4317"), "{hint}");
}

#[tokio::test]
async fn a_malformed_traceparent_is_passed_over() {
    let collector = Collector::start().await;
    let settings = collector
        .settings()
        .with("telemetry.trust_client_traces = true");
    let node = Gateway::start_with(&settings).await;
    let token = Key::default_secret().user("alice");
    let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let zero = good.replace("00f067aa0ba902b7", "0000000000000000");
    for bad in ["", "x", "00--", &good.to_uppercase(), &zero, &good[1..]] {
        let connect = node.ws().bearer(&token).header("traceparent", bad);
        node.connected(connect).await;
    }
    let twice = node
        .ws()
        .bearer(&token)
        .header("traceparent", good)
        .header("traceparent", good);
    let (mut client, _) = node.connected(twice).await;
    for bad in [
        json!("x"),
        json!(7),
        json!(null),
        json!({"a":1}),
        json!(zero),
    ] {
        client
            .send(json!({"type":"publish","id":1,"channel":"room:1","data":1,"traceparent":bad}))
            .await;
        client.expect_json(json!({"type":"ok","id":1})).await;
    }
    // Only the command `publish` may have a `traceparent`.
    client
        .send(json!({"type":"subscribe","id":2,"channel":"room:1","traceparent":good}))
        .await;
    client
        .expect_json(json!({"type":"error","id":2,"code":"bad_request"}))
        .await;
    collector.wait("GET /ws", 7).await;
    for span in collector.wait("curfew.publish", 5).await {
        assert_eq!((span.parent.as_str(), span.links.len()), ("", 1));
    }
    assert!(
        collector
            .spans()
            .iter()
            .all(|span| !span.trace.starts_with("4bf92f"))
    );
}

#[tokio::test]
async fn without_an_endpoint_nothing_is_traced() {
    let settings = Settings::default().with("telemetry.trace_sample_ratio = 1.0");
    let node = Gateway::start_with(&settings).await;
    let mut alice = node.subscriber("alice", "room:1").await;
    node.publish("room:1", json!(1)).await;
    alice.expect_json(json!({"data":1})).await;
    for metric in ["exported", "dropped"] {
        let name = format!("curfew_trace_spans_{metric}_total");
        assert_eq!(node.metric(&name).await, 0.0);
    }
    assert!(!node.log().text().contains("trace_id"));
}
