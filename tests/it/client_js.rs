//! The JavaScript client of the native protocol, as nodes serve it: in Node, in Chromium and for
//! TypeScript.
//!
//! The scenarios are in `tests/clients/curfew_client.mjs`, which loads the client from the node. A
//! line of output that ends in a colon is a request, which this test fulfils.

mod ends;
mod page;
mod served;
mod types;

use std::net::SocketAddr;
use std::time::Duration;

use curfew_testkit::mint::SECRET;
use curfew_tests::{Gateway, Settings};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::clients::{clients, installed, program, steps};

/// Deadline for a program on a busy machine.
const LONGEST_PROGRAM: Duration = Duration::from_secs(120);

/// The scenarios that make no requests.
const SCENARIOS: [&str; 10] = [
    "talk",
    "names",
    "refusals",
    "without_stream",
    "since",
    "token_faults",
    "closing",
    "while_away",
    "wakes",
    "reconnects",
];

/// Settings with streams and presence for the channels `room:*`, and without a rule for `secret:*`.
fn settings() -> Settings {
    let rules = "[[policy.rules]]\nname = \"all but secrets\"\nchannels = [\"room:*\", \"plain:*\"]\n\
        actions = [\"subscribe\", \"publish\", \"history\", \"presence\"]\n\
        [[channels]]\npattern = \"room:*\"\nhistory = { size = 10000, ttl = \"10m\" }\n\
        presence = true\njoin_leave = true\n";
    Settings::default()
        .rules(rules)
        .with("limits.messages_per_second = 10000")
        .with("limits.handshakes_per_second = 10000")
}

#[tokio::test]
async fn the_client_lives_every_scenario_in_node() {
    let node = Gateway::start_with(&settings()).await;
    let task = json!({"scenarios":SCENARIOS});
    let steps = live(node.address(), task, async |what| panic!("{what}")).await;
    assert_eq!(steps, SCENARIOS);
    node.assert_alive().await;
}

/// Tests with the platform's own WebSocket, which Node has without a flag from version 22 on.
#[tokio::test]
async fn the_client_uses_the_websocket_of_the_platform() {
    let node = Gateway::start_with(&settings()).await;
    let scenarios = ["talk", "without_stream", "closing"];
    let task = json!({"scenarios":scenarios,"native":true});
    let steps = live(node.address(), task, async |what| panic!("{what}")).await;
    assert_eq!(steps, scenarios);
}

/// Runs the scenarios of `task` against the node at `address`, and fulfils the program's requests.
/// Returns the program's output lines.
async fn live(address: SocketAddr, task: Value, asked: impl AsyncFnMut(&str)) -> Vec<String> {
    live_watched(address, task, asked, |_| ()).await
}

/// Runs scenarios as [`live`] does. Calls `started` with the program's process id once the program
/// runs.
async fn live_watched(
    address: SocketAddr,
    mut task: Value,
    asked: impl AsyncFnMut(&str),
    started: impl FnOnce(u32),
) -> Vec<String> {
    installed("node_modules/ws");
    task["secret"] = SECRET.into();
    task["address"] = address.to_string().into();
    let mut node = Command::new("node");
    node.arg("--experimental-websocket")
        .arg(program("curfew_client.mjs"))
        .env("CURFEW_CLIENTS", clients())
        .env("no_proxy", "*");
    steps(node, &task, LONGEST_PROGRAM, asked, started).await
}
