//! The client's files, as nodes serve them.

use curfew_testkit::http::{self, Response};
use curfew_tests::Gateway;

/// Upper bound of the size in which the script is served, in bytes.
const SIZE_BOUND: usize = 8 * 1024;

/// The files and their media types.
const FILES: [(&str, &str); 2] = [
    ("/client.js", "text/javascript; charset=utf-8"),
    ("/client.d.ts", "application/typescript; charset=utf-8"),
];

async fn get(node: &Gateway, path: &str, headers: &[(&str, &str)]) -> Response {
    http::request(node.address(), "GET", path, headers, b"").await
}

#[tokio::test]
async fn every_node_serves_the_client_to_pages_of_all_origins() {
    let node = Gateway::start_default().await;
    for (path, kind) in FILES {
        let answer = get(&node, path, &[("Origin", "https://app.example")]).await;
        assert_eq!(answer.status, 200, "{path}");
        for (name, expected) in [
            ("content-type", kind),
            ("access-control-allow-origin", "*"),
            ("cross-origin-resource-policy", "cross-origin"),
            ("x-content-type-options", "nosniff"),
            ("cache-control", "public, max-age=300"),
        ] {
            assert_eq!(answer.header(name), Some(expected), "{path}: {name}");
        }
        assert!(answer.text().contains("Curfew"), "{path}");

        let tag = answer.header("etag").expect("an ETag").to_owned();
        let list = format!("\"other\", W/{tag}");
        for known in [tag.as_str(), &list, "*"] {
            let same = get(&node, path, &[("If-None-Match", known)]).await;
            assert_eq!((same.status, same.body.len()), (304, 0), "{path}: {known}");
            assert_eq!(same.header("etag"), Some(tag.as_str()));
            assert_eq!(same.header("access-control-allow-origin"), Some("*"));
        }
        let other = get(&node, path, &[("If-None-Match", "\"other\"")]).await;
        assert_eq!((other.status, &other.body), (200, &answer.body), "{path}");

        let request = format!(
            "HEAD {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            node.address()
        );
        let head = crate::http::said(node.address(), request.as_bytes()).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let length = format!("content-length: {}\r\n", answer.body.len());
        assert!(head.to_ascii_lowercase().contains(&length), "{head}");
        assert!(head.ends_with("\r\n\r\n"), "{head}");

        let posted = http::request(node.address(), "POST", path, &[], b"{}").await;
        assert_eq!(posted.status, 405, "{path}");
        assert_eq!(posted.header("allow"), Some("GET, HEAD"));
    }
    let script = get(&node, "/client.js", &[]).await;
    let size = script.body.len();
    assert!(size < SIZE_BOUND, "the script has {size} bytes");
    // Deno, for example, finds the types of a script by this header.
    assert_eq!(script.header("x-typescript-types"), Some("./client.d.ts"));
    assert_eq!(get(&node, "/client.ts", &[]).await.status, 404);
    let ok = "curfew_http_answers_total{listener=\"public\",reason=\"ok\"}";
    assert_eq!(node.metric(ok).await, 13.0);
    node.assert_alive().await;
}
