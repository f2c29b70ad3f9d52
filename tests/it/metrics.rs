//! The names in `/metrics`, and the guarantee that clients cannot add any series (SECURITY row 91).

mod reference;

use std::net::SocketAddr;
use std::time::Duration;

use curfew_testkit::mint::Key;
use curfew_testkit::{Incoming, http, opcode, unix_now};
use curfew_tests::{Cluster, Gateway, Redis, Settings, revocation_key};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Number of clients. It is so large that one series for each client would end a node.
const MANY: usize = 10_000;

/// Number of requests that are open at the same time.
const AT_ONCE: usize = 50;

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
    assert!(before.len() < 1500, "the node has {} series", before.len());
}

#[tokio::test]
async fn ten_thousand_paths_users_and_channels_are_no_series() {
    let settings = Settings::default().with(r#"telemetry.log_level = "info""#);
    let gateway = Gateway::start_with(&settings).await;
    let before = gateway.series().await;
    let all = async {
        tokio::join!(
            ask_for_paths(gateway.address()),
            ask_for_paths(gateway.admin_address()),
            name_channels(&gateway),
            connect_users(&gateway),
        )
    };
    timeout(Duration::from_secs(120), all).await.unwrap();
    gateway
        .until_metric("curfew_connections_accepted_total", |n| {
            n == MANY as f64 + 1.0
        })
        .await;
    for command in ["subscribe", "publish", "unsubscribe"] {
        let done = format!("curfew_commands_total{{command=\"{command}\",outcome=\"ok\"}}");
        assert_eq!(gateway.metric(&done).await, MANY as f64, "{command}");
    }
    assert_eq!(gateway.series().await, before);
}

async fn ask_for_paths(address: SocketAddr) {
    for n in 0..MANY {
        let path = format!("/path-{n}?query={n}");
        let answer = http::request(address, "GET", &path, &[], b"").await;
        assert_eq!(answer.status, 404);
    }
}

async fn name_channels(gateway: &Gateway) {
    let mut client = gateway.user("one of them").await;
    for n in 0..MANY {
        let channel = format!("channel-{n}");
        for command in [
            json!({"type":"subscribe","channel":channel}),
            json!({"type":"publish","channel":channel,"data":n}),
            json!({"type":"unsubscribe","channel":channel}),
        ] {
            client.send(command).await;
        }
        if n % AT_ONCE == 0 {
            client.barrier().await;
        }
    }
    client.barrier().await;
}

async fn connect_users(gateway: &Gateway) {
    let mut connecting = JoinSet::new();
    for n in 0..MANY {
        let token = Key::default_secret().user(&format!("user-{n}"));
        let connect = gateway.ws().bearer(&token);
        connecting.spawn(async move { connect.open().await.reset() });
        if connecting.len() == AT_ONCE {
            connecting.join_next().await.unwrap().unwrap();
        }
    }
    connecting.join_all().await;
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
async fn what_takes_time_is_timed() {
    let settings = Settings::default().with(r#"session.ping_interval = "1s""#);
    let gateway = Gateway::start_with(&settings).await;
    let mut alice = gateway.subscriber("alice", "room:1").await;
    alice
        .send(json!({"type":"publish","id":1,"channel":"room:1","data":1}))
        .await;
    alice.until_json(json!({"type":"ok","id":1})).await;
    gateway.publish("room:1", json!(2)).await;
    loop {
        match alice.incoming(Duration::from_secs(5)).await {
            Incoming::Frame(frame) if frame.opcode == opcode::PING => break,
            Incoming::Frame(_) => {}
            other => panic!("{other:?}"),
        }
    }
    alice.barrier().await;
    gateway.revoke(json!({"kind":"user","value":"alice"})).await;
    for (name, count) in [
        ("curfew_publish_duration_seconds_count", 2.0),
        (
            "curfew_delivery_duration_seconds_count{path=\"local\"}",
            1.0,
        ),
        (
            "curfew_delivery_duration_seconds_count{path=\"broker\"}",
            0.0,
        ),
        ("curfew_send_queue_messages_count", 1.0),
        (
            "curfew_command_duration_seconds_count{command=\"publish\"}",
            1.0,
        ),
        (
            "curfew_command_duration_seconds_count{command=\"subscribe\"}",
            1.0,
        ),
        ("curfew_revocation_propagation_seconds_count", 1.0),
        ("curfew_jwt_keys{alg=\"HS256\"}", 1.0),
        ("curfew_jwt_keys{alg=\"RS256\"}", 0.0),
    ] {
        gateway.until_metric(name, |counted| counted == count).await;
    }
    for name in [
        "curfew_ping_rtt_seconds_count",
        "curfew_runtime_stall_seconds_count",
        "curfew_runtime_workers",
    ] {
        gateway.until_metric(name, |counted| counted >= 1.0).await;
    }
    let read_at = "curfew_jwt_keys_last_reload_success_timestamp_seconds";
    let age = unix_now() as f64 - gateway.metric(read_at).await;
    assert!(
        (0.0..60.0).contains(&age),
        "the metric says that the keys were read {age} s ago"
    );
}

#[tokio::test]
async fn what_redis_takes_is_timed_and_its_failures_are_counted() {
    let mut redis = Redis::start().await;
    let cluster = Cluster::start(1, &redis.url(), &Settings::default()).await;
    let gateway = &cluster[0];
    let mut alice = gateway.subscriber("alice", "room:1").await;
    gateway.publish("room:1", json!(1)).await;
    alice.until_json(json!({"type":"message","data":1})).await;
    redis
        .run(&["SET", &revocation_key("user", "alice"), "1", "EX", "600"])
        .await;
    alice.expect_close(4403, "revoked").await;
    for (name, least) in [
        (
            "curfew_delivery_duration_seconds_count{path=\"broker\"}",
            1.0,
        ),
        ("curfew_revocation_propagation_seconds_count", 1.0),
        ("curfew_publish_duration_seconds_count", 1.0),
    ] {
        gateway.until_metric(name, |counted| counted == least).await;
    }
    for command in ["publish", "subscribe", "exists", "pipeline"] {
        let name = format!("curfew_redis_command_duration_seconds_count{{command=\"{command}\"}}");
        gateway.until_metric(&name, |counted| counted >= 1.0).await;
    }
    let synced_at = "curfew_revocation_last_sync_timestamp_seconds";
    let age = unix_now() as f64 - gateway.metric(synced_at).await;
    assert!(
        (-1.0..30.0).contains(&age),
        "the metric says that the last sync was {age} s ago"
    );
    assert_eq!(gateway.metric("curfew_broker_errors_total").await, 0.0);

    redis.kill();
    gateway
        .until_metric("curfew_broker_errors_total", |n| n >= 1.0)
        .await;
    let (status, _) = gateway
        .admin(
            "POST",
            "/v1/publish",
            Some(json!({"channel":"room:1","data":2})),
        )
        .await;
    assert_eq!(status, 503);
    gateway
        .until_metric("curfew_broker_errors_total{error=\"not_connected\"}", |n| {
            n >= 1.0
        })
        .await;
    let timed = gateway
        .metric("curfew_publish_duration_seconds_count")
        .await;
    assert_eq!(timed, 1.0, "a publication that failed was timed");
}

#[tokio::test]
async fn metrics_have_a_type_and_a_help_text() {
    let gateway = Gateway::start_with(&Settings::default()).await;
    let text = gateway.metrics().await;
    assert!(
        text.trim_end().ends_with("# EOF"),
        "the page does not end as OpenMetrics requires"
    );
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
