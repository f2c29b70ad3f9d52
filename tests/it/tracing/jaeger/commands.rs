//! Each command that is answered with an error has one failed span with the error's code.

use curfew_testkit::mint::Key;
use curfew_tests::{Gateway, Redis};
use serde_json::{Value, json};

use super::Jaeger;

/// Regression: only commands that reached the policy had a span.
#[tokio::test]
async fn every_command_that_is_answered_with_an_error_has_a_failed_span() {
    let jaeger = Jaeger::start().await;
    let settings = jaeger
        .rarely()
        .with("limits.subscriptions = 1")
        .with("limits.bad_frames = 10");
    let node = Gateway::start_with(&settings).await;
    let (mut alice, connected) = node.connected(node.ws().bearer(&alice())).await;
    let session = connected["session"].as_str().unwrap();
    alice
        .send(json!({"type":"subscribe","id":0,"channel":"one"}))
        .await;
    alice.expect_json(json!({"type":"ok","id":0})).await;
    let wanted = [
        (json!({"type":"subscribe"}), "other", "bad_request"),
        (json!({"type":"sing"}), "other", "unknown_type"),
        (json!({"type":"auth","token":"x"}), "auth", "bad_request"),
        (
            json!({"type":"subscribe","channel":"one"}),
            "subscribe",
            "already_subscribed",
        ),
        (
            json!({"type":"subscribe","channel":"two"}),
            "subscribe",
            "limit_exceeded",
        ),
        (
            json!({"type":"subscribe","channel":""}),
            "subscribe",
            "invalid_channel",
        ),
        (
            json!({"type":"publish","channel":"","data":1}),
            "publish",
            "invalid_channel",
        ),
        (
            json!({"type":"unsubscribe","channel":""}),
            "unsubscribe",
            "invalid_channel",
        ),
        (
            json!({"type":"unsubscribe","channel":"two"}),
            "unsubscribe",
            "not_subscribed",
        ),
    ];
    for (command, _, code) in &wanted {
        alice.send(with_id(command)).await;
        alice.expect_json(json!({"type":"error","code":code})).await;
    }
    for (command, name, code) in wanted {
        let operation = format!("curfew.{name}");
        let tags = [("error.type", code), ("curfew.session.id", session)];
        let span = jaeger.span(&operation, &tags).await;
        span.assert_failed(code);
        assert_eq!(span.kind(), "server", "{command}");
        assert_eq!(span.tag("curfew.command"), name);
    }
}

/// Regression: commands that a node refused without a lease had no span.
#[tokio::test]
async fn a_command_that_is_held_off_has_a_failed_span() {
    let (mut redis, jaeger) = (Redis::start().await, Jaeger::start().await);
    let settings = jaeger.rarely().on_redis(&redis.url());
    let node = Gateway::start_with(&settings).await;
    node.until_in_touch(curfew_testkit::PATIENCE).await;
    let (mut alice, connected) = node.connected(node.ws().bearer(&alice())).await;
    let session = connected["session"].as_str().unwrap();
    redis.kill();
    node.until_out_of_touch(curfew_testkit::PATIENCE, &[]).await;
    let commands = [
        json!({"type":"ping"}),
        json!({"type":"subscribe","channel":"x"}),
        json!({"type":"unsubscribe","channel":"x"}),
        json!({"type":"publish","channel":"x","data":1}),
        json!({"type":"refresh","token":"x"}),
    ];
    for command in &commands {
        alice.send(with_id(command)).await;
        alice
            .expect_json(json!({"type":"error","code":"unavailable"}))
            .await;
    }
    for command in commands {
        let operation = format!("curfew.{}", command["type"].as_str().unwrap());
        let tags = [("curfew.session.id", session)];
        let span = jaeger.span(&operation, &tags).await;
        span.assert_failed("unavailable");
    }
}

/// Regression: one limit applied to the spans of refusals of all clients together. A client that
/// used up the limit kept the refusals of other clients from being recorded.
#[tokio::test]
async fn one_clients_refusals_do_not_hide_those_of_others() {
    let jaeger = Jaeger::start().await;
    let node = Gateway::start_with(&jaeger.rarely()).await;
    let mut flood = node.user("flood").await;
    let wrong = json!({"type":"unsubscribe","id":1,"channel":"room:1"});
    for _ in 0..500 {
        flood.send(wrong.clone()).await;
    }
    let mut others = Vec::new();
    for at in 0..40 {
        let token = Key::default_secret().user(&format!("user-{at}"));
        let (mut client, connected) = node.connected(node.ws().bearer(&token)).await;
        flood.send(wrong.clone()).await;
        client.send(wrong.clone()).await;
        client
            .expect_json(json!({"type":"error","code":"not_subscribed"}))
            .await;
        others.push(connected["session"].as_str().unwrap().to_owned());
    }
    for session in &others {
        let tags = [("curfew.session.id", session.as_str())];
        let span = jaeger.span("curfew.unsubscribe", &tags).await;
        span.assert_failed("not_subscribed");
    }
    let suppressed = "curfew_trace_spans_suppressed_total{kind=\"refusal\"}";
    node.until_metric(suppressed, |count| count > 0.0).await;
}

fn alice() -> String {
    Key::default_secret().user("alice")
}

fn with_id(command: &Value) -> Value {
    let mut command = command.clone();
    command["id"] = json!(1);
    command
}
