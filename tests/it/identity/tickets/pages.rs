//! The pages that may use a ticket, and the pages that may request a ticket (Fetch, §3.2).

use super::*;

#[tokio::test]
async fn a_ticket_is_for_pages_of_the_origin_it_was_asked_for() {
    let node = Gateway::start_with(&settings()).await;
    let token = token("alice");
    let by_header = [("Origin", APP)];
    let in_body = json!({"origin":"HTTPS://App.Example:443"}).to_string();
    for (headers, body) in [
        (&by_header[..], ""),
        (&[][..], in_body.as_str()),
        (&by_header[..], in_body.as_str()),
    ] {
        let used = ticket_of(&ask(&node, &token, headers, body).await);
        let page = with_ticket(&node, &used).header("Origin", APP);
        assert_eq!(node.connected(page).await.1["user"], "alice", "{body}");
        for origin in [Some(OTHER), Some("null"), None] {
            let used = ticket_of(&ask(&node, &token, headers, body).await);
            let mut connect = with_ticket(&node, &used);
            if let Some(origin) = origin {
                connect = connect.header("Origin", origin);
            }
            let refused = connect.refused().await;
            assert_eq!(refused.status, 403, "{origin:?}: {}", refused.text());
            assert_eq!(refused.json()["code"], "forbidden_origin");
            // The attempt from another origin has used up the ticket.
            let page = with_ticket(&node, &used).header("Origin", APP);
            assert!(is_gone(&Attempt::make(page).await), "{origin:?}");
        }
    }
    let used = ticket(&node, &token).await;
    let page = with_ticket(&node, &used).header("Origin", APP);
    assert_eq!(
        page.refused().await.status,
        403,
        "a page used a ticket that is for no page"
    );
    // All pages with the origin `null` count as one origin, which differs from every real origin.
    let opaque = ticket_of(&ask(&node, &token, &[("Origin", "null")], "").await);
    let page = with_ticket(&node, &opaque).header("Origin", "null");
    node.connected(page).await;
    let refused = "curfew_tickets_total{outcome=\"refused\"}";
    assert_eq!(node.metric(refused).await, 10.0);
}

#[tokio::test]
async fn pages_that_may_not_connect_get_no_ticket() {
    let listed = settings().with(&format!("server.allowed_origins = [{APP:?}]"));
    let node = Gateway::start_with(&listed).await;
    let token = token("alice");
    let elsewhere = json!({"origin":OTHER}).to_string();
    for (headers, body) in [
        (vec![("Origin", OTHER)], ""),
        (vec![("Origin", "null")], ""),
        (vec![], elsewhere.as_str()),
    ] {
        let answer = ask(&node, &token, &headers, body).await;
        assert_eq!(answer.status, 403, "{}", answer.text());
        assert_eq!(answer.json()["code"], "forbidden_origin");
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    let contradicting = ask(&node, &token, &[("Origin", APP)], &elsewhere).await;
    assert_eq!(contradicting.status, 400, "{}", contradicting.text());
    let used = ticket_of(&ask(&node, &token, &[("Origin", APP)], "").await);
    let page = with_ticket(&node, &used).header("Origin", APP);
    node.connected(page).await;
    let used = ticket_of(&ask(&node, &token, &[("Origin", APP)], "").await);
    let page = with_ticket(&node, &used).header("Origin", OTHER);
    assert_eq!(page.refused().await.status, 403);
    // The node refused the upgrade before it looked up the ticket, so the ticket is not used up.
    let page = with_ticket(&node, &used).header("Origin", APP);
    node.connected(page).await;
}

#[tokio::test]
async fn a_page_of_another_origin_may_ask_and_may_read_the_answer() {
    for (node, others) in [
        (Gateway::start_with(&settings()).await, true),
        (
            Gateway::start_with(&settings().with(&format!("server.allowed_origins = [{APP:?}]")))
                .await,
            false,
        ),
    ] {
        let preflight = async |origin: &str| {
            let headers = [
                ("Origin", origin),
                ("Access-Control-Request-Method", "POST"),
                ("Access-Control-Request-Headers", "authorization"),
            ];
            http::request(node.address(), "OPTIONS", PATH, &headers, b"").await
        };
        let answer = preflight(APP).await;
        assert_eq!(answer.status, 204);
        for (name, value) in [
            ("access-control-allow-origin", APP),
            ("access-control-allow-methods", "POST"),
            (
                "access-control-allow-headers",
                "authorization, content-type",
            ),
            ("access-control-max-age", "600"),
            ("vary", "Origin"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{name}");
        }
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        let other = preflight(OTHER).await;
        let shared = other.header("access-control-allow-origin");
        assert_eq!(shared, others.then_some(OTHER));
        assert_eq!(other.header("vary"), Some("Origin"));
        for (token, status) in [(token("alice"), 201), ("nonsense".to_owned(), 401)] {
            let answer = ask(&node, &token, &[("Origin", APP)], "").await;
            assert_eq!(answer.status, status, "{}", answer.text());
            assert_eq!(answer.header("access-control-allow-origin"), Some(APP));
            assert_eq!(answer.header("vary"), Some("Origin"));
        }
        let program = ask(&node, &token("alice"), &[], "").await;
        assert_eq!(program.header("access-control-allow-origin"), None);
        assert_eq!(program.header("vary"), Some("Origin"));
    }
}

/// Regression: a preflight allowed the headers of one program, but not the headers that tracing
/// libraries add to every request of a page.
#[tokio::test]
async fn a_page_may_send_the_headers_that_its_browser_asks_for() {
    let node = Gateway::start_with(&settings().with("auth.token_revocation = true")).await;
    let asked = "authorization,baggage, sentry-trace,traceparent, bad header, x-\u{fc}";
    for path in [PATH, "/revoke"] {
        let headers = [
            ("Origin", APP),
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", asked),
        ];
        let answer = http::request(node.address(), "OPTIONS", path, &headers, b"").await;
        assert_eq!(answer.status, 204, "{path}");
        assert_eq!(
            answer.header("access-control-allow-headers"),
            Some("authorization, content-type, baggage, sentry-trace, traceparent"),
            "{path}"
        );
        assert_eq!(answer.header("access-control-allow-origin"), Some(APP));
    }
}
