//! Trace ids that users see: in frames, in HTTP answers and on the command line.

use curfew_testkit::http::{self, Response};
use curfew_testkit::mint::Key;
use curfew_tests::{ADMIN_KEY, Cluster, Gateway, Redis, Settings, curfew, curfew_with};
use serde_json::{Value, json};

use super::collector::{Collector, Span};

/// Address before the trace id in the URL of a trace's page.
const PAGES: &str = "https://jaeger.example/trace/";

fn settings(collector: &Collector) -> Settings {
    collector
        .settings()
        .with(&format!("telemetry.trace_url = \"{PAGES}{{trace_id}}\""))
}

/// The span called `name` in the trace whose id `told` has.
async fn named(collector: &Collector, name: &str, told: &Value) -> Span {
    let trace = told["trace"].as_str().unwrap_or_else(|| panic!("{told}"));
    let spans = collector.wait_for(|span| span.name == name && span.trace == trace);
    spans.await
}

/// Asserts that the `traceresponse` of an answer has the ids of this span.
fn assert_answers(response: &Response, span: &Span) {
    let expect = format!("00-{}-{}-01", span.trace, span.id);
    assert_eq!(response.header("traceresponse"), Some(&*expect));
}

/// Regression: an error that a user reported did not lead to its trace.
#[tokio::test]
async fn what_ends_or_refuses_a_session_names_its_trace() {
    let collector = Collector::start().await;
    let node = Gateway::start_with(&settings(&collector)).await;
    let mut alice = node.user("alice").await;
    node.revoke(json!({"kind":"user","value":"alice"})).await;
    let closing = alice
        .expect_json(json!({"type":"closing","code":4403}))
        .await;
    let trace = closing["trace"].as_str().unwrap();
    collector.wait_for(|span| span.trace == trace).await;

    let expired = Key::default_secret().user_with("bob", json!({"exp":1_700_000_000}));
    let mut bob = node.ws().bearer(&expired).open().await;
    let first = bob.expect_json(json!({"type":"auth_failed"})).await;
    named(&collector, "GET /ws", &first).await;
    bob.expect_json(json!({"type":"closing","code":4401,"trace":first["trace"]}))
        .await;
    let mut carol = node.ws().open().await;
    carol.send(json!({"type":"auth","token":expired})).await;
    let failed = carol.expect_json(json!({"type":"auth_failed"})).await;
    named(&collector, "curfew.auth", &failed).await;
}

#[tokio::test]
async fn a_command_that_fails_through_our_fault_names_its_trace() {
    let (redis, collector) = (Redis::start().await, Collector::start().await);
    // The Redis user lacks the right to publish to this test's channel.
    let user = "ACL SETUSER curfew on >secret ~* +@all resetchannels &curfew:control &curfew:probe:* &curfew:relay:* &curfew:channel:room:yes";
    redis.run(&user.split(' ').collect::<Vec<_>>()).await;
    let settings = settings(&collector)
        .with("backend.redis.username = \"curfew\"")
        .with("backend.redis.password = \"secret\"");
    let cluster = Cluster::start(1, &redis.url(), &settings).await;
    let mut alice = cluster[0].user("alice").await;
    alice
        .send(json!({"type":"publish","id":1,"channel":"room:no","data":1}))
        .await;
    let error = json!({"type":"error","id":1,"code":"unavailable"});
    let error = alice.expect_json(error).await;
    let span = named(&collector, "curfew.publish", &error).await;
    assert_eq!(span.attributes["error.type"], "unavailable");
    // An error that the client itself has caused names no trace.
    alice
        .send(json!({"type":"unsubscribe","id":2,"channel":"room:2"}))
        .await;
    let error = json!({"type":"error","id":2,"code":"not_subscribed"});
    assert_eq!(alice.expect_json(error).await["trace"], Value::Null);
}

#[tokio::test]
async fn http_answers_name_their_trace() {
    let collector = Collector::start().await;
    let settings = settings(&collector)
        .with("limits.connections = 1")
        .with("auth.reject = \"http\"");
    let node = Gateway::start_with(&settings).await;
    let expired = Key::default_secret().user_with("bob", json!({"exp":1_700_000_000}));
    let refused = node.ws().bearer(&expired).refused().await;
    assert_eq!(
        (refused.status, &refused.json()["reason"]),
        (401, &json!("expired"))
    );
    let span = named(&collector, "GET /ws", &refused.json()).await;
    assert_answers(&refused, &span);

    let _alice = node.user("alice").await;
    let good = Key::default_secret().user("bob");
    let full = node.ws().bearer(&good).refused().await;
    assert_eq!(
        (full.status, &full.json()["code"]),
        (503, &json!("unavailable"))
    );
    let span = named(&collector, "GET /ws", &full.json()).await;
    assert_answers(&full, &span);

    let bearer = format!("Bearer {ADMIN_KEY}");
    let ask = async |method: &str, path: &str, body: Value| {
        let headers = [("Authorization", bearer.as_str())];
        let body = body.to_string();
        http::request(
            node.admin_address(),
            method,
            path,
            &headers,
            body.as_bytes(),
        )
        .await
    };
    // The answers are a receipt, a problem document, and the answer to a read.
    let body = json!({"kind":"user","value":"nobody"});
    let receipt = ask("POST", "/v1/revocations", body).await;
    let span = named(&collector, "POST /v1/revocations", &receipt.json()).await;
    assert_answers(&receipt, &span);
    assert_eq!(receipt.json()["closed"], 0);
    assert_eq!(
        receipt.json()["trace_url"],
        format!("{PAGES}{}", span.trace)
    );
    let problem = ask("POST", "/v1/revocations", json!({"kind":"no","value":"x"})).await;
    assert_eq!(problem.status, 400);
    let span = named(&collector, "POST /v1/revocations", &problem.json()).await;
    assert_answers(&problem, &span);
    let read = ask("GET", "/v1/nodes", json!(null)).await;
    assert_eq!(read.json()["trace"], Value::Null);
    let span = collector.wait("GET /v1/nodes", 1).await.remove(0);
    assert_answers(&read, &span);
}

#[tokio::test]
async fn the_command_line_prints_where_the_trace_is() {
    let collector = Collector::start().await;
    let node = Gateway::start_with(&settings(&collector)).await;
    let url = format!("http://{}", node.admin_address());
    let key = [("CURFEW_ADMIN_KEY", ADMIN_KEY)];
    let revoke = ["revoke", "user", "nobody", "--url", &url];
    let done = curfew_with(&revoke, &key).await;
    assert_eq!(done.code, 0, "{done:?}");
    let trace = page_in(&done.stdout);
    let named = |span: &Span| span.trace == trace && span.name == "POST /v1/revocations";
    collector.wait_for(named).await;
}

/// The id of the trace whose page is named in a line of `told`.
fn page_in(told: &str) -> &str {
    let mut lines = told.lines().map(str::trim_start);
    let page = lines.find_map(|line| line.strip_prefix("trace: "));
    let page = page.unwrap_or_else(|| panic!("the output names no trace: {told}"));
    page.strip_prefix(PAGES).unwrap()
}

/// Regression: a publication by the command line did not name its trace.
#[tokio::test]
async fn publish_prints_where_the_trace_is() {
    let collector = Collector::start().await;
    let settings = settings(&collector).with("telemetry.trace_sample_ratio = 1.0");
    let node = Gateway::start_with(&settings).await;
    let url = format!("http://{}", node.admin_address());
    let publish = ["publish", "room:1", "1", "--url", &url];
    let done = curfew_with(&publish, &[("CURFEW_ADMIN_KEY", ADMIN_KEY)]).await;
    assert_eq!(done.code, 0, "{done:?}");
    let trace = page_in(&done.stdout);
    let named = |span: &Span| span.trace == trace && span.name == "POST /v1/publish";
    collector.wait_for(named).await;
}

/// Regression: if a session ended while an operator watched it, the output had only the trace's id.
/// The operator had to build the URL by hand.
#[tokio::test]
async fn connect_tells_the_page_about_a_frame_or_a_refusal_that_names_its_trace() {
    let collector = Collector::start().await;
    for reject in ["message", "http"] {
        let settings = settings(&collector).with(&format!("auth.reject = {reject:?}"));
        let node = Gateway::start_with(&settings).await;
        let expired = Key::default_secret().user_with("bob", json!({"exp":1_700_000_000}));
        let url = format!("ws://{}/ws", node.address());
        let pages = format!("{PAGES}{{trace_id}}");
        let connect = ["connect", &url, "--json", "--trace-url", &pages];
        let done = curfew_with(&connect, &[("CURFEW_TOKEN", &expired)]).await;
        assert_eq!(done.code, 1, "{done:?}");
        let trace = page_in(&done.stderr);
        let named = |span: &Span| span.trace == trace && span.name == "GET /ws";
        collector.wait_for(named).await;
        // The frames `auth_failed` and `closing` belong to the same trace, so its page is printed
        // once.
        assert_eq!(done.stderr.matches(PAGES).count(), 1, "{done:?}");
        assert!(!done.stdout.contains(PAGES), "{done:?}");
    }
}

#[tokio::test]
async fn without_traces_nothing_is_named() {
    let node = Gateway::start_default().await;
    let mut alice = node.user("alice").await;
    let receipt = node.revoke(json!({"kind":"user","value":"alice"})).await;
    let closing = alice.expect_json(json!({"type":"closing"})).await;
    for told in [receipt, closing] {
        assert_eq!(
            (&told["trace"], &told["trace_url"]),
            (&json!(null), &json!(null))
        );
    }
    let refused = node
        .admin_as(Some(ADMIN_KEY), "GET", "/v1/nodes", None)
        .await;
    assert_eq!(refused.header("traceresponse"), None);
    let bad = "telemetry.trace_url=https://jaeger.example/";
    let done = curfew(&[
        "check-config",
        "--config",
        node.config_path().to_str().unwrap(),
        "--set",
        bad,
    ])
    .await;
    assert_eq!(done.code, 2);
    assert!(done.stderr.contains("{trace_id}"), "{}", done.stderr);
}
