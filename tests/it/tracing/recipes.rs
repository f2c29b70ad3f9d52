//! Each search that the guide recommends is sent to a real Jaeger.

use std::fs;

use curfew_testkit::http;
use curfew_testkit::mint::Key;
use curfew_tests::{Attempt, Cluster, Gateway, Manner, Provider, Redis, eventually};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::collector::exporting_to;
use super::jaeger::Jaeger;

/// The spans that Jaeger's search finds for this operation and these tags.
async fn search(jaeger: &Jaeger, operation: Option<&str>, tags: &Value) -> Vec<Value> {
    let mut path = format!(
        "/api/traces?service=curfew&limit=100&tags={}",
        utf8_percent_encode(&tags.to_string(), NON_ALPHANUMERIC)
    );
    if let Some(operation) = operation {
        path += &format!(
            "&operation={}",
            utf8_percent_encode(operation, NON_ALPHANUMERIC)
        );
    }
    let answer = http::request(jaeger.ui, "GET", &path, &[], b"").await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    let answer = answer.json();
    let traces = answer["data"].as_array().unwrap().clone();
    let spans = traces
        .into_iter()
        .flat_map(|mut trace| match trace["spans"].take() {
            Value::Array(spans) => spans,
            other => panic!("the spans are not a list: {other}"),
        });
    spans.collect()
}

/// A search that the guide recommends.
#[derive(Debug)]
struct Recipe {
    operation: Option<String>,
    tag: (String, String),
}

fn recipes() -> Vec<Recipe> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/README.md");
    let guide = fs::read_to_string(path).unwrap();
    let (_, table) = guide
        .split_once("| looking for | operation | tags |\n")
        .unwrap();
    let rows = table.lines().skip(1).take_while(|line| !line.is_empty());
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let (key, value) = cells[2].trim_matches('`').split_once('=').unwrap();
        Recipe {
            operation: cells[1]
                .strip_prefix('`')
                .map(|name| name.trim_matches('`').to_owned()),
            tag: (key.to_owned(), value.to_owned()),
        }
    })
    .collect()
}

/// Causes the events that the guide's searches look for.
async fn make_trouble(jaeger: &Jaeger, redis: &Redis) -> (Cluster, Gateway) {
    let user = "ACL SETUSER curfew on >secret ~* +@all resetchannels &curfew:control &curfew:probe:* &curfew:relay:* &curfew:channel:room:1";
    redis.run(&user.split(' ').collect::<Vec<_>>()).await;
    let settings = exporting_to(jaeger.otlp)
        .with("telemetry.trace_sample_ratio = 0.0")
        .with("limits.connections = 1")
        .with("backend.redis.username = \"curfew\"")
        .with("backend.redis.password = \"secret\"")
        .rules(
            "[[policy.rules]]\nname = \"rooms\"\nchannels = [\"room:*\"]\nactions = [\"publish\"]\n",
        );
    let cluster = Cluster::start(1, &redis.url(), &settings).await;
    let node = &cluster[0];
    let key = Key::default_secret();
    let expired = key.user_with("bob", json!({"exp":1_700_000_000}));
    let mut bob = node.ws().bearer(&expired).open().await;
    bob.expect_auth_failed("expired", 4401).await;
    // A new session is possible only after bob's connection has ended.
    let mut alice = eventually("a session of alice", async || {
        match node.attempt("alice").await {
            Attempt::Open(alice) => Some(alice),
            _ => None,
        }
    })
    .await;
    let full = node.ws().bearer(&key.user("bob")).refused().await;
    assert_eq!(full.status, 503);
    for (channel, code) in [("room:2", "unavailable"), ("other", "forbidden")] {
        alice
            .send(json!({"type":"publish","id":1,"channel":channel,"data":1}))
            .await;
        alice.expect_json(json!({"type":"error","code":code})).await;
    }
    node.revoke(json!({"kind":"user","value":"alice"})).await;
    alice.expect_close(4403, "revoked").await;

    let provider = Provider::start(&[]).await;
    provider.behave(Manner::Status(500));
    let settings = exporting_to(jaeger.otlp).issuers(&provider.by_discovery("away"));
    let other = Gateway::start_with(&settings).await;
    (cluster, other)
}

/// Regression: the guide recommended a search for `error=true`, which found nothing.
#[tokio::test]
async fn every_search_of_the_guide_finds_what_it_is_for() {
    let (redis, jaeger) = (Redis::start().await, Jaeger::start().await);
    let _nodes = make_trouble(&jaeger, &redis).await;
    let recipes = recipes();
    assert!(recipes.len() > 5, "{recipes:?}");
    for Recipe { operation, tag } in &recipes {
        let tags = json!({ &tag.0: tag.1 });
        let what = format!("{operation:?} {tags}");
        eventually(&what, async || {
            let found = search(&jaeger, operation.as_deref(), &tags).await;
            let has = |span: &Value| {
                let mut tags = span["tags"].as_array().unwrap().iter();
                tags.any(|found| {
                    let value = found["value"].as_str().map(str::to_owned);
                    found["key"] == *tag.0
                        && value.unwrap_or_else(|| found["value"].to_string()) == tag.1
                })
            };
            let named = |span: &Value| {
                let operation = operation.as_deref();
                operation.is_none_or(|operation| span["operationName"] == operation)
            };
            found
                .iter()
                .any(|span| has(span) && named(span))
                .then_some(())
        })
        .await;
    }
    // The guide says that this usual search finds nothing.
    assert_eq!(
        search(&jaeger, None, &json!({"error":"true"})).await,
        [Value::Null; 0]
    );
}

/// Regression: the log said only "frame with invalid size", which did not help operators who had
/// configured the port of OTLP over HTTP.
#[tokio::test]
async fn the_port_of_otlp_over_http_is_told_from_that_of_grpc() {
    let jaeger = Jaeger::start().await;
    let settings = exporting_to(jaeger.http).with("telemetry.trace_sample_ratio = 1.0");
    let node = Gateway::start_with(&settings).await;
    let _alice = node.user("alice").await;
    let told = eventually("a log line about dropped spans", async || {
        let entries = node.log().entries();
        let told = entries
            .iter()
            .find(|entry| entry["message"] == "spans are dropped");
        told.cloned()
    })
    .await;
    assert!(told["hint"].as_str().unwrap().contains("4317"), "{told}");
}
