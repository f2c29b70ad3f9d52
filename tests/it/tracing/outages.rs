//! Outages in which a collector accepts fewer spans than the node records.

use std::time::Duration;

use curfew_tests::{Gateway, eventually, eventually_within};
use serde_json::{Value, json};

use super::collector::Collector;

/// Variables that make the queue of spans and the exports small, so that the queue is soon full.
const FEW: [(&str, &str); 3] = [
    ("OTEL_BSP_MAX_QUEUE_SIZE", "16"),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "16"),
    ("OTEL_BSP_SCHEDULE_DELAY", "0"),
];

/// A time longer than an outage can last after its last dropped span.
const OVER: Duration = Duration::from_secs(20);

fn lines(node: &Gateway, message: &str) -> Vec<Value> {
    let mut entries = node.log().entries();
    entries.retain(|entry| entry["message"] == message);
    entries
}

/// Regression: behind a slow collector, 113,912 of 114,424 spans were dropped, and nothing reported
/// it.
#[tokio::test]
async fn each_outage_of_a_slow_collector_is_told_of_when_it_begins_and_when_it_is_over() {
    let collector = Collector::start().await;
    let node = Gateway::start_with_variables(&collector.settings(), &FEW).await;
    let mut alice = node.user("alice").await;
    for outage in 1..=2 {
        collector.slow_down(Duration::from_millis(500));
        let dropped = async || node.metric("curfew_trace_spans_dropped_total").await;
        let before = dropped().await;
        // The node drops spans, while its exports continue.
        while dropped().await < before + 100.0 {
            for _ in 0..50 {
                alice
                    .send(json!({"type":"publish","id":1,"channel":"room:1","data":1}))
                    .await;
                alice.expect_json(json!({"type":"ok","id":1})).await;
            }
        }
        eventually("a log line about dropped spans", async || {
            (lines(&node, "spans are dropped").len() == outage).then_some(())
        })
        .await;
        collector.slow_down(Duration::ZERO);
        let over = eventually_within(OVER, "the end of the outage", async || {
            alice
                .send(json!({"type":"publish","id":1,"channel":"room:1","data":1}))
                .await;
            alice.expect_json(json!({"type":"ok","id":1})).await;
            let over = lines(&node, "no span is dropped any more");
            (over.len() == outage).then_some(over)
        })
        .await;
        assert_eq!(
            over[outage - 1]["dropped"],
            json!((dropped().await - before) as u64)
        );
        let begun = lines(&node, "spans are dropped");
        assert_eq!(begun.len(), outage, "{begun:?}");
        assert_eq!(begun[outage - 1]["level"], "WARN");
        assert!(begun[outage - 1]["dropped"].as_u64() > Some(0));
        assert!(begun[outage - 1]["reason"].is_string(), "{begun:?}");
    }
}
