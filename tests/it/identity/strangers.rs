//! Reports of identity providers while a stranger sends junk. The junk must not stop revocation.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use curfew_testkit::http::{self, Response};
use curfew_tests::{Cluster, Gateway, Redis, eventually};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::interval;

use super::logout::{Login, assert_done};

/// Number of logouts that are sent at the same time.
const LOGOUTS: usize = 30;

/// The stranger's address. The other tests use another address.
const ELSEWHERE: &str = "127.0.0.2:0";

/// Posts a body that is no logout token, from the address `from`.
async fn junk(node: SocketAddr, from: &str) -> Response {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(from.parse().unwrap()).unwrap();
    let mut stream = socket.connect(node).await.unwrap();
    let body = "logout_token=eyJhbGciOiJFUzI1NiJ9.e30.AAAA";
    let length = body.len();
    let request = format!(
        "POST /logout/backchannel HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    http::read_response(&mut stream, &mut BytesMut::new())
        .await
        .unwrap()
}

/// Posts junk 150 times a second, until the returned value is dropped.
fn flood(node: SocketAddr, from: &'static str) -> JoinSet<()> {
    let mut flood = JoinSet::new();
    flood.spawn(async move {
        let mut beat = interval(Duration::from_secs(1) / 150);
        let mut posts = JoinSet::new();
        loop {
            beat.tick().await;
            posts.spawn(junk(node, from));
            while posts.try_join_next().is_some() {}
        }
    });
    flood
}

/// Logs out [`LOGOUTS`] provider sessions at once, and expects that each logout is written.
async fn assert_all_are_written(login: &Login, cluster: &Cluster) {
    let mut session = cluster[1].session(&login.access("user-0", "login-0")).await;
    let logouts: Vec<String> = (0..LOGOUTS)
        .map(|n| login.token(json!({"sub":format!("user-{n}"),"sid":format!("login-{n}")})))
        .collect();
    let mut posts = JoinSet::new();
    for logout in logouts {
        posts.spawn(post_to(cluster[0].address(), logout));
    }
    for answer in posts.join_all().await {
        assert_done(&answer);
    }
    session.expect_close(4403, "revoked").await;
    let listed = cluster[1].admin_ok("GET", "/v1/revocations", None).await;
    assert_eq!(listed["revocations"].as_array().unwrap().len(), LOGOUTS);
}

/// Posts a logout token from the address that the tests use by default.
async fn post_to(node: SocketAddr, token: String) -> Response {
    let headers = [("Content-Type", "application/x-www-form-urlencoded")];
    let body = format!("logout_token={token}");
    http::request(
        node,
        "POST",
        "/logout/backchannel",
        &headers,
        body.as_bytes(),
    )
    .await
}

/// Regression: logouts shared the limit of handshakes. A logout over the limit was refused and
/// never written.
#[tokio::test]
async fn the_limit_of_handshakes_loses_no_logout() {
    let (redis, login) = (Redis::start().await, Login::start().await);
    let settings = login.settings().with("limits.handshakes_per_second = 5");
    let cluster = Cluster::start(2, &redis.url(), &settings).await;
    assert_all_are_written(&login, &cluster).await;
}

/// Regression: a stranger's invalid reports kept the provider's reports from ending sessions, even
/// if the invalid reports came from the provider's address.
#[tokio::test]
async fn a_strangers_reports_keep_no_real_one_out() {
    for from in [ELSEWHERE, "127.0.0.1:0"] {
        let (redis, login) = (Redis::start().await, Login::start().await);
        let cluster = Cluster::start(2, &redis.url(), &login.settings()).await;
        let _flood = flood(cluster[0].address(), from);
        cluster[0]
            .until_metric("curfew_logouts_total{outcome=\"refused\"}", |junk| {
                junk > 50.0
            })
            .await;
        assert_all_are_written(&login, &cluster).await;
    }
}

/// Regression: reports with invalid signatures caused an unlimited number of signature checks.
#[tokio::test]
async fn an_address_whose_reports_do_not_verify_is_turned_away_unread() {
    let (redis, login) = (Redis::start().await, Login::start().await);
    let settings = login
        .settings()
        .with("limits.unverified_reports_per_second = 2");
    let cluster = Cluster::start(2, &redis.url(), &settings).await;
    let node = &cluster[0];
    let mut answers = Vec::new();
    for _ in 0..20 {
        answers.push(junk(node.address(), ELSEWHERE).await);
    }
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert!(
        statuses.contains(&400) && statuses.contains(&429),
        "{statuses:?}"
    );
    let refused = answers.iter().find(|answer| answer.status == 429).unwrap();
    assert!(refused.header("retry-after").is_some());
    assert_eq!(refused.json()["error"], "rate_limited");
    assert!(
        node.metric("curfew_logouts_total{outcome=\"rate_limited\"}")
            .await
            > 0.0
    );
    assert_warned_once(node).await;
    // The provider's reports come from another address, so they do not count towards the limit.
    assert_all_are_written(&login, &cluster).await;
    // The limit refills, and the address may post again.
    eventually("another post to be accepted", async || {
        let answer = junk(node.address(), ELSEWHERE).await;
        (answer.status == 400).then_some(())
    })
    .await;
}

async fn assert_warned_once(node: &Gateway) {
    let told = || {
        let lines = node.log().lines();
        let told = |line: &&String| line.contains("unverified_reports_per_second");
        lines.iter().filter(told).count()
    };
    eventually("a warning", async || (told() > 0).then_some(())).await;
    assert_eq!(told(), 1);
}
