//! Health for a supervisor (CONTRACT §2 `/livez`, `/readyz`).

use std::fs;
use std::process::Command;
use std::time::Duration;

use curfew_tests::{Gateway, Settings, eventually, eventually_within};
use serde_json::json;

/// Deadline for `/livez` to fail. A node counts as stuck after ten seconds, and a busy machine
/// needs some seconds more.
const STUCK: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_node_without_a_backend_of_others_is_ready_at_once() {
    let gateway = Gateway::start_default().await;
    let (status, body) = gateway.readiness().await;
    assert_eq!(status, 200);
    assert_eq!(body, json!({"ready":true,"backend":"available"}));
}

#[tokio::test]
async fn a_node_that_can_neither_reload_nor_drain_is_not_alive() {
    let gateway = Gateway::start_default().await;
    let alive = async || gateway.admin_as(None, "GET", "/livez", None).await;
    assert_eq!(alive().await.json(), json!({"alive":true}));
    // The configuration file becomes a pipe that is never written. A reader of the pipe hangs, as
    // on a network file system that does not respond.
    let (file, pipe) = (gateway.config_path(), gateway.directory().join("pipe"));
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    fs::remove_file(&file).unwrap();
    fs::hard_link(&pipe, &file).unwrap();
    let stuck = eventually_within(STUCK, "the node to report that it is stuck", async || {
        let answer = alive().await;
        (answer.status == 503).then_some(answer)
    });
    let reason = stuck.await.json()["reason"].to_string();
    assert!(reason.contains("reloads and drains"), "{reason}");
    // The node still serves clients.
    assert!(gateway.ready().await);
    gateway.user("alice").await;

    gateway.write_config(&Settings::default());
    // A write to the pipe lets the node continue.
    drop(fs::File::options().write(true).open(&pipe).unwrap());
    eventually("the node to be alive again", async || {
        (alive().await.status == 200).then_some(())
    })
    .await;
}
