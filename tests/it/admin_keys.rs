//! Keys of the admin API that have only some of the rights (CONTRACT §2).

use curfew_testkit::http::Response;
use curfew_testkit::mint::Key;
use curfew_tests::{Gateway, Settings, curfew, curfew_with, eventually};
use serde_json::{Value, json};

const NEWS: &str = "the-key-of-the-newsroom-0123456789";
const WATCHER: &str = "the-key-of-the-watcher-01234567890";
const GUARD: &str = "the-key-of-the-guards-012345678901";

fn settings() -> Settings {
    Settings::default().with(&format!(
        "admin.keys = [\
         {{ name = \"newsroom\", key = \"{NEWS}\", may = [\"publish\"], channels = [\"news:*\", \"room:{{id}}\"] }}, \
         {{ name = \"watcher\", key = \"{WATCHER}\", may = [\"read\", \"explain\"], channels = [\"news:*\"] }}, \
         {{ name = \"guard\", key = \"{GUARD}\", may = [\"revoke\", \"disconnect\"] }}]"
    ))
}

async fn call(gateway: &Gateway, key: &str, method: &str, path: &str, body: &Value) -> Response {
    let body = (!body.is_null()).then(|| body.clone());
    gateway.admin_as(Some(key), method, path, body).await
}

/// Regression: there was only one key, so a back end that publishes could revoke all users.
#[tokio::test]
async fn a_key_may_do_what_it_lists_and_is_told_what_it_lacks() {
    let gateway = Gateway::start_with(&settings()).await;
    let publish = json!({"channel":"news:1","data":1});
    let broadcast = json!({"channels":["news:1","room:7"],"data":1});
    let revoke = json!({"kind":"user","value":"nobody"});
    let explain = json!({"claims":{"sub":"a"},"action":"publish","channel":"news:1"});
    for (method, path, body, power) in [
        ("POST", "/v1/publish", &publish, "publish"),
        ("POST", "/v1/broadcast", &broadcast, "publish"),
        ("GET", "/v1/sessions", &Value::Null, "read"),
        ("GET", "/v1/sessions/x", &Value::Null, "read"),
        ("GET", "/v1/revocations", &Value::Null, "read"),
        ("GET", "/v1/nodes", &Value::Null, "read"),
        ("GET", "/v1/channels", &Value::Null, "read"),
        ("GET", "/v1/channels/news:1", &Value::Null, "read"),
        ("GET", "/v1/issuers", &Value::Null, "read"),
        ("POST", "/v1/revocations", &revoke, "revoke"),
        (
            "DELETE",
            "/v1/revocations/user/nobody",
            &Value::Null,
            "revoke",
        ),
        ("DELETE", "/v1/sessions/x", &Value::Null, "disconnect"),
        ("POST", "/v1/explain", &explain, "explain"),
    ] {
        for (key, name, powers) in [
            (NEWS, "newsroom", &["publish"][..]),
            (WATCHER, "watcher", &["read", "explain"]),
            (GUARD, "guard", &["revoke", "disconnect"]),
        ] {
            let answer = call(&gateway, key, method, path, body).await;
            let what = format!("{method} {path} by {name}: {}", answer.text());
            if powers.contains(&power) {
                assert!(matches!(answer.status, 200 | 404), "{what}");
                continue;
            }
            assert_eq!(answer.status, 403, "{what}");
            let problem = answer.json();
            assert_eq!(problem["code"], "forbidden", "{what}");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains(power) && detail.contains(name), "{what}");
        }
    }
    // The key of `admin.key` still has every right.
    gateway.admin_ok("GET", "/v1/nodes", None).await;
    let wrong = gateway.admin_as(Some("x"), "GET", "/v1/nodes", None).await;
    assert_eq!(wrong.status, 401);
}

#[tokio::test]
async fn a_key_for_some_channels_reaches_and_sees_no_other() {
    let gateway = Gateway::start_with(&settings()).await;
    let mut reader = gateway.subscriber("alice", "news:1").await;
    let mut other = gateway.subscriber("bob", "secret").await;
    for (path, body, status) in [
        ("/v1/publish", json!({"channel":"news:1","data":1}), 200),
        ("/v1/publish", json!({"channel":"secret","data":1}), 403),
        ("/v1/publish", json!({"channel":"room:1:2","data":1}), 403),
        (
            "/v1/broadcast",
            json!({"channels":["news:1","secret"],"data":2}),
            403,
        ),
    ] {
        let answer = call(&gateway, NEWS, "POST", path, &body).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
    }
    reader.expect_json(json!({"type":"message","data":1})).await;
    assert!(
        reader.barrier().await.is_empty(),
        "the refused broadcast reached one of its channels"
    );
    assert!(other.barrier().await.is_empty());
    let listed = call(&gateway, WATCHER, "GET", "/v1/channels", &Value::Null).await;
    let names: Vec<Value> = listed.json()["channels"].as_array().unwrap().clone();
    assert_eq!(names.len(), 1, "{}", listed.text());
    assert_eq!(names[0]["channel"], "news:1");
}

#[tokio::test]
async fn the_log_names_the_key_that_was_used() {
    let gateway = Gateway::start_with(&settings()).await;
    let revoke = json!({"kind":"user","value":"alice"});
    let answer = call(&gateway, GUARD, "POST", "/v1/revocations", &revoke).await;
    assert_eq!(answer.status, 200);
    let named =
        |entry: &Value| entry["message"] == "revoked by the admin API" && entry["key"] == "guard";
    eventually("the key's name", async || {
        gateway.log().entries().iter().any(named).then_some(())
    })
    .await;
    assert!(!gateway.log().text().contains(GUARD));
}

#[tokio::test]
async fn keys_are_replaced_by_a_reload() {
    let gateway = Gateway::start_with(&settings()).await;
    gateway.take_over(&Settings::default(), true).await;
    let answer = call(&gateway, WATCHER, "GET", "/v1/nodes", &Value::Null).await;
    assert_eq!(answer.status, 401);
}

#[tokio::test]
async fn keys_that_cannot_be_used_are_reported() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("curfew.toml");
    let settings = Settings::default().with(&format!(
        "admin.keys = [\
         {{ name = \"a\", key = \"{NEWS}\", may = [\"publish\"] }}, \
         {{ name = \"a\", key = \"{WATCHER}\", may = [\"read\"] }}, \
         {{ name = \"b\", key = \"{NEWS}\", may = [\"read\"] }}, \
         {{ name = \"admin\", key = \"short\", may = [] }}, \
         {{ name = \"c d\", may = [\"read\"], channels = [\"a*\"] }}]"
    ));
    std::fs::write(&file, settings.to_toml()).unwrap();
    let finished = curfew(&["check-config", "--config", file.to_str().unwrap()]).await;
    assert_eq!(finished.code, 2, "{}", finished.stderr);
    for key in [
        "admin.keys[1].name",
        "admin.keys[2].key",
        "admin.keys[3].name",
        "admin.keys[3].key",
        "admin.keys[3].may",
        "admin.keys[4].name",
        "admin.keys[4].key_file",
        "admin.keys[4].channels[0]",
    ] {
        assert!(finished.stderr.contains(key), "{key}: {}", finished.stderr);
    }
    assert!(!finished.stderr.contains(NEWS), "{}", finished.stderr);
}

#[tokio::test]
async fn the_command_line_closes_one_session() {
    let gateway = Gateway::start_with(&settings()).await;
    let token = Key::default_secret().user("alice");
    let (mut client, connected) = gateway.connected(gateway.ws().bearer(&token)).await;
    let session = connected["session"].as_str().unwrap();
    let url = format!("http://{}", gateway.admin_address());
    let environment = [("CURFEW_ADMIN_KEY", GUARD), ("CURFEW_ADMIN_URL", &url)];
    let finished = curfew_with(&["disconnect", session], &environment).await;
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    assert!(finished.stdout.contains(session), "{}", finished.stdout);
    client.expect_close(4404, "disconnected").await;
    let again = curfew_with(&["disconnect", session], &environment).await;
    assert_eq!(again.code, 1, "{}", again.stdout);
    assert!(again.stderr.contains("no such session"), "{}", again.stderr);
}

/// Regression: the node read a file that the configuration names once, and never again.
#[tokio::test]
async fn a_key_file_that_changes_is_in_force_without_a_signal() {
    let directory = tempfile::tempdir().unwrap();
    let (whole, some) = (
        directory.path().join("whole"),
        directory.path().join("some"),
    );
    let old = "the-key-of-yesterday-0123456789abcdef";
    std::fs::write(&whole, old).unwrap();
    std::fs::write(&some, NEWS).unwrap();
    let settings = Settings::default()
        .without("admin.key")
        .with(&format!("admin.key_file = {whole:?}"))
        .with(&format!(
            "admin.keys = [{{ name = \"watcher\", key_file = {some:?}, may = [\"read\"] }}]"
        ));
    let gateway = Gateway::start_in(directory, &settings.to_toml()).await;
    let status = async |key: &str| {
        let answer = gateway.admin_as(Some(key), "GET", "/v1/nodes", None);
        answer.await.status
    };
    assert_eq!((status(old).await, status(NEWS).await), (200, 200));
    for (file, key, before, named) in [
        ("whole", GUARD, old, "admin.key_file"),
        ("some", WATCHER, NEWS, "admin.keys[0].key_file"),
    ] {
        gateway.write(file, &format!("{key}\n"));
        // The test waits for the log instead of trying the new key: a client that sends many wrong
        // keys gets 429.
        eventually("the file that changed in the log", async || {
            let mut entries = gateway.log().entries().into_iter();
            entries
                .find(|entry| entry["message"] == "files changed" && entry["keys"] == named)
                .map(drop)
        })
        .await;
        eventually("the new key", async || {
            (status(key).await == 200).then_some(())
        })
        .await;
        assert_eq!(status(before).await, 401);
    }
    // An unusable file leaves the old key in force. The node accepts the file once it is usable.
    gateway.write("whole", "short");
    gateway
        .until_metric("curfew_config_last_reload_successful", |value| value == 0.0)
        .await;
    assert_eq!(status(GUARD).await, 200);
    gateway.write("whole", old);
    gateway
        .until_metric("curfew_config_last_reload_successful", |value| value == 1.0)
        .await;
    assert_eq!(status(old).await, 200);
}
