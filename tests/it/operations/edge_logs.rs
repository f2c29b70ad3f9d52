//! Load balancers in front of Curfew do not log the query, which can hold tokens.

use curfew_testkit::Connect;
use curfew_testkit::http::{self, exchange};
use curfew_testkit::mint::Key;
use curfew_tests::{Gateway, Settings, eventually};

use super::haproxy::LoadBalancer;
use super::tools::{files_below, text_of};

/// Settings and variables that make HAProxy, nginx or Envoy log a whole request line, URL or query.
const WITH_QUERY: [&str; 13] = [
    "option httplog",
    " %r ",
    "%{+Q}r",
    "%HU",
    "%HQ",
    "%[url]",
    "%[query]",
    "$request",
    "$args",
    "$query_string",
    "$http_referer",
    "%REQ(:PATH",
    "%REQ(X-ENVOY-ORIGINAL-PATH",
];

/// Regression: the load balancer's log contained a secret that Curfew's own log leaves out.
#[tokio::test]
async fn the_load_balancers_log_has_no_token_whatever_comes_of_the_request() {
    let settings = Settings::default().with("auth.tickets = true");
    let node = Gateway::start_with(&settings).await;
    let nobody = Gateway::start_with(&settings).await;
    let third = Gateway::start_with(&settings).await;
    let balancer = LoadBalancer::start(&[&node, &nobody, &third].map(Into::into)).await;
    let token = Key::default_secret().user("alice");
    let mut secrets = Vec::new();
    for (at, name) in ["token", "access_token", "ticket", "cf_connect", "x"]
        .iter()
        .enumerate()
    {
        let secret = format!("secret-{at}-of-a-client");
        for path in [
            "/ws",
            "/v1/tickets",
            "/revoke",
            "/events/idp",
            "/nothing",
            "//ws",
            "/ws/",
        ] {
            let path = format!("{path}?a=b&{name}={secret}");
            http::request(balancer.public(), "GET", &path, &[("Referer", &path)], b"").await;
            // One request is in absolute form, and the other requests are malformed.
            for line in [
                format!("GET http://a{path} HTTP/1.1\r\nHost: a\r\n\r\n"),
                format!("GET {path} HTTP/1.1\r\nHost: a\r\nbad header\r\n\r\n"),
                format!("GET {path} x HTTP/1.1\r\nHost: a\r\n\r\n"),
            ] {
                drop(exchange(balancer.public(), line.as_bytes()).await);
            }
        }
        secrets.push(secret);
    }
    let open = Connect::to(balancer.public()).path(format!("/ws?token={token}"));
    let (client, _) = node.connected(open).await;
    client.reset();
    secrets.push(token);
    eventually("every request in the log", async || {
        let log = balancer.log();
        let lines = log.lines().filter(|line| line.contains(" public ")).count();
        (lines > 5 * 7 * 4 && log.contains(" 101 ")).then_some(())
    })
    .await;
    let log = balancer.log();
    assert!(log.contains("GET /ws HTTP/1.1"), "{log}");
    for secret in secrets {
        assert!(!log.contains(&secret), "the log has {secret}:\n{log}");
    }
}

#[test]
fn no_shipped_file_has_queries_logged() {
    let mut seen = 0;
    for path in ["deploy", "k8s"]
        .into_iter()
        .flat_map(|folder| files_below(folder, ""))
    {
        let ending = path.extension().and_then(|ending| ending.to_str());
        // Guides name the forbidden variables. Pictures and the dashboard are no configurations.
        if matches!(ending, Some("md" | "json" | "png")) {
            continue;
        }
        seen += 1;
        let text = std::fs::read_to_string(&path).unwrap();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            for what in WITH_QUERY {
                assert!(!line.contains(what), "{}: {what} in {line}", path.display());
            }
        }
    }
    assert!(seen > 20, "only {seen} files were checked");
    let ingress = text_of("k8s/components/ingress-nginx/ingress.yaml");
    assert!(ingress.contains("enable-access-log: \"false\""));
}
