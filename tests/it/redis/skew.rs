//! A node whose clock is known to be wrong does not judge tokens by it (CONTRACT §3, §8 R8).

use std::time::Duration;

use curfew_testkit::http::{self, Response};
use curfew_testkit::mint::Key;
use curfew_testkit::unix_now;
use curfew_tests::{Attempt, Cluster, Gateway, Link, Proxy, Redis, Settings};
use serde_json::{Value, json};

/// Deadline for a node to notice a wrong clock, or to recover from it.
const SOON: Duration = Duration::from_secs(15);

fn settings() -> Settings {
    Settings::default()
        .with("auth.token_revocation = true")
        .with("auth.tickets = true")
}

fn token(claims: Value) -> String {
    Key::default_secret().user_with("alice", claims)
}

/// Tokens that are valid except for their times. Each has the reason for which it is refused.
fn mistimed() -> [(String, &'static str); 3] {
    let now = unix_now();
    [
        (token(json!({"iat":now - 900,"exp":now - 600})), "expired"),
        (token(json!({"nbf":now + 600})), "not_yet_valid"),
        (token(json!({"iat":now + 600})), "not_yet_valid"),
    ]
}

async fn post(node: &Gateway, path: &str, header: (&str, &str), body: &str) -> Response {
    http::request(node.address(), "POST", path, &[header], body.as_bytes()).await
}

async fn ask_for_ticket(node: &Gateway, token: &str) -> Response {
    let bearer = format!("Bearer {token}");
    post(node, "/v1/tickets", ("Authorization", &bearer), "").await
}

async fn give_back(node: &Gateway, token: &str) -> Response {
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    post(node, "/revoke", form, &format!("token={token}")).await
}

/// The reason and the close code with which a token in the first message is refused.
async fn by_message(node: &Gateway, token: &str) -> (String, u16) {
    let mut client = node.ws().open().await;
    client.send(json!({"type":"auth","token":token})).await;
    let first = client.next_json().await;
    let reason = first["reason"].as_str().unwrap_or_default().to_owned();
    (reason, client.closed().await.0)
}

async fn explained(node: &Gateway, token: &str) -> u16 {
    let body = json!({"token":token,"action":"publish","channel":"room:1"});
    node.admin("POST", "/v1/explain", Some(body)).await.0
}

#[tokio::test]
async fn what_the_clock_decides_is_no_fault_of_the_token_while_it_is_known_to_be_off() {
    let redis = Redis::start().await;
    let cluster = Cluster::behind_proxies(1, &redis, &settings()).await;
    let node = &cluster[0];
    let mut open = node.user("alice").await;
    // Every call below verifies a token and counts the result, except for the explanations.
    let refused = "curfew_authentications_total{outcome=\"refused\"}";
    for seconds in [3600, -3600] {
        cluster.proxy(0).shift_time(seconds);
        node.until_out_of_touch(SOON, &["clock"]).await;
        let before = node.metric(refused).await;
        for (token, why) in mistimed() {
            let attempt = node.attempt_with(&token).await;
            assert!(attempt.is_unavailable(), "{why}: {attempt:?}");
            let told = by_message(node, &token).await;
            assert_eq!(told, ("unavailable".to_owned(), 4503), "{why}");
            open.send(json!({"type":"refresh","id":1,"token":token}))
                .await;
            open.expect_json(json!({"type":"error","id":1,"code":"unavailable"}))
                .await;
            let ticket = ask_for_ticket(node, &token).await;
            assert_eq!(ticket.status, 503, "{why}: {}", ticket.text());
            assert!(ticket.header("retry-after").is_some(), "{why}");
            assert_eq!(give_back(node, &token).await.status, 503, "{why}");
            assert_eq!(explained(node, &token).await, 503, "{why}");
        }
        assert_eq!(node.metric(refused).await, before);
        // The node does not accept a token that is valid by its wrong clock either.
        let good = token(json!({}));
        assert!(node.attempt_with(&good).await.is_unavailable());
        open.send(json!({"type":"refresh","id":2,"token":good}))
            .await;
        open.expect_json(json!({"type":"error","id":2,"code":"unavailable"}))
            .await;
        // Refusals that do not depend on the clock are unchanged.
        let forged = Key::hmac("HS256", b"another secret of another issuer 0123456789");
        match node.attempt_with(&forged.user("alice")).await {
            Attempt::Refused(reason, 4401) => assert_eq!(reason, "bad_signature"),
            other => panic!("{other:?}"),
        }
        assert_eq!(node.metric(refused).await, before + 1.0);

        cluster.proxy(0).shift_time(0);
        node.until_in_touch(SOON).await;
        for (token, why) in mistimed() {
            match node.attempt_with(&token).await {
                Attempt::Refused(reason, 4401) => assert_eq!(reason, why),
                other => panic!("{why}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn below_the_bound_and_on_the_embedded_backend_tokens_are_judged_as_ever() {
    let redis = Redis::start().await;
    let cluster = Cluster::behind_proxies(1, &redis, &settings()).await;
    // A difference of a few seconds is normal. The node then still trusts its clock.
    cluster.proxy(0).shift_time(20);
    let embedded = Gateway::start_with(&settings()).await;
    for node in [&cluster[0], &embedded] {
        for (token, why) in mistimed() {
            match node.attempt_with(&token).await {
                Attempt::Refused(reason, 4401) => assert_eq!(reason, why),
                other => panic!("{why}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn before_the_clock_was_ever_compared_it_decides_nothing() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(redis.address()).await;
    proxy.set(Link::BLACK_HOLE);
    proxy.shift_time(3600);
    let settings = settings().on_redis(&format!("redis://{}", proxy.address()));
    let node = Gateway::start_with(&settings).await;
    let all_unavailable = async || {
        for (token, why) in mistimed() {
            let attempt = node.attempt_with(&token).await;
            assert!(attempt.is_unavailable(), "{why}: {attempt:?}");
        }
    };
    all_unavailable().await;
    proxy.set(Link::PASS);
    node.until_unready(SOON, &["clock"]).await;
    all_unavailable().await;
    proxy.shift_time(0);
    node.until_in_touch(SOON).await;
    assert!(node.attempt("alice").await.is_open());
}
