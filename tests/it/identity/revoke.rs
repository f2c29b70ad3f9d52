//! Token revocation by its holder (RFC 7009, IDENTITY row 137).

use curfew_testkit::http::{self, Response};
use curfew_testkit::mint::Key;
use curfew_tests::{Attempt, Cluster, Gateway, Link, Redis, Settings, eventually};
use serde_json::json;

fn settings() -> Settings {
    Settings::default().with("auth.token_revocation = true")
}

async fn give_back(node: &Gateway, body: &str) -> Response {
    let headers = [("Content-Type", "application/x-www-form-urlencoded")];
    http::request(node.address(), "POST", "/revoke", &headers, body.as_bytes()).await
}

fn token(user: &str, id: &str) -> String {
    Key::default_secret().user_with(user, json!({"jti":id}))
}

#[tokio::test]
async fn a_token_that_is_given_back_closes_its_sessions_on_every_node() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(2, &redis.url(), &settings()).await;
    let (given, kept) = (token("alice", "given"), token("alice", "kept"));
    let mut here = cluster[0].session(&given).await;
    let mut there = cluster[1].session(&given).await;
    let mut stays = cluster[1].session(&kept).await;
    let body = format!("token_type_hint=access_token&token={given}");
    let answer = give_back(&cluster[0], &body).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, ""));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    here.expect_close(4403, "revoked").await;
    there.expect_close(4403, "revoked").await;
    stays.send(json!({"type":"ping"})).await;
    stays.expect_json(json!({"type":"pong"})).await;
    assert!(cluster[1].attempt_with(&given).await.is_revoked());
    // The token is already revoked. A second revocation is no error.
    assert_eq!(give_back(&cluster[1], &body).await.status, 200);
}

#[tokio::test]
async fn what_is_no_good_token_is_no_error() {
    let node = Gateway::start_with(&settings()).await;
    let expired = Key::default_secret().user_with("alice", json!({"exp":1_000_000_000}));
    for bad in ["garbage", "a.b.c", "", expired.as_str()] {
        assert_eq!(
            give_back(&node, &format!("token={bad}")).await.status,
            200,
            "{bad}"
        );
    }
    for bad in ["", "tokn=x", "token=x&token=y"] {
        let answer = give_back(&node, bad).await;
        assert_eq!(answer.json()["error"], "invalid_request", "{bad}");
    }
    let nameless = Key::default_secret().user("alice");
    let answer = give_back(&node, &format!("token={nameless}")).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["error"], "unsupported_token_type");
    assert!(matches!(
        node.attempt_with(&nameless).await,
        Attempt::Open(_)
    ));
    let answer = http::request(node.address(), "GET", "/revoke", &[], b"").await;
    assert_eq!(answer.status, 405);
}

#[tokio::test]
async fn while_redis_is_away_it_may_be_tried_again() {
    let redis = Redis::start().await;
    let cluster = Cluster::behind_proxies(1, &redis, &settings()).await;
    let given = token("alice", "given");
    let mut session = cluster[0].session(&given).await;
    cluster.proxy(0).set(Link::CUT);
    let answer = give_back(&cluster[0], &format!("token={given}")).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.header("retry-after").is_some());
    session.expect_close(4403, "revoked").await;
    cluster.proxy(0).set(Link::PASS);
    eventually("the token to be revoked", async || {
        let answer = give_back(&cluster[0], &format!("token={given}")).await;
        (answer.status == 200).then_some(())
    })
    .await;
    assert!(cluster[0].attempt_with(&given).await.is_revoked());
}

#[tokio::test]
async fn until_it_is_configured_there_is_no_such_path() {
    let node = Gateway::start_default().await;
    assert_eq!(give_back(&node, "token=x").await.status, 404);
}

#[tokio::test]
async fn tokens_of_sessions_from_before_it_was_configured_can_be_given_back() {
    for told in [true, false] {
        let redis = Redis::start().await;
        let before = Settings::default();
        let cluster = Cluster::start(1, &redis.url(), &before).await;
        let (given, kept) = (token("alice", "given"), token("alice", "kept"));
        let mut closes = cluster[0].session(&given).await;
        let mut stays = cluster[0].session(&kept).await;
        cluster[0]
            .take_over(&settings().on_redis(&redis.url()), told)
            .await;
        let answer = give_back(&cluster[0], &format!("token={given}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        closes.expect_close(4403, "revoked").await;
        stays.send(json!({"type":"ping"})).await;
        stays.expect_json(json!({"type":"pong"})).await;
    }
}
