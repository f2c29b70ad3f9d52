//! The published SDKs of Centrifuge for JavaScript, Python, Go and Java, unchanged.
//!
//! The programs are in `tests/clients/`; each runs scenarios and prints their names. A line of
//! output that ends in a colon is a request, which this test fulfils. Java's programs need a JDK,
//! and only `just sdk java` runs them.

use std::time::Duration;

use curfew_testkit::PATIENCE;
use curfew_testkit::mint::SECRET;
use curfew_tests::{Cluster, Gateway, Proxy, Redis, revocation_key};
use serde_json::{Value, json};
use tokio::process::Command;

use super::settings;
use crate::clients::{clients, installed, program, steps};

/// Deadline for a program on a busy machine.
const LONGEST_PROGRAM: Duration = Duration::from_secs(300);

/// The scenarios about one connection and its channels. They make no requests.
const SCENARIOS: [&str; 15] = [
    "connect",
    "refused_token",
    "expired_token",
    "subscribe",
    "publish",
    "presence",
    "join_leave",
    "history",
    "recovery",
    "recovery_under_load",
    "get_state",
    "server_side",
    "delta",
    "delta_characters",
    "commands",
];

/// Scenarios that wait for several seconds. They run at the same time as the other scenarios.
const SLOW_SCENARIOS: [&str; 3] = ["refresh", "subscription_token", "pings"];

/// Scenarios that not every SDK supports: several commands in one frame, and messages to the
/// server.
const MORE: [&str; 3] = ["batching", "many_at_once", "send"];

/// Scenarios that are repeated on several nodes, with half of the clients at another node.
const ACROSS_NODES: [&str; 9] = [
    "publish",
    "presence",
    "join_leave",
    "history",
    "recovery",
    "recovery_under_load",
    "get_state",
    "server_side",
    "delta",
];

/// Scenarios whose commands may come through a node other than the session's. `presence` is left
/// out, because it sends two requests at once, and their order is not guaranteed.
const BY_ANOTHER_NODE: [&str; 5] = ["refresh", "subscribe", "publish", "history", "many_at_once"];

/// Makes a module of tests for each SDK, in each format, over each of the SDK's transports.
macro_rules! each_sdk {
    ($($(#[$attribute:meta])* $name:ident: $sdk:expr;)*) => {
        $(mod $name {
            use super::{Sdk, SdkLanguage::*};

            const SDK: Sdk = $sdk;

            #[tokio::test]
            $(#[$attribute])*
            async fn lives_every_scenario_at_one_node() {
                super::lives_every_scenario_at_one_node(SDK).await;
            }

            #[tokio::test]
            $(#[$attribute])*
            async fn has_everything_from_another_node() {
                super::has_everything_from_another_node(SDK).await;
            }

            #[tokio::test]
            $(#[$attribute])*
            async fn has_every_message_when_its_node_drains_or_dies() {
                super::has_every_message_when_its_node_drains_or_dies(SDK).await;
            }

            #[tokio::test]
            $(#[$attribute])*
            async fn stays_away_once_its_user_is_revoked() {
                super::stays_away_once_its_user_is_revoked(SDK).await;
            }

            #[tokio::test]
            $(#[$attribute])*
            async fn renews_its_token_when_older_ones_do_not_count() {
                super::renews_its_token_when_older_ones_do_not_count(SDK).await;
            }
        })*
    };
}

each_sdk! {
    javascript_json: Sdk(JavaScript, "json", "websocket");
    javascript_protobuf: Sdk(JavaScript, "protobuf", "websocket");
    javascript_json_over_http_stream: Sdk(JavaScript, "json", "http_stream");
    javascript_protobuf_over_http_stream: Sdk(JavaScript, "protobuf", "http_stream");
    javascript_json_over_sse: Sdk(JavaScript, "json", "sse");
    python_json: Sdk(Python, "json", "websocket");
    python_protobuf: Sdk(Python, "protobuf", "websocket");
    go_json: Sdk(Go, "json", "websocket");
    go_protobuf: Sdk(Go, "protobuf", "websocket");
    #[ignore = "it needs a JDK: `just sdk java`"]
    java_protobuf: Sdk(Java, "protobuf", "websocket");
}

#[tokio::test]
async fn javascript_sends_its_commands_to_another_node() {
    let redis = Redis::start().await;
    let cluster = Cluster::start(2, &redis.url(), &settings()).await;
    for (format, transport) in [
        ("json", "http_stream"),
        ("protobuf", "http_stream"),
        ("json", "sse"),
    ] {
        let task = json!({
            "address": cluster[0].address().to_string(),
            "commands": cluster[1].address().to_string(),
            "scenarios": BY_ANOTHER_NODE,
        });
        let sdk = Sdk(SdkLanguage::JavaScript, format, transport);
        let steps = sdk.live(task, async |what| panic!("{what}")).await;
        assert_eq!(steps, BY_ANOTHER_NODE, "{sdk:?}");
    }
    let relayed = "curfew_emulation_requests_total{outcome=\"relayed\"}";
    assert!(cluster[1].metric(relayed).await > 0.0);
    assert_eq!(
        cluster[0].metric("curfew_emulation_requests_total").await,
        0.0
    );
    cluster.assert_well().await;
}

async fn lives_every_scenario_at_one_node(sdk: Sdk) {
    let node = Gateway::start_with(&settings()).await;
    let scenarios = sdk.has([&SCENARIOS[..], &MORE].concat());
    let live = async |scenarios: Vec<&'static str>| {
        let task = json!({"address":node.address().to_string(),"scenarios":scenarios});
        let steps = sdk.live(task, async |what| panic!("{what}")).await;
        assert_eq!(steps, scenarios);
    };
    let [first, second, third] = SLOW_SCENARIOS.map(|scenario| sdk.has(vec![scenario]));
    tokio::join!(live(scenarios), live(first), live(second), live(third));
    node.assert_alive().await;
}

async fn has_everything_from_another_node(sdk: Sdk) {
    let redis = Redis::start().await;
    let cluster = Cluster::start(2, &redis.url(), &settings()).await;
    let scenarios = sdk.has(ACROSS_NODES.to_vec());
    let task = json!({
        "address": cluster[0].address().to_string(),
        "publisher": cluster[1].address().to_string(),
        "scenarios": scenarios,
    });
    let steps = sdk.live(task, async |what| panic!("{what}")).await;
    assert_eq!(steps, scenarios);
    cluster.assert_well().await;
}

/// The client connects to a proxy. The proxy leads to the first node until this node drains, then
/// to the second node until this node is killed, and then to the third node. The publisher uses the
/// third node.
async fn has_every_message_when_its_node_drains_or_dies(sdk: Sdk) {
    let redis = Redis::start().await;
    let settings = settings().with("drain.window = \"1s\"");
    let mut cluster = Cluster::start(3, &redis.url(), &settings).await;
    let way = Proxy::start(cluster[0].address()).await;
    for signal in ["TERM", "KILL"] {
        let next = cluster[1].address();
        let task = json!({
            "address": way.address().to_string(),
            "publisher": cluster[cluster.nodes().len() - 1].address().to_string(),
            "scenarios": ["failover"],
        });
        let node = cluster.remove(0);
        let mut ended = Some(node);
        let steps = sdk.live(task, async |what| {
            assert_eq!(what, "end the node:");
            way.point_to(next);
            ended
                .as_ref()
                .expect("the program asks once for the node's end")
                .signal(signal);
        });
        assert_eq!(steps.await, ["end the node:", "failover"], "{signal}");
        let code = ended.as_mut().expect("a node").exited(PATIENCE).await;
        assert_eq!(code == 0, signal == "TERM", "{signal}: {code}");
    }
}

async fn stays_away_once_its_user_is_revoked(sdk: Sdk) {
    let redis = Redis::start().await;
    let cluster = Cluster::start(2, &redis.url(), &settings()).await;
    let task = json!({"address":cluster[0].address().to_string(),"scenarios":["revoked"]});
    let connections = async || {
        let accepted = cluster.metric("curfew_connections_accepted_total").await;
        accepted + cluster.metric("curfew_connections_rejected_total").await
    };
    let mut counted = Vec::new();
    let steps = sdk.live(task, async |what| match what {
        "revoke alice:" => {
            let key = revocation_key("user", "alice");
            redis.run(&["SET", &key, "1", "EX", "600"]).await;
        }
        "count:" | "count again:" => counted.push(connections().await),
        other => panic!("{other}"),
    });
    let asked = ["revoke alice:", "count:", "count again:", "revoked"];
    assert_eq!(steps.await, asked);
    // The first count is Alice's two sessions and Bob's session. Until the second count, Bob's
    // session has reconnected twice, and Alice's sessions have not reconnected.
    assert_eq!(counted, [3.0, 5.0]);
    cluster.assert_well().await;
}

/// Redis loses its data, so the node trusts no earlier token. The node closes with 3014. The SDK
/// asks for a new token and continues without recovery.
async fn renews_its_token_when_older_ones_do_not_count(sdk: Sdk) {
    let mut redis = Redis::start().await;
    let settings = settings().with(r#"backend.on_data_loss = "reauth""#);
    let cluster = Cluster::start(2, &redis.url(), &settings).await;
    let task = json!({
        "address": cluster[0].address().to_string(),
        "scenarios": ["state_invalidated"],
    });
    let steps = sdk.live(task, async |what| {
        assert_eq!(what, "lose the data:");
        redis.restart_empty().await;
    });
    assert_eq!(steps.await, ["lose the data:", "state_invalidated"]);
    cluster.assert_well().await;
}

/// A programming language that has an SDK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SdkLanguage {
    JavaScript,
    Python,
    Go,
    Java,
}

/// An SDK, with its format and its transport.
#[derive(Debug, Clone, Copy)]
struct Sdk(SdkLanguage, &'static str, &'static str);

impl Sdk {
    /// The scenarios that the SDK supports.
    fn has(self, mut scenarios: Vec<&'static str>) -> Vec<&'static str> {
        let lacks: &[_] = match self.0 {
            SdkLanguage::JavaScript => &[],
            SdkLanguage::Python => &MORE,
            SdkLanguage::Go => &["batching"],
            SdkLanguage::Java => &["batching", "get_state", "delta", "delta_characters"],
        };
        scenarios.retain(|scenario| !lacks.contains(scenario));
        scenarios
    }

    fn command(self) -> Command {
        let mut command = match self.0 {
            SdkLanguage::JavaScript => {
                installed("node_modules/centrifuge");
                let mut node = Command::new("node");
                node.arg(program("centrifuge_scenarios.mjs"));
                node
            }
            SdkLanguage::Python => {
                let mut python = Command::new(installed("venv/bin/python"));
                python.arg(program("centrifuge_scenarios.py"));
                python
            }
            SdkLanguage::Go => Command::new(installed("centrifuge-go-scenarios")),
            SdkLanguage::Java => {
                let folder = installed("centrifuge-java").display().to_string();
                let mut java = Command::new("java");
                java.args(["-cp", &format!("{folder}/classes:{folder}/jars/*")])
                    .arg("Scenarios");
                java
            }
        };
        at_home(&mut command);
        command
    }

    /// Runs the task's scenarios, fulfils the program's requests, and returns its output lines.
    async fn live(self, mut task: Value, asked: impl AsyncFnMut(&str)) -> Vec<String> {
        let Self(_, format, transport) = self;
        task["secret"] = SECRET.into();
        task["format"] = format.into();
        task["transport"] = transport.into();
        steps(self.command(), &task, LONGEST_PROGRAM, asked, |_| ()).await
    }
}

/// Sets the path of a program's packages. Also keeps the program from using proxies of the
/// environment, and from writing files beside its source.
pub(super) fn at_home(command: &mut Command) {
    command
        .env("CURFEW_CLIENTS", clients())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("no_proxy", "*");
}
