//! The shipped load balancer in front of real nodes.

use curfew_testkit::mint::Key;
use curfew_testkit::{Connect, PATIENCE, http};
use curfew_tests::{Cluster, Gateway, LEASE, Link, Redis, Settings};
use serde_json::json;

use super::couplings::public_paths;
use super::haproxy::{LoadBalancer, relay};

#[tokio::test]
async fn sessions_go_to_the_emptiest_node_and_only_what_is_public_goes_anywhere() {
    let settings = Settings::default();
    let (first, second, third) = (
        Gateway::start_with(&settings).await,
        Gateway::start_with(&settings).await,
        Gateway::start_with(&settings).await,
    );
    let nodes = [&first, &second, &third];
    let balancer = LoadBalancer::start(&nodes.map(Into::into)).await;
    let mut clients = Vec::new();
    for n in 0..9 {
        let mut client = balancer.user(&format!("user-{n}")).open().await;
        client.expect_json(json!({"type":"connected"})).await;
        clients.push(client);
    }
    for node in nodes {
        node.until_metric("curfew_sessions", |n| n == 3.0).await;
    }
    for path in ["/", "/metrics", "/readyz", "/v1/sessions"] {
        let answer = http::request(balancer.public(), "GET", path, &[], b"").await;
        let by = answer.header("content-type");
        assert_eq!((answer.status, by), (404, Some("text/plain")), "{path}");
    }
    // Each node answers that these endpoints are not configured. Its answer shows that the load
    // balancer lets the request through.
    for path in public_paths() {
        let answer = http::request(balancer.public(), "POST", &path, &[], b"").await;
        let by = answer.header("content-type");
        let by_node = by != Some("text/plain");
        assert!(by_node, "{path} is not let through: {}", answer.text());
    }
}

/// Regression: the load balancer had a lower limit on a token's length than Curfew.
#[tokio::test]
async fn a_token_as_long_as_curfew_takes_comes_through() {
    let nodes = [
        Gateway::start_default().await,
        Gateway::start_default().await,
        Gateway::start_default().await,
    ];
    let balancer = LoadBalancer::start(&nodes.each_ref().map(Into::into)).await;
    let groups = "x".repeat(12_000);
    let token = Key::default_secret().user_with("alice", json!({"groups":groups}));
    assert!((16_000..16_384).contains(&token.len()), "{}", token.len());
    for connect in [
        Connect::to(balancer.public()).bearer(&token),
        Connect::to(balancer.public()).path(format!("/ws?token={token}")),
    ] {
        let mut client = connect.open().await;
        client.expect_json(json!({"type":"connected"})).await;
    }
}

#[tokio::test]
async fn who_comes_while_a_node_drains_is_let_in_by_another() {
    let settings = Settings::default().with("drain.window = \"3s\"");
    let (mut leaving, second, third) = (
        Gateway::start_with(&settings).await,
        Gateway::start_with(&settings).await,
        Gateway::start_with(&settings).await,
    );
    let balancer = LoadBalancer::start(&[&leaving, &second, &third].map(Into::into)).await;
    let mut clients = Vec::new();
    for n in 0..9 {
        let mut client = balancer.user(&format!("user-{n}")).open().await;
        client.expect_json(json!({"type":"connected"})).await;
        clients.push(client);
    }
    leaving.terminate();
    // The node already refuses clients, but the load balancer checks its readiness only once a
    // second.
    let refuses = leaving.log().line(PATIENCE, |line| {
        line.contains(r#""message":"draining""#).then_some(())
    });
    refuses.await.expect("a node logs its drain");
    for n in 0..9 {
        let mut client = balancer.user(&format!("late-{n}")).open().await;
        client.expect_json(json!({"type":"connected"})).await;
        clients.push(client);
    }
    assert_eq!(leaving.exited(PATIENCE).await, 0);
    let kept = second.metric("curfew_sessions").await + third.metric("curfew_sessions").await;
    assert_eq!(
        kept, 15.0,
        "six earlier and nine late sessions are expected"
    );
}

#[tokio::test]
async fn a_node_that_is_out_of_touch_alone_is_got_around() {
    let redis = Redis::start().await;
    let cluster = Cluster::behind_proxies(3, &redis, &Settings::default()).await;
    let nodes = [0, 1, 2].map(|at| (&cluster[at]).into());
    let balancer = LoadBalancer::start(&nodes).await;
    cluster.proxy(0).set(Link::CUT);
    cluster[0].until_out_of_touch(LEASE * 2, &[]).await;
    // The node counts as ready and has the fewest connections, so the load balancer tries it first.
    // The node then refuses.
    let mut clients = Vec::new();
    for n in 0..9 {
        let mut client = balancer.user(&format!("user-{n}")).open().await;
        client.expect_json(json!({"type":"connected"})).await;
        clients.push(client);
    }
    let refused = r#"curfew_connections_rejected_total{reason="unavailable"}"#;
    assert!(cluster[0].metric(refused).await > 0.0);
    let kept =
        cluster[1].metric("curfew_sessions").await + cluster[2].metric("curfew_sessions").await;
    assert_eq!(kept, 9.0);
}

/// Regression: a client could send a header that only its load balancer should send.
#[tokio::test]
async fn what_a_client_says_of_its_address_does_not_get_through() {
    let settings = Settings::default().with(r#"server.trusted_proxies = ["127.0.0.1"]"#);
    let (first, second, third) = (
        Gateway::start_with(&settings).await,
        Gateway::start_with(&settings).await,
        Gateway::start_with(&settings).await,
    );
    let balancer = LoadBalancer::start(&[&first, &second, &third].map(Into::into)).await;
    for (name, value) in [
        ("X-Forwarded-For", "203.0.113.1"),
        ("Forwarded", "for=203.0.113.1"),
    ] {
        let mut client = balancer.user("alice").header(name, value).open().await;
        let connected = client.expect_json(json!({"type":"connected"})).await;
        let path = format!("/v1/sessions/{}", connected["session"].as_str().unwrap());
        let mut shown = Vec::new();
        for node in [&first, &second, &third] {
            let (status, session) = node.admin("GET", &path, None).await;
            shown.extend((status == 200).then(|| session["address"].clone()));
        }
        assert_eq!(shown, [json!("127.0.0.1")], "{name}");
    }
}

/// HAProxy itself writes the header, so the test does not rely on Curfew's own reading of the
/// specification.
#[tokio::test]
async fn haproxys_own_proxy_header_is_read_in_both_versions() {
    let settings = Settings::default().with("server.proxy_protocol = true");
    let node = Gateway::start_with(&settings).await;
    for version in ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl-cn"] {
        let relay = relay(node.address(), version).await;
        let mut client = relay.user("alice").open().await;
        let connected = client.expect_json(json!({"type":"connected"})).await;
        let path = format!("/v1/sessions/{}", connected["session"].as_str().unwrap());
        let session = node.admin_ok("GET", &path, None).await;
        // The session has the client's address that HAProxy states, and not the address of HAProxy.
        assert_eq!(session["address"], "203.0.113.7", "{version}");
    }
}
