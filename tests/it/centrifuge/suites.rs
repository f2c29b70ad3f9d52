//! The test suites of the SDKs, unchanged, against `curfew dev --centrifuge`.
//!
//! Each program that runs a suite has a list beside it, with the expected failures and their
//! reasons.

use std::process::Stdio;
use std::time::Duration;

use curfew_tests::Dev;
use serde_json::json;
use tokio::process::Command;
use tokio::time::timeout;

use super::clients::at_home;
use crate::clients::{installed, program};

/// Deadline for a suite. On an idle machine the Python suite takes 40 s, and the Go suite takes 20
/// s.
const LONGEST_SUITE: Duration = Duration::from_secs(600);

#[tokio::test]
async fn the_tests_of_the_python_sdk_pass_but_for_those_on_the_list() {
    installed("sdists");
    go_as_expected("python", &[]).await;
}

#[tokio::test]
async fn the_tests_of_the_go_sdk_pass_but_for_those_on_the_list() {
    installed("centrifuge-go/suite.test");
    go_as_expected("go", &["run"]).await;
}

/// Runs the suite of a language's SDK, and compares the failures with the list of expected
/// failures.
async fn go_as_expected(language: &str, arguments: &[&str]) {
    let dev = Dev::start_with_flags(&["--centrifuge"]).await;
    let task = json!({
        "address": dev.address.to_string(),
        "expected": program(&format!("centrifuge_{language}_suite.json")),
    });
    let mut suite = Command::new(installed("venv/bin/python"));
    suite
        .arg(program(&format!("centrifuge_{language}_suite.py")))
        .args(arguments)
        .arg(task.to_string());
    at_home(&mut suite);
    let running = suite
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("Python is installed: run .ci/run")
        .wait_with_output();
    let output = timeout(LONGEST_SUITE, running).await;
    let output = output.expect("the suite ends").unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
}
