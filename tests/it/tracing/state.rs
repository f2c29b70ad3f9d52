//! `tracestate`: data that the participants of a trace pass to each other.

use curfew_testkit::http;
use curfew_testkit::mint::Key;
use curfew_tests::{ADMIN_KEY, Cluster, Gateway, Redis};
use serde_json::json;

use super::collector::Collector;

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const STATE: &str = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE";

/// Regression: nodes did not read `tracestate`, so it was lost when a trace passed through a node.
#[tokio::test]
async fn tracestate_passes_to_every_node_and_to_the_collector_where_a_trace_is_joined() {
    let (redis, collector) = (Redis::start().await, Collector::start().await);
    let settings = collector
        .settings()
        .with("telemetry.trust_client_traces = true");
    let cluster = Cluster::start(2, &redis.url(), &settings).await;
    let mut bob = cluster[1].subscriber("bob", "room:1").await;
    let connect = cluster[0]
        .ws()
        .bearer(&Key::default_secret().user("alice"))
        .header("traceparent", TRACEPARENT)
        .header("tracestate", "rojo=00f067aa0ba902b7")
        .header("tracestate", "congo=t61rcWkgMzE");
    let (mut alice, _) = cluster[0].connected(connect).await;
    // Each command has its own `tracestate`. A `tracestate` that is not valid counts as absent.
    for (n, state) in [json!(STATE), json!("no state"), json!(7)]
        .iter()
        .enumerate()
    {
        let publish = json!({
            "type": "publish", "id": n, "channel": "room:1", "data": n,
            "traceparent": TRACEPARENT, "tracestate": state,
        });
        alice.send(publish).await;
        alice.expect_json(json!({"type":"ok","id":n})).await;
        bob.expect_json(json!({"type":"message","data":n})).await;
    }
    let bearer = format!("Bearer {ADMIN_KEY}");
    let headers = [
        ("Authorization", bearer.as_str()),
        ("traceparent", TRACEPARENT),
        ("tracestate", STATE),
    ];
    let body = json!({"kind":"user","value":"bob"}).to_string();
    let (admin, path) = (cluster[0].admin_address(), "/v1/revocations");
    let receipt = http::request(admin, "POST", path, &headers, body.as_bytes()).await;
    assert_eq!(receipt.json()["closed"], 1, "{}", receipt.text());

    // The `tracestate` passes from the call through Redis to the other node.
    for name in ["POST /v1/revocations", "revocation apply"] {
        let span = collector.wait(name, 1).await.remove(0);
        assert_eq!((&*span.trace, &*span.state), (&TRACEPARENT[3..35], STATE));
    }
    for name in ["curfew.publish", "publish", "process", "deliver"] {
        let spans = collector.wait(name, 3).await;
        let mut states: Vec<&str> = spans.iter().map(|span| &*span.state).collect();
        states.sort_unstable();
        assert_eq!(states, ["", "", STATE], "{name}");
    }
    let upgrades = collector.named("GET /ws");
    let joined = upgrades.iter().filter(|span| span.state == STATE);
    assert_eq!(joined.count(), 1, "{upgrades:#?}");
}

#[tokio::test]
async fn tracestate_of_a_client_that_is_not_trusted_is_not_kept() {
    let collector = Collector::start().await;
    let node = Gateway::start_with(&collector.settings()).await;
    let connect = node
        .ws()
        .bearer(&Key::default_secret().user("alice"))
        .header("traceparent", TRACEPARENT)
        .header("tracestate", "canary=1");
    node.connected(connect).await;
    let upgrade = collector.wait("GET /ws", 1).await.remove(0);
    assert_eq!(upgrade.links_traces, [&TRACEPARENT[3..35]]);
    assert!(!upgrade.text.contains("canary"), "{}", upgrade.text);
}
