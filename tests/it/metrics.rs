//! `/metrics`: the names, and that nobody outside can make more of them (SECURITY row 91).

use curfew_testkit::mint::Key;
use curfew_tests::{Gateway, Settings};
use serde_json::json;

#[tokio::test]
async fn series_do_not_grow_with_what_clients_send() {
    let gateway = Gateway::start_default().await;
    let round = async |n: u32| {
        let key = Key::default_secret();
        let mut client = gateway.user(&format!("user-{n}")).await;
        for command in [
            "subscribe",
            "publish",
            "unsubscribe",
            "refresh",
            "ping",
            "auth",
        ] {
            client
                .send(json!({"type":command,"id":n,"channel":format!("c{n}"),"data":n}))
                .await;
        }
        client.send(json!({"type":format!("type-{n}")})).await;
        client.send_text("not json").await;
        client.closed().await;
        let origin = format!("https://o{n}.example");
        let other = gateway
            .ws()
            .header("Origin", origin)
            .bearer(&key.with_kid(&n.to_string()).user("x"));
        drop(other.attempt().await);
        drop(
            gateway
                .ws()
                .path(format!("/path-{n}?query={n}"))
                .attempt()
                .await,
        );
        drop(gateway.ws().bearer(&format!("bad-{n}")).attempt().await);
        drop(gateway.ws().method(&format!("METHOD{n}")).attempt().await);
        drop(gateway.admin("GET", &format!("/v1/path-{n}"), None).await);
        drop(
            gateway
                .admin("DELETE", &format!("/v1/revocations/kind-{n}/x"), None)
                .await,
        );
    };
    round(0).await;
    gateway
        .until_metric("curfew_connections", |n| n == 0.0)
        .await;
    let before = gateway.series().await;
    for n in 1..30 {
        round(n).await;
    }
    gateway
        .until_metric("curfew_connections", |n| n == 0.0)
        .await;
    let after = gateway.series().await;
    let new: Vec<_> = after.difference(&before).collect();
    assert!(new.is_empty(), "{new:?}");
    assert!(before.len() < 1500, "{} series", before.len());
}

#[tokio::test]
async fn what_happens_is_counted() {
    let gateway = Gateway::start_default().await;
    let mut alice = gateway.subscriber("alice", "room:1").await;
    let _bob = gateway.subscriber("bob", "room:1").await;
    alice
        .send(json!({"type":"publish","id":1,"channel":"room:1","data":1}))
        .await;
    alice.until_json(json!({"type":"ok","id":1})).await;
    gateway.publish("room:1", json!(2)).await;
    alice.until_json(json!({"type":"message","data":2})).await;
    alice.barrier().await;
    for (name, value) in [
        ("curfew_connections", 2.0),
        ("curfew_sessions", 2.0),
        ("curfew_subscriptions", 2.0),
        ("curfew_channels", 1.0),
        ("curfew_connections_accepted_total", 2.0),
        (
            "curfew_publishes_total{outcome=\"accepted\",source=\"client\"}",
            1.0,
        ),
        (
            "curfew_publishes_total{outcome=\"accepted\",source=\"api\"}",
            1.0,
        ),
        ("curfew_messages_delivered_total", 4.0),
        ("curfew_commands_total{command=\"publish\"}", 1.0),
        ("curfew_commands_total{command=\"subscribe\"}", 2.0),
        ("curfew_draining", 0.0),
    ] {
        gateway.until_metric(name, |counted| counted == value).await;
    }
    let mut client = gateway.ws().bearer("nonsense").open().await;
    client.expect_auth_failed("malformed", 4401).await;
    gateway
        .until_metric("curfew_authentications_total{reason=\"malformed\"}", |n| {
            n == 1.0
        })
        .await;
    gateway.revoke(json!({"kind":"user","value":"alice"})).await;
    gateway
        .until_metric("curfew_connections_closed_total{code=\"4403\"}", |n| {
            n == 1.0
        })
        .await;
    gateway
        .until_metric("curfew_revocations_applied_total", |n| n == 1.0)
        .await;
    let text = gateway.metrics().await;
    for name in [
        "curfew_build_info",
        "process_resident_memory_bytes",
        "process_open_fds",
    ] {
        assert!(text.contains(name), "{name}");
    }
}

#[tokio::test]
async fn metrics_have_a_type_and_a_help_text() {
    let gateway = Gateway::start_with(&Settings::default()).await;
    let text = gateway.metrics().await;
    assert!(text.trim_end().ends_with("# EOF"), "not OpenMetrics");
    for line in text.lines().filter(|line| line.starts_with("# TYPE ")) {
        let name = line.split(' ').nth(2).unwrap();
        assert!(text.contains(&format!("# HELP {name} ")), "{name}");
        assert!(
            name.starts_with("curfew_") || name.starts_with("process_"),
            "{name}"
        );
    }
    let answer = gateway.admin_as(None, "GET", "/metrics", None).await;
    let kind = answer.header("content-type").unwrap_or_default();
    assert!(
        kind.starts_with("application/openmetrics-text") || kind.starts_with("text/plain"),
        "{kind}"
    );
}
