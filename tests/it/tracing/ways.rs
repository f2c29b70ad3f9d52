//! The traces of a publication, of a revocation and of a connect.

use std::collections::BTreeSet;

use curfew_testkit::PATIENCE;
use curfew_testkit::http;
use curfew_testkit::mint::Key;
use curfew_tests::{Cluster, Gateway, Redis, Tape, revocation_key};
use serde_json::json;

use super::collector::{Collector, Span};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn nodes_of(spans: &[Span]) -> BTreeSet<&str> {
    spans.iter().map(|span| span.node.as_str()).collect()
}

#[tokio::test]
async fn a_publication_is_one_trace_across_nodes() {
    let (redis, collector) = (Redis::start().await, Collector::start().await);
    let cluster = Cluster::start(2, &redis.url(), &collector.settings()).await;
    let mut listeners = [
        cluster[0].subscriber("bob", "room:1").await,
        cluster[1].subscriber("carol", "room:1").await,
        cluster[1].subscriber("dave", "room:1").await,
    ];
    let mut alice = cluster[0].user("alice").await;
    alice
        .send(json!({"type":"publish","id":1,"channel":"room:1","data":"payload-canary","traceparent":TRACEPARENT}))
        .await;
    alice.expect_json(json!({"type":"ok","id":1})).await;
    for listener in &mut listeners {
        listener
            .expect_json(json!({"type":"message","data":"payload-canary"}))
            .await;
    }
    let delivered = collector.wait("deliver", 2).await;
    let processed = collector.wait("process", 2).await;
    let command = collector.wait("curfew.publish", 1).await.remove(0);
    let authorize = collector.wait_below("authorize", &command).await;
    let publish = collector.wait("publish", 1).await.remove(0);

    let upgrades = collector.named("GET /ws");
    let upgrade = upgrades
        .iter()
        .find(|span| command.links.contains(&span.id));
    assert!(upgrade.is_some_and(|span| span.node == command.node));
    // The span links to the client's trace, but does not belong to it.
    assert!(command.links_traces.iter().any(|trace| trace == TRACE));
    assert_ne!(command.trace, TRACE);
    assert_eq!((command.parent.as_str(), command.kind), ("", 2));
    assert_eq!(authorize.kind, 1);
    assert_eq!(authorize.attributes["curfew.authz.decision"], "allowed");
    assert_eq!(authorize.attributes["curfew.authz.rule"], "everything");
    assert_eq!((&publish.parent, publish.kind), (&command.id, 4));
    assert_eq!(publish.attributes["messaging.system"], "redis");
    assert_eq!(nodes_of(&processed).len(), 2);
    for process in &processed {
        assert_eq!((&process.parent, process.kind), (&publish.id, 5));
        // With a link to its parent, the span would be shown without a parent in Jaeger's older
        // interface.
        assert_eq!(process.links, Vec::<String>::new());
        let deliver = delivered.iter().find(|span| span.parent == process.id);
        let deliver = deliver.unwrap();
        let here = if process.node == command.node {
            "1"
        } else {
            "2"
        };
        assert_eq!(deliver.attributes["curfew.fanout.delivered"], here);
    }
    let all = [delivered, processed, vec![authorize, publish]].concat();
    assert!(all.iter().all(|span| span.trace == command.trace));
    for span in collector.spans() {
        for secret in ["payload-canary", "alice", "bob", "room:1"] {
            assert!(!span.text.contains(secret), "{}", span.text);
        }
    }
    // The log names the trace.
    let logged = cluster[0].log().entries();
    assert!(logged.iter().any(|entry| entry["trace_id"].is_string()));
}

#[tokio::test]
async fn a_bare_key_is_a_trace_of_each_node_and_always_recorded() {
    let (redis, collector) = (Redis::start().await, Collector::start().await);
    let settings = collector
        .settings()
        .with("telemetry.trace_sample_ratio = 0.0");
    let cluster = Cluster::start(3, &redis.url(), &settings).await;
    let tapes = alice_everywhere(&cluster).await;
    redis
        .run(&["SET", &revocation_key("user", "alice"), "1", "EX", "600"])
        .await;
    for tape in &tapes {
        tape.revoked().await;
    }
    let applied = collector.wait("revocation apply", 3).await;
    assert_eq!(nodes_of(&applied).len(), 3);
    let traces: BTreeSet<_> = applied.iter().map(|span| &span.trace).collect();
    assert_eq!(traces.len(), 3);
    for span in &applied {
        assert_eq!(span.parent, "");
        assert_eq!(span.attributes["curfew.sessions.closed"], "2");
        assert_eq!(span.attributes["curfew.revocation.kind"], "user");
        assert!(!span.text.contains("alice"), "{}", span.text);
    }
    for node in cluster.nodes() {
        let entries = node.log().entries();
        let logged = entries
            .iter()
            .find(|entry| entry["message"] == "revocation applied")
            .unwrap();
        assert!(applied.iter().any(|span| logged["trace_id"] == span.trace));
    }
    // At this sampling ratio, no other span is recorded except the ends of the sessions.
    let mut spans = collector.spans();
    spans.retain(|span| span.name != "session end");
    assert_eq!(spans.len(), 3, "{spans:#?}");
}

#[tokio::test]
async fn a_revocation_by_the_api_is_one_trace_across_nodes() {
    let (redis, collector) = (Redis::start().await, Collector::start().await);
    let settings = collector
        .settings()
        .with("telemetry.trace_sample_ratio = 0.0");
    let cluster = Cluster::start(3, &redis.url(), &settings).await;
    let tapes = alice_everywhere(&cluster).await;
    let receipt = cluster[1]
        .revoke(json!({"kind":"user","value":"alice"}))
        .await;
    assert_eq!(receipt["closed"], 6, "{receipt}");
    for tape in &tapes {
        tape.revoked().await;
    }
    let applied = collector.wait("revocation apply", 3).await;
    let call = collector.wait("POST /v1/revocations", 1).await.remove(0);
    assert_eq!((call.parent.as_str(), call.kind), ("", 2));
    assert_eq!(call.attributes["http.response.status_code"], "200");
    assert_eq!(nodes_of(&applied).len(), 3);
    for span in &applied {
        assert_eq!((&span.trace, &span.parent), (&call.trace, &call.id));
        assert_eq!(span.attributes["curfew.sessions.closed"], "2");
    }
    let written = collector.wait_below("MULTI", &call).await;
    assert_eq!(written.kind, 3);
    assert_eq!(written.attributes["db.operation.batch.size"], "2");
    assert!(!written.text.contains("alice"), "{}", written.text);
}

async fn alice_everywhere(cluster: &Cluster) -> Vec<Tape> {
    let mut tapes = Vec::new();
    for node in cluster.nodes() {
        tapes.push(node.tape("alice", "room:1").await);
        tapes.push(node.tape("alice", "room:1").await);
    }
    tapes
}

#[tokio::test]
async fn a_connect_is_a_trace_that_ends_when_the_session_is_open() {
    let collector = Collector::start().await;
    let settings = collector
        .settings()
        .with("telemetry.trust_client_traces = true");
    let node = Gateway::start_with(&settings).await;
    let token = Key::default_secret().user("alice");
    let connect = node.ws().bearer(&token).header("traceparent", TRACEPARENT);
    let (_client, _) = node.connected(connect).await;
    let upgrade = collector.wait("GET /ws", 1).await.remove(0);
    let verify = collector.wait("verify token", 1).await.remove(0);
    let admission = collector.wait("admission", 1).await.remove(0);
    assert_eq!(upgrade.trace, TRACE);
    assert_eq!(upgrade.parent, "00f067aa0ba902b7");
    assert_eq!(upgrade.attributes["http.response.status_code"], "101");
    assert!(upgrade.took_nanos < 10_000_000_000);
    assert_eq!(
        (&verify.trace, &verify.parent),
        (&upgrade.trace, &upgrade.id)
    );
    assert_eq!(admission.parent, upgrade.id);
}

#[tokio::test]
async fn a_ticket_is_traced_from_its_request_to_its_use() {
    let (redis, collector) = (Redis::start().await, Collector::start().await);
    let settings = collector
        .settings()
        .with("auth.tickets = true")
        .on_redis(&redis.url());
    let node = Gateway::start_with(&settings).await;
    node.until_in_touch(PATIENCE).await;
    let bearer = format!("Bearer {}", Key::default_secret().user("alice"));
    let headers = [("Authorization", bearer.as_str())];
    let given = http::request(node.address(), "POST", "/v1/tickets", &headers, b"").await;
    let ticket = given.json()["ticket"].as_str().unwrap().to_owned();
    let path = format!("/ws?ticket={ticket}");
    node.connected(node.ws().path(&path)).await;
    let asked = collector.wait("POST /v1/tickets", 1).await.remove(0);
    assert_eq!(asked.attributes["http.response.status_code"], "201");
    for command in ["EXISTS", "SET"] {
        collector.wait_below(command, &asked).await;
    }
    let redeemed = collector.wait("redeem ticket", 1).await.remove(0);
    collector.wait_below("GETDEL", &redeemed).await;
    let upgrade = collector.wait("GET /ws", 1).await.remove(0);
    assert_eq!(redeemed.parent, upgrade.id);
    node.ws().path(&path).open().await;
    let refused = collector.wait("redeem ticket", 2).await.remove(1);
    assert_eq!(refused.attributes["error.type"], "expired");
    for span in collector.spans() {
        assert!(!span.text.contains(&ticket[14..30]), "{}", span.text);
    }
}

#[tokio::test]
async fn what_a_connect_and_a_subscription_ask_of_redis_is_part_of_them() {
    let (redis, collector) = (Redis::start().await, Collector::start().await);
    let settings = collector.settings().on_redis(&redis.url());
    let node = Gateway::start_with(&settings).await;
    node.until_in_touch(PATIENCE).await;
    let mut alice = node.subscriber("alice", "room:1").await;
    let admission = collector.wait("admission", 1).await.remove(0);
    let checked = collector.wait_below("EXISTS", &admission).await;
    let recorded = collector.wait_below("PIPELINE", &admission).await;
    for span in [&checked, &recorded] {
        assert_eq!(span.kind, 3);
        assert_eq!(span.attributes["db.system.name"], "redis");
        assert_eq!(span.attributes["db.operation.name"], span.name);
        let port = redis.address().port().to_string();
        assert_eq!(span.attributes["server.port"], port);
    }
    let subscribe = collector.wait("curfew.subscribe", 1).await.remove(0);
    let authorize = collector.wait_below("authorize", &subscribe).await;
    assert_eq!(authorize.attributes["curfew.authz.rule"], "everything");

    let token = Key::default_secret().user("alice");
    alice
        .send(json!({"type":"refresh","id":9,"token":token}))
        .await;
    alice.expect_json(json!({"type":"refreshed","id":9})).await;
    let refresh = collector.wait("curfew.refresh", 1).await.remove(0);
    collector.wait_below("PIPELINE", &refresh).await;
    for span in collector.spans() {
        for secret in ["alice", "room:1", "curfew:", token.as_str()] {
            assert!(!span.text.contains(secret), "{}", span.text);
        }
    }
}

#[tokio::test]
async fn refusals_are_recorded_whatever_the_ratio_and_tell_no_secret() {
    let collector = Collector::start().await;
    let settings = collector
        .settings()
        .with("telemetry.trace_sample_ratio = 0.0")
        .rules("");
    let node = Gateway::start_with(&settings).await;
    let token = Key::default_secret().user_with("claim-canary", json!({"exp": 1_000_000_000}));
    let mut refused = node.ws().bearer(&token).open().await;
    refused.expect_auth_failed("expired", 4401).await;
    let path = format!("/ws?token={token}");
    let mut refused = node.ws().path(path).open().await;
    refused.expect_auth_failed("expired", 4401).await;
    let mut alice = node.user("alice").await;
    alice
        .send(json!({"type":"publish","id":1,"channel":"room:1","data":1}))
        .await;
    alice
        .expect_json(json!({"type":"error","code":"forbidden"}))
        .await;
    alice
        .send(json!({"type":"subscribe","id":2,"channel":"room:1"}))
        .await;
    alice
        .expect_json(json!({"type":"error","id":2,"code":"forbidden"}))
        .await;
    alice
        .send(json!({"type":"refresh","id":3,"token":token}))
        .await;
    alice
        .expect_json(json!({"type":"error","id":3,"code":"expired"}))
        .await;
    let upgrades = collector.wait("GET /ws", 2).await;
    let publish = collector.wait("curfew.publish", 1).await;
    assert_eq!(upgrades[0].attributes["error.type"], "expired");
    assert_eq!(publish[0].attributes["error.type"], "forbidden");
    let subscribe = collector.wait("curfew.subscribe", 1).await;
    assert_eq!(subscribe[0].attributes["error.type"], "forbidden");
    let refresh = collector.wait("curfew.refresh", 1).await;
    assert_eq!(refresh[0].attributes["error.type"], "expired");
    let signature = token.rsplit('.').next().unwrap();
    for span in collector.spans() {
        for secret in [signature, "claim-canary", "alice", "room:1"] {
            assert!(!span.text.contains(secret), "{}", span.text);
        }
    }
}

#[tokio::test]
async fn the_admin_api_joins_its_callers_trace() {
    let collector = Collector::start().await;
    let settings = collector
        .settings()
        .with("telemetry.trace_sample_ratio = 0.0")
        .with("telemetry.trace_user_ids = true");
    let node = Gateway::start_with(&settings).await;
    for bad in [json!("00-xyz"), json!(7), json!({}), json!(null), json!("")] {
        let body = json!({"channel":"room:1","data":1,"traceparent":bad});
        node.admin_ok("POST", "/v1/publish", Some(body)).await;
    }
    let body = json!({"channels":["room:1"],"data":1,"traceparent":TRACEPARENT});
    node.admin_ok("POST", "/v1/broadcast", Some(body)).await;
    let call = collector.wait("POST /v1/broadcast", 1).await.remove(0);
    assert_eq!(
        (call.trace.as_str(), call.parent.as_str()),
        (TRACE, "00f067aa0ba902b7")
    );
    let process = collector.wait("process", 1).await.remove(0);
    assert_eq!(process.parent, call.id);
    assert_eq!(process.attributes["messaging.destination.name"], "room:1");
}

#[tokio::test]
async fn a_latency_leads_to_the_trace_of_its_publication() {
    let collector = Collector::start().await;
    let gateway = Gateway::start_with(&collector.settings()).await;
    let mut alice = gateway.subscriber("alice", "room:1").await;
    alice
        .send(json!({"type":"publish","id":1,"channel":"room:1","data":1}))
        .await;
    alice.until_json(json!({"type":"ok","id":1})).await;
    alice.barrier().await;
    let command = collector.wait("curfew.publish", 1).await.remove(0);
    let exemplar = format!(" # {{trace_id=\"{}\"}} ", command.trace);
    let text = gateway.metrics().await;
    for name in [
        "curfew_publish_duration_seconds",
        "curfew_delivery_duration_seconds",
    ] {
        let bucket = format!("{name}_bucket{{");
        let mut lines = text.lines().filter(|line| line.starts_with(&bucket));
        assert!(lines.any(|line| line.contains(&exemplar)), "{text}");
    }
}

/// The span of a recovery names the source of the recovered publications.
#[tokio::test]
async fn a_recovery_names_its_source() {
    let (redis, collector) = (Redis::start().await, Collector::start().await);
    let rules = "[[policy.rules]]\nname = \"everything\"\nchannels = [\"*\"]\n\
                 actions = [\"subscribe\", \"publish\"]\n\
                 [[channels]]\npattern = \"room:*\"\nhistory = { size = 10, ttl = \"10m\" }\n";
    let settings = collector.settings().rules(rules);
    let cluster = Cluster::start(1, &redis.url(), &settings).await;
    let mut epoch = serde_json::Value::Null;
    for data in 1..=2 {
        let body = json!({"channel":"room:1","data":data});
        let placed = cluster[0].admin_ok("POST", "/v1/publish", Some(body)).await;
        epoch = placed["epoch"].clone();
    }
    let mut tapes = Vec::new();
    let subscribe = |since| json!({"type":"subscribe","channel":"room:1","since":since});
    for since in [
        json!({"epoch":epoch,"offset":1}),
        json!({"epoch":epoch,"offset":1}),
        json!({"epoch":"zzzzzzzz","offset":1}),
    ] {
        let tape = Tape::of(cluster[0].user("alice").await);
        tape.ask("join", subscribe(since)).await;
        tapes.push(tape);
    }
    let spans = collector.wait("curfew.subscribe", 3).await;
    let told = |name: &str| {
        let each = spans.iter().map(|span| span.attributes.get(name));
        let mut each: Vec<_> = each.flatten().map(String::as_str).collect();
        each.sort_unstable();
        each
    };
    assert_eq!(told("curfew.stream.recovered"), ["false", "true", "true"]);
    // For the first subscription, the node reads the stream. The second subscription gets the same
    // result from the window.
    assert_eq!(told("curfew.stream.source"), ["redis", "window"]);
    let is_read = |span: &&Span| {
        span.attributes
            .get("curfew.stream.source")
            .is_some_and(|at| at == "redis")
    };
    let read = spans.iter().find(is_read);
    collector.wait_below("EVAL", read.unwrap()).await;
}
