//! Unix sockets: the public listener for a load balancer on the same machine, and Redis.

use std::os::unix::net::UnixListener;

use curfew_testkit::http::read_response;
use curfew_testkit::mint::Key;
use curfew_testkit::{Connect, PATIENCE};
use curfew_tests::{Gateway, Redis, Settings, curfew, eventually};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Sends an upgrade request, and reads until `connected` arrives.
async fn connect(path: &std::path::Path, connect: &Connect) -> UnixStream {
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream.write_all(&connect.to_bytes()).await.unwrap();
    let mut buffer = bytes::BytesMut::new();
    let answer = read_response(&mut stream, &mut buffer).await.unwrap();
    assert_eq!(answer.status, 101, "{}", answer.text());
    let connected = async {
        while !String::from_utf8_lossy(&buffer).contains("\"connected\"") {
            assert_ne!(stream.read_buf(&mut buffer).await.unwrap(), 0);
        }
    };
    timeout(PATIENCE, connected).await.expect("connected");
    stream
}

#[tokio::test]
async fn the_public_listener_can_be_a_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("curfew.sock");
    // A process that was killed has left its socket file.
    drop(UnixListener::bind(&path).unwrap());
    let settings = Settings::default()
        .with(&format!("server.listen = \"unix:{}\"", path.display()))
        .with(r#"server.trusted_proxies = ["unix"]"#);
    let mut gateway = Gateway::start_with(&settings).await;
    let request = gateway.ws().bearer(&Key::default_secret().user("alice"));
    let direct = connect(&path, &request).await;
    let proxied = request.header("X-Forwarded-For", "203.0.113.1");
    let mut proxied = connect(&path, &proxied).await;
    let listed = gateway.admin_ok("GET", "/v1/sessions", None).await;
    let sessions = listed["sessions"].as_array().unwrap();
    let addresses: Vec<_> = sessions.iter().map(|session| &session["address"]).collect();
    assert_eq!(addresses, [&json!(null), &json!("203.0.113.1")]);
    // A session over the socket is closed when its access ends.
    gateway.revoke(json!({"kind":"user","value":"alice"})).await;
    let mut last = Vec::new();
    timeout(PATIENCE, proxied.read_to_end(&mut last))
        .await
        .expect("the node closes the session")
        .ok();
    let last = String::from_utf8_lossy(&last);
    assert!(last.contains("\"revoked\""), "{last}");
    drop(direct);
    // Another node on the same path fails with an error, and leaves the socket alone.
    let file = directory.path().join("curfew.toml");
    std::fs::write(&file, settings.to_toml()).unwrap();
    let second = curfew(&["serve", "--config", file.to_str().unwrap()]).await;
    assert_ne!(second.code, 0);
    assert!(second.stderr.contains("server.listen"), "{}", second.stderr);
    UnixStream::connect(&path).await.unwrap();
    gateway.terminate();
    assert_eq!(gateway.exited(PATIENCE).await, 0);
    assert!(!path.exists(), "the socket file is not removed");
}

/// Regression: a wrong path in the configuration deleted a file.
#[tokio::test]
async fn a_file_where_the_socket_is_to_be_is_not_removed() {
    let directory = tempfile::tempdir().unwrap();
    let (path, file) = (
        directory.path().join("notes"),
        directory.path().join("toml"),
    );
    std::fs::write(&path, "of value").unwrap();
    let settings =
        Settings::default().with(&format!("server.listen = \"unix:{}\"", path.display()));
    std::fs::write(&file, settings.to_toml()).unwrap();
    let ended = curfew(&["serve", "--config", file.to_str().unwrap()]).await;
    assert_ne!(ended.code, 0);
    assert!(ended.stderr.contains("server.listen"), "{}", ended.stderr);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "of value");
}

#[tokio::test]
async fn redis_can_be_reached_by_a_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("redis.sock");
    let line = format!("unixsocket {}", path.display());
    let _redis = Redis::start_with(&[&line]).await;
    let url = format!("redis+unix://{}", path.display());
    let settings = Settings::default().on_redis(&url);
    let (first, second) = (
        Gateway::start_with(&settings).await,
        Gateway::start_with(&settings).await,
    );
    for node in [&first, &second] {
        eventually("readiness", async || node.ready().await.then_some(())).await;
    }
    let mut client = first.subscriber("alice", "a").await;
    second.publish("a", json!(1)).await;
    client.expect_json(json!({"type":"message","data":1})).await;
    second.revoke(json!({"kind":"user","value":"alice"})).await;
    client.expect_close(4403, "revoked").await;
}
