//! Tickets. A ticket lets its holder open one connection by a URL that others may read (SECURITY
//! T1, row 4).

mod pages;

use curfew_testkit::http::{self, Response};
use curfew_testkit::mint::Key;
use curfew_testkit::{Connect, PATIENCE, WsClient, unix_now};
use curfew_tests::{
    Attempt, Cluster, Gateway, Kind, Link, Redis, RedisCluster, Settings, eventually,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const PATH: &str = "/v1/tickets";
const APP: &str = "https://app.example";
const OTHER: &str = "https://other.example";

fn settings() -> Settings {
    Settings::default().with("auth.tickets = true")
}

fn token(user: &str) -> String {
    Key::default_secret().user(user)
}

/// Requests a ticket.
async fn ask(node: &Gateway, token: &str, headers: &[(&str, &str)], body: &str) -> Response {
    let bearer = format!("Bearer {token}");
    let mut all = vec![("Authorization", bearer.as_str())];
    all.extend(headers);
    http::request(node.address(), "POST", PATH, &all, body.as_bytes()).await
}

/// The ticket in the answer, which must be 201.
fn ticket_of(answer: &Response) -> String {
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()["ticket"].as_str().unwrap().to_owned()
}

/// A ticket for a program that is not a browser.
async fn ticket(node: &Gateway, token: &str) -> String {
    ticket_of(&ask(node, token, &[], "").await)
}

fn with_ticket(node: &Gateway, ticket: &str) -> Connect {
    node.ws().path(format!("/ws?ticket={ticket}"))
}

async fn attempt(node: &Gateway, ticket: &str) -> Attempt {
    Attempt::make(with_ticket(node, ticket)).await
}

fn is_gone(attempt: &Attempt) -> bool {
    matches!(attempt, Attempt::Refused(reason, 4401) if reason == "expired")
}

async fn open(node: &Gateway, ticket: &str) -> (WsClient, Value) {
    node.connected(with_ticket(node, ticket)).await
}

/// The keys in Redis that store tickets.
async fn kept(redis: &Redis) -> Vec<String> {
    redis.run(&["KEYS", "curfew:ticket:*"]).await.texts()
}

#[tokio::test]
async fn a_ticket_opens_one_session_with_the_token_behind_it() {
    let node = Gateway::start_with(&settings()).await;
    let answer = ask(&node, &token("alice"), &[], "").await;
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let ticket = ticket_of(&answer);
    assert_eq!(
        answer.json(),
        json!({"ticket":ticket.as_str(),"expires_in":30})
    );
    assert_eq!(ticket.len(), 43);
    let (mut client, connected) = open(&node, &ticket).await;
    assert_eq!(connected["user"], "alice");
    // The session is like any other session: a token renews it, and a ticket does not.
    let renewed = token("alice");
    client
        .send(json!({"type":"refresh","id":1,"token":renewed}))
        .await;
    client.expect_json(json!({"type":"refreshed","id":1})).await;
    let another = ask(&node, &renewed, &[], "").await;
    client
        .send(json!({"type":"refresh","id":2,"token":ticket_of(&another)}))
        .await;
    client.expect_json(json!({"type":"error","id":2})).await;

    let mut again = with_ticket(&node, &ticket).open().await;
    let told = again.expect_auth_failed("expired", 4401).await;
    let told = told["message"].as_str().unwrap();
    assert!(
        told.contains("used before") && told.contains("30 s"),
        "{told}"
    );
    for (outcome, count) in [("issued", 2.0), ("redeemed", 1.0), ("not_found", 1.0)] {
        let name = format!("curfew_tickets_total{{outcome=\"{outcome}\"}}");
        assert_eq!(node.metric(&name).await, count, "{outcome}");
    }
    let unknown = "A".repeat(43);
    assert!(is_gone(&attempt(&node, &unknown).await));
}

#[tokio::test]
async fn of_many_who_show_one_ticket_on_all_nodes_one_is_let_in() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(2, &redis.url(), &settings()).await;
    for _ in 0..5 {
        let ticket = ticket(&cluster[0], &token("alice")).await;
        let mut showing = JoinSet::new();
        for at in 0..20 {
            showing.spawn(Attempt::make(with_ticket(&cluster[at % 2], &ticket)));
        }
        let (open, others): (Vec<_>, Vec<_>) = showing
            .join_all()
            .await
            .into_iter()
            .partition(Attempt::is_open);
        assert_eq!(open.len(), 1);
        assert!(others.iter().all(is_gone), "{others:?}");
    }
}

#[tokio::test]
async fn a_ticket_of_one_node_is_used_on_another_over_a_redis_cluster() {
    let redis = RedisCluster::start().await;
    let cluster = Cluster::start(2, &redis.url(), &settings()).await;
    // The keys of twelve tickets are spread over all servers.
    for n in 0..12 {
        let user = format!("user-{n}");
        let ticket = ticket(&cluster[0], &token(&user)).await;
        let (_, connected) = open(&cluster[1], &ticket).await;
        assert_eq!(connected["user"], user);
        assert!(is_gone(&attempt(&cluster[0], &ticket).await));
    }
}

#[tokio::test]
async fn a_ticket_ends_with_its_lifetime() {
    let redis = Redis::start().await;
    let short = settings().with("auth.ticket_lifetime = \"1s\"");
    let cluster = Cluster::start(1, &redis.url(), &short).await;
    let answer = ask(&cluster[0], &token("alice"), &[], "").await;
    assert_eq!(answer.json()["expires_in"], 1);
    eventually("the end of the ticket", async || {
        kept(&redis).await.is_empty().then_some(())
    })
    .await;
    assert!(is_gone(&attempt(&cluster[0], &ticket_of(&answer)).await));
}

#[tokio::test]
async fn what_redis_holds_tells_no_token_and_cannot_be_forged() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(1, &redis.url(), &settings()).await;
    let token = token("alice");
    let used = ticket(&cluster[0], &token).await;
    let keys = kept(&redis).await;
    assert_eq!(keys.len(), 1);
    assert!(!keys[0].contains(&used[..8]), "{keys:?}");
    let value = redis.run(&["GET", &keys[0]]).await.text();
    for part in token.split('.').chain(["token", "origin", &used]) {
        assert!(!value.contains(part), "{part} is in {value}");
    }
    let left = redis.run(&["PTTL", &keys[0]]).await.integer();
    assert!((1..=30_000).contains(&left), "{left} ms");
    open(&cluster[0], &used).await;
    assert!(kept(&redis).await.is_empty());

    // A thief who can write to Redis and knows the ticket cannot use it.
    let stolen = ticket(&cluster[0], &token).await;
    let key = &kept(&redis).await[0];
    let plain = json!({"token":token,"origin":null}).to_string();
    for forged in [plain.as_str(), "", "x", value.as_str()] {
        redis.run(&["SET", key, forged]).await;
        assert!(is_gone(&attempt(&cluster[0], &stolen).await), "{forged}");
    }
    // The sealed bytes of one ticket do not work for another ticket.
    let (one, other) = (
        ticket(&cluster[0], &token).await,
        kept(&redis).await.remove(0),
    );
    let two = ticket(&cluster[0], &token).await;
    let keys = kept(&redis).await;
    let second = keys.iter().find(|key| **key != other).unwrap();
    redis.run(&["RENAME", &other, second]).await;
    assert!(is_gone(&attempt(&cluster[0], &two).await));
    assert!(is_gone(&attempt(&cluster[0], &one).await));
    cluster[0].assert_alive().await;
}

#[tokio::test]
async fn while_redis_is_away_neither_ticket_nor_token_is_to_blame() {
    let redis = Redis::start().await;
    let cluster = Cluster::behind_proxies(1, &redis, &settings()).await;
    let node = &cluster[0];
    let token = token("alice");
    let early = ticket(node, &token).await;
    for link in [Link::CUT, Link::BLACK_HOLE] {
        cluster.proxy(0).set(link);
        let answer = ask(node, &token, &[], "").await;
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(answer.header("retry-after").is_some());
        assert!(attempt(node, &early).await.is_unavailable(), "{link:?}");
        cluster.proxy(0).set(Link::PASS);
        cluster.synced().await;
    }
    assert!(
        node.metric("curfew_tickets_total{outcome=\"unavailable\"}")
            .await
            >= 4.0
    );
    open(node, &ticket(node, &token).await).await;
}

#[tokio::test]
async fn an_answer_that_is_lost_uses_the_ticket_up() {
    let redis = Redis::start().await;
    let cluster = Cluster::behind_proxies(1, &redis, &settings()).await;
    let node = &cluster[0];
    let lost = ticket(node, &token("alice")).await;
    // Redis executes the command, but its answer does not arrive.
    cluster.proxy(0).set_only(Kind::Other, Link::MUTE);
    assert!(attempt(node, &lost).await.is_unavailable());
    assert!(kept(&redis).await.is_empty());
    cluster.proxy(0).set(Link::PASS);
    cluster.synced().await;
    assert!(is_gone(&attempt(node, &lost).await));
}

#[tokio::test]
async fn the_token_behind_a_ticket_is_verified_again() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(2, &redis.url(), &settings()).await;
    let given = Key::default_secret().user_with("alice", json!({"jti":"given"}));
    let used = ticket(&cluster[0], &given).await;
    cluster[0]
        .revoke(json!({"kind":"token","value":"given"}))
        .await;
    assert!(attempt(&cluster[1], &used).await.is_revoked());
    let answer = ask(&cluster[1], &given, &[], "").await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.json()["reason"], "revoked");

    // The key that signed the ticket's token is no longer accepted.
    let used = ticket(&cluster[0], &token("bob")).await;
    let other = settings().on_redis(&redis.url()).issuers(
        "[[auth.issuers]]\nname = \"main\"\nsecret = \"another-secret-of-at-least-32-bytes!\"\n",
    );
    let node = Gateway::start_with(&other).await;
    node.until_in_touch(PATIENCE).await;
    let attempt = attempt(&node, &used).await;
    assert!(
        matches!(&attempt, Attempt::Refused(reason, 4401) if reason == "bad_signature"),
        "{attempt:?}"
    );
}

#[tokio::test]
async fn a_bad_token_gets_no_ticket_and_is_told_why() {
    let node = Gateway::start_with(&settings()).await;
    let key = Key::default_secret();
    let expired = key.user_with("alice", json!({"exp":unix_now() - 60}));
    let stranger = Key::hmac("HS256", &[7; 32]).user("alice");
    for (token, reason) in [
        ("", "missing_token"),
        ("nonsense", "malformed"),
        (&expired, "expired"),
        (&stranger, "bad_signature"),
    ] {
        let answer = ask(&node, token, &[], "").await;
        assert_eq!(answer.status, 401, "{}", answer.text());
        let body = answer.json();
        assert_eq!(body["type"], "auth_failed", "{body}");
        assert_eq!(body["reason"], reason, "{body}");
        let challenge = answer.header("www-authenticate").unwrap_or_default();
        assert!(challenge.starts_with("Bearer"), "{challenge}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    // A request for a ticket may only carry the token in the header, even if upgrades allow other
    // sources.
    let good = token("alice");
    let cookie = format!("__Host-curfew-token={good}");
    let path = format!("{PATH}?token={good}");
    let answer = http::request(node.address(), "POST", &path, &[("Cookie", &cookie)], b"").await;
    assert_eq!(answer.json()["reason"], "missing_token");
    let two = [("Authorization", "Bearer x.y.z")];
    let answer = ask(&node, &good, &two, "").await;
    assert_eq!(answer.json()["reason"], "ambiguous_token");
    let by_header = settings().with("auth.token_sources = [\"message\"]");
    let node = Gateway::start_with(&by_header).await;
    open(&node, &ticket(&node, &good).await).await;
}

#[tokio::test]
async fn a_request_of_another_form_gets_no_ticket() {
    let node = Gateway::start_with(&settings()).await;
    let good = token("alice");
    for method in ["GET", "PUT", "DELETE"] {
        let answer = http::request(node.address(), method, PATH, &[], b"").await;
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.header("allow"), Some("POST, OPTIONS"));
    }
    let long = json!({"origin":format!("https://{}.example", "a".repeat(1024))}).to_string();
    for (body, status) in [
        ("x", 400),
        ("[]]", 400),
        ("{\"origin\":7}", 400),
        ("{\"orign\":\"https://app.example\"}", 400),
        ("{\"origin\":\"https://app.example/\"}", 400),
        ("{\"origin\":\"null\"}", 400),
        (&long, 413),
        ("{}", 201),
        ("{\"origin\":null}", 201),
    ] {
        let answer = ask(&node, &good, &[], body).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
    }
    let origins = [("Origin", APP), ("Origin", OTHER)];
    assert_eq!(ask(&node, &good, &origins, "").await.status, 400);
}

#[tokio::test]
async fn a_ticket_and_another_credential_are_ambiguous() {
    let settings = settings()
        .with(&format!("server.allowed_origins = [{APP:?}]"))
        .with(r#"auth.token_sources = ["header","subprotocol","query","message","cookie"]"#);
    let node = Gateway::start_with(&settings).await;
    let token = token("alice");
    let (one, two) = (ticket(&node, &token).await, ticket(&node, &token).await);
    let cookie = format!("__Host-curfew-token={token}");
    let offer = format!("curfew.v1, bearer.{token}");
    for connect in [
        with_ticket(&node, &one).bearer(&token),
        with_ticket(&node, &one).subprotocols(&offer),
        with_ticket(&node, &one).header("Cookie", cookie),
        node.ws().path(format!("/ws?ticket={one}&token={token}")),
        node.ws()
            .path(format!("/ws?access_token={token}&ticket={one}")),
        node.ws().path(format!("/ws?ticket={one}&ticket={two}")),
    ] {
        let mut client = connect.open().await;
        client.expect_auth_failed("ambiguous_token", 4401).await;
    }
    let mut odd = node.ws().path("/ws?ticket=odd").open().await;
    odd.expect_auth_failed("malformed", 4401).await;
    // None of these refusals has used up the ticket.
    let twice = node.ws().path(format!("/ws?ticket={one}&a=b&ticket={one}"));
    node.connected(twice).await;
    open(&node, &two).await;
}

#[tokio::test]
async fn with_reject_http_a_ticket_that_was_used_is_answered_401() {
    let node = Gateway::start_with(&settings().with(r#"auth.reject = "http""#)).await;
    let used = ticket(&node, &token("alice")).await;
    open(&node, &used).await;
    let refused = with_ticket(&node, &used).refused().await;
    assert_eq!(refused.status, 401);
    assert_eq!(refused.json()["reason"], "expired");
    let challenge = refused.header("www-authenticate").unwrap_or_default();
    assert!(challenge.contains("invalid_token"), "{challenge}");
}

#[tokio::test]
async fn tickets_count_among_the_handshakes_of_a_second() {
    let node = Gateway::start_with(&settings().with("limits.handshakes_per_second = 3")).await;
    let good = token("alice");
    let refused = eventually("too many requests", async || {
        let answer = ask(&node, &good, &[("Origin", APP)], "").await;
        (answer.status != 201).then_some(answer)
    })
    .await;
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some());
    assert_eq!(refused.header("access-control-allow-origin"), Some(APP));
}

#[tokio::test]
async fn a_node_that_leaves_gives_no_ticket() {
    let settings = settings().with(r#"drain.window = "2s""#);
    let node = Gateway::start_with(&settings).await;
    // The open session keeps the node from ending before the request for a ticket.
    let _staying = node.user("bob").await;
    node.terminate();
    let refused = eventually("a refusal", async || {
        let answer = ask(&node, &token("alice"), &[], "").await;
        (answer.status != 201).then_some(answer)
    })
    .await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
}

#[tokio::test]
async fn until_it_is_configured_there_are_no_tickets() {
    let node = Gateway::start_default().await;
    assert_eq!(ask(&node, &token("alice"), &[], "").await.status, 404);
    let preflight = http::request(node.address(), "OPTIONS", PATH, &[], b"").await;
    assert_eq!(preflight.status, 404);
    // The parameter `ticket` is ignored, as each unknown parameter is.
    let with_token = with_ticket(&node, "odd").bearer(&token("alice"));
    assert_eq!(node.connected(with_token).await.1["user"], "alice");
    let mut client = with_ticket(&node, "odd").open().await;
    client
        .send(json!({"type":"auth","token":token("alice")}))
        .await;
    client.expect_json(json!({"type":"connected"})).await;
}
