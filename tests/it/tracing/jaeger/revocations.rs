//! The traces of revocations: the nodes that have confirmed a revocation, and the nodes that have
//! not.

use std::collections::BTreeSet;

use curfew_tests::{Cluster, Redis, revocation_key};
use serde_json::{Value, json};

use super::{Jaeger, Span};

fn nodes(spans: &[Span]) -> BTreeSet<&str> {
    spans.iter().map(|span| span.node.as_str()).collect()
}

/// Regression: the node that took the call waited three seconds for another node, which did not
/// answer. The trace had no span for this time, no error, and no name of the other node.
#[tokio::test]
async fn a_revocation_that_a_node_does_not_confirm_names_the_node() {
    let (redis, jaeger) = (Redis::start().await, Jaeger::start().await);
    let cluster = Cluster::start(2, &redis.url(), &jaeger.rarely()).await;
    let ids = [cluster[0].id().await, cluster[1].id().await];
    let mut alice = cluster[0].user("alice").await;
    cluster[1].freeze().await;
    let body = json!({"kind":"user","value":"alice"});
    let (status, receipt) = cluster[0]
        .admin("POST", "/v1/revocations", Some(body))
        .await;
    cluster[1].thaw();
    alice.expect_close(4403, "revoked").await;
    assert_eq!(status, 202, "{receipt}");
    assert_eq!(receipt["nodes"]["missing"], json!([ids[1]]));

    let call = jaeger.span("POST /v1/revocations", &[]).await;
    let wait = jaeger.span("await confirmations", &[]).await;
    assert_eq!(wait.parent.as_ref(), Some(&call.id));
    assert_eq!(wait.kind(), "internal");
    for span in [&call, &wait] {
        span.assert_failed("unconfirmed");
        for (key, value) in [
            ("curfew.nodes.live", "2"),
            ("curfew.nodes.confirmed", "1"),
            ("curfew.nodes.missing", &ids[1]),
        ] {
            assert_eq!(span.tag(key), value, "{span:#?}");
        }
        assert!(!span.text.contains("alice"), "{}", span.text);
    }
    // The trace shows the wait, which takes more than half of the call's time.
    assert!(
        wait.took_micros * 2 > call.took_micros,
        "{wait:#?} {call:#?}"
    );

    let logged = cluster[0].log().entries();
    let warned = |entry: &&Value| {
        entry["message"] == "a revocation is not confirmed by every node"
            && entry["level"] == "WARN"
    };
    let warned = logged.iter().find(warned).unwrap();
    assert_eq!(warned["trace_id"], call.trace.as_str());
    assert_eq!(warned["missing"], ids[1].as_str());
    let key = warned["revocation"].as_str().unwrap();
    assert!(key.starts_with("user:~"), "{key}");
    assert!(warned.get("user").is_none());
}

/// Regression: a node that had no session to close looked like a node that had not received the
/// revocation.
#[tokio::test]
async fn a_node_that_closes_nobody_says_so() {
    let (redis, jaeger) = (Redis::start().await, Jaeger::start().await);
    let settings = jaeger.rarely().with("telemetry.trace_user_ids = true");
    let cluster = Cluster::start(3, &redis.url(), &settings).await;
    let mut alice = cluster[0].user("alice").await;
    let mut bob = cluster[1].user("bob").await;

    let receipt = cluster[1]
        .revoke(json!({"kind":"user","value":"alice"}))
        .await;
    assert_eq!(receipt["closed"], 1, "{receipt}");
    alice.expect_close(4403, "revoked").await;
    let call = jaeger.span("POST /v1/revocations", &[]).await;
    assert_eq!(call.tag("curfew.nodes.confirmed"), "3");
    assert_eq!(call.tag("curfew.nodes.missing"), "");
    assert_eq!(call.tag("user.id"), "alice");
    assert!(!call.tags.contains_key("error.type"), "{call:#?}");
    let applied = jaeger.spans("revocation apply", &[], 3).await;
    assert_eq!(nodes(&applied).len(), 3);
    for span in &applied {
        assert_eq!(span.trace, call.trace);
        assert_eq!(span.parent.as_ref(), Some(&call.id));
    }
    let none = [("curfew.sessions.closed", "0")];
    assert_eq!(jaeger.spans("revocation apply", &none, 2).await.len(), 2);

    // A bare key has no trace, so each node that receives the revocation begins a trace.
    let key = revocation_key("user", "bob");
    redis.run(&["SET", &key, "1", "EX", "600"]).await;
    bob.expect_close(4403, "revoked").await;
    let of_bob = [("user.id", "bob")];
    let applied = jaeger.spans("revocation apply", &of_bob, 3).await;
    assert_eq!(nodes(&applied).len(), 3);
    let traces: BTreeSet<_> = applied.iter().map(|span| &span.trace).collect();
    assert_eq!(traces.len(), 3);
    assert_eq!(jaeger.spans("revocation apply", &none, 4).await.len(), 4);
}
