//! Each end of a session has one span, at every sampling ratio.

use std::time::Duration;

use curfew_testkit::OutFrame;
use curfew_testkit::mint::Key;
use curfew_testkit::{WsClient, unix_now};
use curfew_tests::Gateway;
use serde_json::{Value, json};

use super::{Jaeger, Span};

/// A client's session, and the session's id.
struct Session {
    client: WsClient,
    id: String,
}

async fn session(node: &Gateway, user: &str) -> Session {
    session_with(node, user, json!({})).await
}

async fn session_with(node: &Gateway, user: &str, claims: Value) -> Session {
    let token = Key::default_secret().user_with(user, claims);
    // The receive buffer is small, so that the kernel holds few bytes that the client does not
    // read.
    let connect = node.ws().bearer(&token).receive_buffer(16 * 1024);
    let (client, connected) = node.connected(connect).await;
    let id = connected["session"].as_str().unwrap().to_owned();
    Session { client, id }
}

/// The span of the end of `session`. Asserts that it has these attributes.
async fn ended(jaeger: &Jaeger, session: &str, code: &str, reason: &str, by: &str) -> Span {
    let span = jaeger
        .span("session end", &[("curfew.session.id", session)])
        .await;
    let wanted = [
        ("curfew.close.code", code),
        ("curfew.close.reason", reason),
        ("curfew.close.by", by),
    ];
    assert!(span.has(&wanted), "{wanted:?}: {span:#?}");
    assert_eq!((&span.parent, span.kind()), (&None, "internal"));
    let lived: f64 = span.tag("curfew.session.duration_seconds").parse().unwrap();
    assert!(lived >= 0.0);
    span
}

/// Regression: the end of a session had no span at any sampling ratio.
#[tokio::test]
async fn every_end_of_a_session_has_a_span_with_its_reason() {
    let jaeger = Jaeger::start().await;
    let settings = jaeger
        .rarely()
        .with("auth.leeway = \"0s\"")
        .with("limits.outbound_bytes = 65536")
        .with("drain.window = \"0s\"")
        .with("drain.accept_grace = \"0s\"");
    let mut node = Gateway::start_with(&settings).await;

    let mut client = session(&node, "client").await;
    let words = b"\x0f\xa0canary of the client";
    client.client.send_frame(OutFrame::new(8, *words)).await;
    let span = ended(&jaeger, &client.id, "4000", "client_closed", "client").await;
    assert!(!span.text.contains("canary"), "{}", span.text);
    assert!(!span.tags.contains_key("error.type"), "{span:#?}");

    let gone = session(&node, "gone").await;
    gone.client.reset();
    ended(&jaeger, &gone.id, "1006", "connection_lost", "network").await;

    let soon = json!({"exp":unix_now() + 2});
    let mut expires = session_with(&node, "expires", soon).await;
    expires.client.expect_close(4410, "expired").await;
    let span = ended(&jaeger, &expires.id, "4410", "expired", "server").await;
    assert!(!span.tags.contains_key("error.type"), "{span:#?}");

    let mut wrong = session(&node, "wrong").await;
    wrong.client.send_text("canary").await;
    wrong.client.expect_close(4400, "bad_request").await;
    let span = ended(&jaeger, &wrong.id, "4400", "bad_request", "server").await;
    span.assert_failed("bad_request");
    assert!(!span.text.contains("canary"), "{}", span.text);

    let mut operated = session(&node, "operated").await;
    let path = format!("/v1/sessions/{}", operated.id);
    node.admin_ok("DELETE", &path, None).await;
    operated.client.expect_close(4404, "disconnected").await;
    ended(&jaeger, &operated.id, "4404", "disconnected", "operator").await;

    let mut revoked = session(&node, "revoked").await;
    node.revoke(json!({"kind":"user","value":"revoked"})).await;
    revoked.client.expect_close(4403, "revoked").await;
    ended(&jaeger, &revoked.id, "4403", "revoked", "revocation").await;

    let mut slow = session(&node, "slow").await;
    slow.client
        .send(json!({"type":"subscribe","id":0,"channel":"flood"}))
        .await;
    slow.client.expect_json(json!({"type":"ok"})).await;
    let closed = "curfew_connections_closed_total{code=\"4508\"}";
    let pad = "x".repeat(30_000);
    while node.metric(closed).await == 0.0 {
        node.publish("flood", json!(pad)).await;
    }
    drop(slow.client);
    let span = ended(&jaeger, &slow.id, "4508", "slow_consumer", "server").await;
    span.assert_failed("slow_consumer");
    let undelivered = |what| span.tag(what).parse::<u64>().unwrap();
    assert!(undelivered("curfew.undelivered.messages") >= 1);
    assert!(undelivered("curfew.undelivered.bytes") >= 30_000);

    let drained = session(&node, "drained").await;
    node.terminate();
    node.exited(Duration::from_secs(20)).await;
    ended(&jaeger, &drained.id, "1012", "draining", "server").await;

    // The log line of each end names the trace of its span.
    for id in [&client.id, &wrong.id, &revoked.id, &drained.id] {
        let span = ended_of(&jaeger, id).await;
        let logged = node.log().entries();
        let line = logged.iter().find(|entry| {
            entry["message"] == "connection closed" && entry["session"] == id.as_str()
        });
        assert_eq!(line.unwrap()["trace_id"], span.trace.as_str());
        assert!(!span.tags.contains_key("user.id"), "{span:#?}");
    }
}

async fn ended_of(jaeger: &Jaeger, session: &str) -> Span {
    let tags = [("curfew.session.id", session)];
    jaeger.span("session end", &tags).await
}

/// Regression: the spans of a session could not be found by the session's id.
#[tokio::test]
async fn a_session_is_found_by_its_id_from_the_upgrade_to_the_end() {
    let jaeger = Jaeger::start().await;
    let settings = jaeger.settings().with("telemetry.trace_user_ids = true");
    let node = Gateway::start_with(&settings).await;
    let Session { mut client, id } = session(&node, "alice").await;
    for command in ["subscribe", "unsubscribe"] {
        client
            .send(json!({"type":command,"id":1,"channel":"room:1"}))
            .await;
        client.expect_json(json!({"type":"ok","id":1})).await;
    }
    client
        .send(json!({"type":"publish","id":1,"channel":"room:1","data":1}))
        .await;
    client.expect_json(json!({"type":"ok","id":1})).await;
    let token = Key::default_secret().user("alice");
    client
        .send(json!({"type":"refresh","id":1,"token":token}))
        .await;
    client.expect_json(json!({"type":"refreshed","id":1})).await;
    drop(client);

    let of_session = [("curfew.session.id", id.as_str()), ("user.id", "alice")];
    let end = jaeger.span("session end", &of_session).await;
    let upgrade = jaeger.span("GET /ws", &of_session).await;
    assert_eq!(end.links, [upgrade.id.as_str()]);
    assert!(end.began_micros >= upgrade.began_micros);
    for operation in ["subscribe", "unsubscribe", "publish", "refresh"] {
        let operation = format!("curfew.{operation}");
        let command = jaeger.span(&operation, &of_session).await;
        assert_eq!(command.links, [upgrade.id.as_str()]);
    }
    let of_session = [("curfew.session.id", id.as_str())];
    jaeger.spans("verify token", &of_session, 2).await;
    jaeger.span("admission", &of_session).await;
    jaeger.spans("authorize", &of_session, 2).await;

    // Now the token comes in the first message.
    let mut client = node.ws().open().await;
    client.send(json!({"type":"auth","token":token})).await;
    let connected = client.next_json().await;
    let id = connected["session"].as_str().unwrap();
    let of_session = [("curfew.session.id", id)];
    let auth = jaeger.span("curfew.auth", &of_session).await;
    for part in ["verify token", "admission"] {
        let part = jaeger.span(part, &of_session).await;
        assert_eq!(part.parent.as_ref(), Some(&auth.id));
    }
}

/// Regression: spans of refusals never named the user, even where the settings allow it.
#[tokio::test]
async fn users_are_named_on_refusals_only_where_they_may_be() {
    let jaeger = Jaeger::start().await;
    for (named, user) in [(false, "alice"), (true, "bob")] {
        let settings = jaeger
            .rarely()
            .with(&format!("telemetry.trace_user_ids = {named}"))
            .rules("");
        let node = Gateway::start_with(&settings).await;
        let token = Key::default_secret().user(user);
        let (mut client, connected) = node.connected(node.ws().bearer(&token)).await;
        client
            .send(json!({"type":"publish","id":1,"channel":"room:1","data":1}))
            .await;
        client
            .expect_json(json!({"type":"error","code":"forbidden"}))
            .await;
        client
            .send(json!({"type":"unsubscribe","channel":"x"}))
            .await;
        client
            .expect_json(json!({"type":"error","code":"not_subscribed"}))
            .await;
        let revoked = node.revoke(json!({"kind":"user","value":user})).await;
        assert_eq!(revoked["closed"], 1);
        let mut refused = node.ws().bearer(&token).open().await;
        refused.expect_auth_failed("revoked", 4403).await;

        let id = connected["session"].as_str().unwrap();
        let of_session = [("curfew.session.id", id)];
        let mut spans = Vec::new();
        for operation in ["curfew.publish", "curfew.unsubscribe", "session end"] {
            spans.push(jaeger.span(operation, &of_session).await);
        }
        let count = 1 + usize::from(named);
        let revoked = [("error.type", "revoked")];
        let refused = jaeger.spans("GET /ws", &revoked, count).await;
        let here = refused.into_iter().find(|span| span.node == spans[0].node);
        spans.push(here.unwrap());
        for span in spans {
            let name = span.tags.get("user.id").map(String::as_str);
            assert_eq!(name, named.then_some(user), "{span:#?}");
        }
    }
}
