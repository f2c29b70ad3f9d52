//! The admin API (CONTRACT §2).

use std::collections::BTreeSet;

use curfew_testkit::http::{self, exchange};
use curfew_testkit::mint::Key;
use curfew_tests::{ADMIN_KEY, Gateway, Settings, curfew, eventually};
use serde_json::{Value, json};

const KEYED: [(&str, &str); 14] = [
    ("POST", "/v1/publish"),
    ("POST", "/v1/broadcast"),
    ("GET", "/v1/sessions"),
    ("GET", "/v1/sessions/x"),
    ("DELETE", "/v1/sessions/x"),
    ("POST", "/v1/revocations"),
    ("GET", "/v1/revocations"),
    ("GET", "/v1/nodes"),
    ("GET", "/v1/channels"),
    ("GET", "/v1/channels/x"),
    ("GET", "/v1/channels/x/history"),
    ("DELETE", "/v1/channels/x/history"),
    ("GET", "/v1/issuers"),
    ("POST", "/v1/explain"),
];

#[tokio::test]
async fn without_a_configured_key_the_api_is_closed_and_says_how_to_open_it() {
    let gateway = Gateway::start_with(&Settings::default().without("admin.key")).await;
    for (method, path) in KEYED {
        for key in [None, Some(""), Some("anything")] {
            let answer = gateway.admin_as(key, method, path, None).await;
            assert_eq!(answer.status, 403, "{method} {path}");
            assert!(answer.text().contains("admin.key"), "{}", answer.text());
            problem(&answer);
        }
    }
    gateway.assert_alive().await;
}

#[tokio::test]
async fn a_wrong_key_is_refused_and_the_right_one_taken() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("key"), format!("{ADMIN_KEY}\n")).unwrap();
    let from_file = Settings::default().without("admin.key").with(&format!(
        "admin.key_file = {:?}",
        directory.path().join("key")
    ));
    for gateway in [
        Gateway::start_default().await,
        Gateway::start_in(directory, &from_file.to_toml()).await,
    ] {
        let prefix = &ADMIN_KEY[..ADMIN_KEY.len() - 1];
        let longer = format!("{ADMIN_KEY}x");
        let keys = [None, Some(""), Some("x"), Some(prefix), Some(&longer)];
        for ((method, path), key) in KEYED.into_iter().zip(keys.into_iter().cycle()) {
            let answer = gateway.admin_as(key, method, path, None).await;
            assert_eq!(answer.status, 401, "{method} {path} with {key:?}");
            let challenge = answer.header("www-authenticate").unwrap_or_default();
            assert!(challenge.starts_with("Bearer"), "{challenge}");
            problem(&answer);
        }
        gateway.admin_ok("GET", "/v1/nodes", None).await;
        let basic = http::request(
            gateway.admin_address(),
            "GET",
            "/v1/nodes",
            &[("Authorization", &format!("Basic {ADMIN_KEY}"))],
            b"",
        )
        .await;
        assert_eq!(basic.status, 401);
        let query = format!("/v1/nodes?key={ADMIN_KEY}&token={ADMIN_KEY}");
        assert_eq!(
            gateway.admin_as(None, "GET", &query, None).await.status,
            401
        );
    }
}

#[tokio::test]
async fn whoever_guesses_keys_is_slowed_down_and_the_right_key_is_not() {
    let gateway = Gateway::start_default().await;
    eventually("a refusal to listen to more guesses", async || {
        let answer = gateway
            .admin_as(Some("guess"), "GET", "/v1/nodes", None)
            .await;
        assert!(matches!(answer.status, 401 | 429), "{}", answer.status);
        (answer.status == 429).then_some(())
    })
    .await;
    gateway.admin_ok("GET", "/v1/nodes", None).await;
}

#[tokio::test]
async fn health_metrics_and_the_description_are_open() {
    let gateway = Gateway::start_default().await;
    for path in ["/livez", "/readyz", "/metrics", "/openapi.json"] {
        let answer = gateway.admin_as(None, "GET", path, None).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let answer = gateway.admin_as(None, "POST", path, None).await;
        assert_eq!(answer.status, 405, "{path}");
    }
    let ready = gateway.admin_as(None, "GET", "/readyz", None).await;
    assert!(ready.json().is_object());
}

#[tokio::test]
async fn nothing_of_it_is_on_the_public_listener_nor_the_other_way_round() {
    let gateway = Gateway::start_default().await;
    let authorization = format!("Bearer {ADMIN_KEY}");
    for (method, path) in KEYED.into_iter().chain([
        ("GET", "/livez"),
        ("GET", "/readyz"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
        ("GET", "/"),
        ("GET", "/ws/"),
        ("GET", "//ws"),
        ("GET", "/ws/../metrics"),
    ]) {
        let headers = [("Authorization", authorization.as_str())];
        let answer = http::request(gateway.address(), method, path, &headers, b"").await;
        assert_eq!(answer.status, 404, "{method} {path}: {}", answer.text());
    }
    let token = Key::default_secret().user("alice");
    let connect = curfew_testkit::Connect::to(gateway.admin_address()).bearer(&token);
    assert_eq!(connect.refused().await.status, 404);
}

#[tokio::test]
async fn publishing_reaches_subscribers_without_a_sender() {
    let gateway = Gateway::start_default().await;
    let mut a = gateway.subscriber("alice", "a").await;
    let mut b = gateway.subscriber("bob", "b").await;
    gateway.publish("a", json!({"n":1})).await;
    let message = a.next_json().await;
    assert!(message.get("from").is_none_or(Value::is_null), "{message}");
    assert_eq!(message["data"], json!({"n":1}));
    gateway
        .admin_ok(
            "POST",
            "/v1/broadcast",
            Some(json!({"channels":["a","b","nobody"],"data":"all"})),
        )
        .await;
    for client in [&mut a, &mut b] {
        client
            .expect_json(json!({"type":"message","data":"all"}))
            .await;
    }
    assert!(b.barrier().await.is_empty());
}

#[tokio::test]
async fn bad_publications_are_refused_and_deliver_nothing() {
    let gateway = Gateway::start_default().await;
    let mut client = gateway.subscriber("alice", "a").await;
    for (path, body) in [
        ("/v1/publish", json!({})),
        ("/v1/publish", json!({"channel":"a"})),
        ("/v1/publish", json!({"data":1})),
        ("/v1/publish", json!({"channel":"a b","data":1})),
        ("/v1/publish", json!({"channel":"$a","data":1})),
        ("/v1/publish", json!({"channel":7,"data":1})),
        ("/v1/publish", json!({"channel":"a","data":1,"extra":1})),
        ("/v1/publish", json!([])),
        ("/v1/broadcast", json!({"channels":"a","data":1})),
        ("/v1/broadcast", json!({"channels":["a","b c"],"data":1})),
        ("/v1/broadcast", json!({"channels":["a"]})),
    ] {
        let answer = gateway
            .admin_as(Some(ADMIN_KEY), "POST", path, Some(body.clone()))
            .await;
        assert!(
            (400..500).contains(&answer.status),
            "{path} {body}: {}",
            answer.status
        );
        problem(&answer);
    }
    for body in ["", "{", "{\"channel\":\"a\",\"data\":1} x", "\u{feff}{}"] {
        let headers = [
            ("Authorization", format!("Bearer {ADMIN_KEY}")),
            ("Content-Type", "application/json".to_owned()),
        ];
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let address = gateway.admin_address();
        let answer = http::request(address, "POST", "/v1/publish", &headers, body.as_bytes()).await;
        assert!(
            (400..500).contains(&answer.status),
            "{body}: {}",
            answer.status
        );
    }
    assert!(client.barrier().await.is_empty());
}

#[tokio::test]
async fn a_body_too_large_is_refused() {
    let gateway = Gateway::start_default().await;
    let before = gateway.rss_kib();
    let head = format!(
        "POST /v1/publish HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {ADMIN_KEY}\r\n\
         Content-Type: application/json\r\nContent-Length: 10000000000\r\n\r\n"
    );
    let answer = exchange(gateway.admin_address(), head.as_bytes())
        .await
        .unwrap();
    assert_eq!(answer.status, 413);
    let huge = json!({"channel":"a","data":"x".repeat(64 * 1024 * 1024)});
    let sent = http::exchange(
        gateway.admin_address(),
        format!(
            "POST /v1/publish HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {ADMIN_KEY}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{huge}",
            huge.to_string().len()
        )
        .as_bytes(),
    )
    .await;
    // The node may refuse the request before it has read the whole request. The answer may then be
    // lost.
    if let Ok(answer) = sent {
        assert_eq!(answer.status, 413);
    }
    let grown = gateway.rss_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB");
    gateway.assert_alive().await;
}

#[tokio::test]
async fn sessions_are_listed_filtered_paged_and_shown() {
    let gateway = Gateway::start_default().await;
    let mut clients = Vec::new();
    let mut ids = BTreeSet::new();
    for n in 0..5 {
        let token = Key::default_secret().user(if n < 2 { "alice" } else { "bob" });
        let (client, connected) = gateway.connected(gateway.ws().bearer(&token)).await;
        ids.insert(connected["session"].as_str().unwrap().to_owned());
        clients.push((client, connected));
    }
    let all = gateway.admin_ok("GET", "/v1/sessions", None).await;
    assert!(all["cursor"].is_null(), "{all}");
    let listed = |page: &Value| -> Vec<String> {
        let sessions = page["sessions"].as_array().unwrap();
        sessions
            .iter()
            .map(|session| session["session"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(listed(&all).into_iter().collect::<BTreeSet<_>>(), ids);
    let alices = gateway
        .admin_ok("GET", "/v1/sessions?user=alice", None)
        .await;
    assert_eq!(listed(&alices).len(), 2);
    assert!(
        alices["sessions"]
            .as_array()
            .unwrap()
            .iter()
            .all(|s| s["user"] == "alice")
    );

    let (mut paged, mut cursor, mut pages) = (BTreeSet::new(), String::new(), 0);
    loop {
        let page = gateway
            .admin_ok("GET", &format!("/v1/sessions?limit=2{cursor}"), None)
            .await;
        assert!(listed(&page).len() <= 2, "{page}");
        paged.extend(listed(&page));
        pages += 1;
        match page["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!((paged, pages), (ids, 3));

    let connected = &clients[0].1;
    let id = connected["session"].as_str().unwrap();
    let one = gateway
        .admin_ok("GET", &format!("/v1/sessions/{id}"), None)
        .await;
    assert_eq!(one["session"], id);
    assert_eq!(one["user"], "alice");
    assert_eq!(one["expires_at"], connected["expires_at"]);
    assert!(
        one["node"].is_string() && one["connected_at"].is_u64(),
        "{one}"
    );

    for query in [
        "limit=0",
        "limit=x",
        "limit=-1",
        "cursor=x",
        "limit=99999999999999999999",
    ] {
        let (status, answer) = gateway
            .admin("GET", &format!("/v1/sessions?{query}"), None)
            .await;
        assert_eq!(status, 400, "{query}: {answer}");
    }
    let long = "x".repeat(10_000);
    for id in [
        "0198c0de-0000-7000-8000-000000000000",
        "x",
        "__proto__",
        "constructor",
        "%00",
        &long,
    ] {
        for method in ["GET", "DELETE"] {
            let (status, answer) = gateway
                .admin(method, &format!("/v1/sessions/{id}"), None)
                .await;
            assert!(
                matches!(status, 400 | 404),
                "{method} {id}: {status} {answer}"
            );
        }
    }
}

#[tokio::test]
async fn sessions_leave_the_list_when_they_end() {
    let gateway = Gateway::start_default().await;
    let client = gateway.user("alice").await;
    client.reset();
    eventually("an empty list", async || {
        let all = gateway.admin_ok("GET", "/v1/sessions", None).await;
        (all["sessions"] == json!([])).then_some(())
    })
    .await;
}

#[tokio::test]
async fn nodes_and_channels_are_counted() {
    let gateway = Gateway::start_default().await;
    let _one = gateway.subscriber("alice", "room:1").await;
    let mut two = gateway.subscriber("bob", "room:1").await;
    let _three = gateway.subscriber("carol", "room:2").await;
    let nodes = gateway.admin_ok("GET", "/v1/nodes", None).await;
    let nodes = nodes["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 1);
    assert_eq!(nodes[0]["sessions"], 3, "{nodes:?}");
    let counts = async || {
        let answer = gateway.admin_ok("GET", "/v1/channels", None).await;
        let channels = answer["channels"].as_array().unwrap().clone();
        let count = |name: &str| {
            let mut found = channels.iter();
            found
                .find(|channel| channel["channel"] == name)
                .and_then(|channel| channel["subscribers"].as_u64())
        };
        (count("room:1"), count("room:2"))
    };
    assert_eq!(counts().await, (Some(2), Some(1)));
    two.send(json!({"type":"unsubscribe","id":1,"channel":"room:1"}))
        .await;
    two.expect_json(json!({"type":"ok"})).await;
    assert_eq!(counts().await, (Some(1), Some(1)));
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let gateway = Gateway::start_default().await;
    for (method, path, status) in [
        ("GET", "/v1/nothing", 404),
        ("GET", "/v2/sessions", 404),
        ("GET", "/", 404),
        ("GET", "/v1/publish", 405),
        ("PUT", "/v1/sessions", 405),
        ("DELETE", "/v1/nodes", 405),
    ] {
        let answer = gateway.admin_as(Some(ADMIN_KEY), method, path, None).await;
        assert_eq!(answer.status, status, "{method} {path}");
        problem(&answer);
        if status == 405 {
            assert!(answer.header("allow").is_some(), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn the_description_describes_every_path() {
    let gateway = Gateway::start_default().await;
    let answer = gateway.admin_as(None, "GET", "/openapi.json", None).await;
    let api = answer.json();
    assert!(
        api["openapi"].as_str().unwrap().starts_with("3."),
        "{}",
        api["openapi"]
    );
    assert!(api["info"]["title"].is_string() && api["info"]["version"].is_string());
    for (path, methods) in [
        ("/livez", vec!["get"]),
        ("/readyz", vec!["get"]),
        ("/metrics", vec!["get"]),
        ("/v1/publish", vec!["post"]),
        ("/v1/broadcast", vec!["post"]),
        ("/v1/sessions", vec!["get"]),
        ("/v1/sessions/{id}", vec!["get", "delete"]),
        ("/v1/revocations", vec!["get", "post"]),
        ("/v1/revocations/{kind}/{value}", vec!["delete"]),
        ("/v1/nodes", vec!["get"]),
        ("/v1/channels", vec!["get"]),
        ("/v1/channels/{name}", vec!["get"]),
        ("/v1/channels/{name}/history", vec!["get", "delete"]),
        ("/v1/explain", vec!["post"]),
    ] {
        for method in methods {
            let operation = &api["paths"][path][method];
            assert!(operation.is_object(), "{method} {path}");
            let responses = operation["responses"].as_object().unwrap();
            assert!(
                responses.keys().any(|code| code.starts_with('2')),
                "{method} {path}"
            );
            let placeholders = path.matches('{').count();
            let described = operation["parameters"]
                .as_array()
                .into_iter()
                .chain(api["paths"][path]["parameters"].as_array())
                .flatten()
                .filter(|parameter| parameter["in"] == "path")
                .count();
            assert_eq!(described, placeholders, "{method} {path}");
        }
    }
    // Every `$ref` of the description has a target.
    let mut references = Vec::new();
    collect_references(&api, &mut references);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(api.pointer(pointer).is_some(), "{reference}");
    }
    let key = api["components"]["securitySchemes"].as_object().unwrap();
    assert!(
        key.values()
            .any(|s| s["type"] == "http" && s["scheme"] == "bearer")
    );
}

#[tokio::test]
async fn the_commands_speak_to_the_api() {
    let gateway = Gateway::start_default().await;
    gateway.write("admin-key", ADMIN_KEY);
    let key = gateway.directory().join("admin-key");
    let url = format!("http://{}", gateway.admin_address());
    let run = async |arguments: &[&str]| {
        let mut all = arguments.to_vec();
        all.extend(["--url", &url, "--key-file", key.to_str().unwrap()]);
        curfew(&all).await
    };
    let mut client = gateway.subscriber("alice", "room:1").await;
    let done = run(&["publish", "room:1", r#"{"n":1}"#]).await;
    assert_eq!(done.code, 0, "{done:?}");
    client
        .expect_json(json!({"type":"message","data":{"n":1}}))
        .await;
    let done = run(&["sessions", "--user", "alice", "--json"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.stdout.contains("\"alice\""), "{done:?}");
    let done = run(&["sessions"]).await;
    assert!(done.code == 0 && done.stdout.contains("alice"), "{done:?}");
    let done = run(&["nodes", "--json"]).await;
    assert!(
        done.code == 0 && done.stdout.contains("sessions"),
        "{done:?}"
    );
    let done = run(&["revoke", "user", "alice", "--ttl", "1h", "--reason", "test"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    client.expect_close(4403, "revoked").await;
    let done = run(&["revocations", "--json"]).await;
    assert!(done.code == 0 && done.stdout.contains("alice"), "{done:?}");
    let done = run(&["restore", "user", "alice"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    gateway.user("alice").await;
    let done = run(&["publish", "a b", "1"]).await;
    assert_eq!(done.code, 1, "{done:?}");
    gateway.write("admin-key", "wrong");
    let done = run(&["nodes"]).await;
    assert_eq!(done.code, 1, "{done:?}");
    assert!(!done.stderr.contains("wrong\n"), "{done:?}");
}

fn collect_references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match (name.as_str(), value) {
                    ("$ref", Value::String(reference)) => found.push(reference.clone()),
                    _ => collect_references(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|v| collect_references(v, found)),
        _ => {}
    }
}

/// Checks a problem document (RFC 9457).
fn problem(answer: &http::Response) {
    let kind = answer.header("content-type").unwrap_or_default();
    assert!(
        kind.starts_with("application/problem+json"),
        "{kind}: {}",
        answer.text()
    );
    let body = answer.json();
    assert_eq!(body["status"], answer.status, "{body}");
    assert!(body["title"].is_string(), "{body}");
}

/// Regression: a revocation of a value that no token has looked like a success, and no command
/// revoked by the name of a claim.
#[tokio::test]
async fn a_revocation_that_finds_nobody_says_so() {
    let settings = Settings::default().with("session.revocable_claims = [\"preferred_username\"]");
    let gateway = Gateway::start_with(&settings).await;
    let key = gateway.directory().join("key");
    std::fs::write(&key, ADMIN_KEY).unwrap();
    let url = format!("http://{}", gateway.admin_address());
    let run = async |arguments: &[&str]| {
        let access = ["--url", &url, "--key-file", key.to_str().unwrap()];
        let told = curfew(&[&["revoke"], arguments, &access].concat()).await;
        assert_eq!(told.code, 0, "{told:?}");
        told.stdout
    };
    let more = json!({"preferred_username":"nina"});
    let token = Key::default_secret().user_with("f3b1-77", more);
    let mut client = gateway.session(&token).await;
    for told in [
        run(&["user", "nina"]).await,
        run(&["user", "nina", "--dry-run"]).await,
    ] {
        assert!(
            told.contains("No session of this user is open") && told.contains("sub"),
            "{told}"
        );
    }
    let told = run(&["--claim", "preferred_username=nina", "--before", "now"]).await;
    assert!(
        told.contains("1 session closed") && !told.contains("No session"),
        "{told}"
    );
    client.expect_close(4403, "revoked").await;
}
