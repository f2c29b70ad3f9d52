//! The chats of `deploy/examples`, used in Chromium as their visitors use them.

mod guide;
mod tab;

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use curfew_testkit::mint::SECRET;
use curfew_testkit::{Connect, http};
use curfew_tests::{ADMIN_KEY, Dev, Gateway, Redis, eventually, eventually_within, free_port};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time;

use self::tab::Tab;
use super::haproxy::LoadBalancer;
use super::tools::{repository, text_of, yaml_file};
use crate::clients::installed;
use crate::demo::Browser;

/// Deadline for sessions to move to another node. The load balancer may consider a busy node down
/// for a while.
const REPLACED: Duration = Duration::from_secs(30);

/// Interval between two announcements while a node is replaced.
const BEAT: Duration = Duration::from_millis(50);

/// A notice that is two seconds shorter than a token's lifetime. The token is then renewed after
/// two seconds, and the test need not wait longer.
const NOTICE: &str = "[session]\nexpiring_notice = \"298s\"\n";

/// Interpreter and program of each back end.
const NODE: [&str; 2] = ["node", "deploy/examples/chat/server.mjs"];
const PYTHON: [&str; 2] = ["venv/bin/python", "deploy/examples/chat-python/app.py"];

#[tokio::test]
async fn the_chat_of_node_goes_on_over_a_deploy_and_ends_for_whom_is_revoked() {
    lives(NODE).await;
}

#[tokio::test]
async fn the_chat_of_python_goes_on_over_a_deploy_and_ends_for_whom_is_revoked() {
    lives(PYTHON).await;
}

/// Two users talk, a node is replaced, and one of the users loses access.
async fn lives(command: [&str; 2]) {
    let redis = Redis::start().await;
    let (mut first, second) = (node(&redis).await, node(&redis).await);
    let balancer = balancer(&[&first, &second]).await;
    let chat = Chat::start(command, balancer.public(), &[&first, &second]).await;
    let browser = Browser::start().await;
    let alice = Tab::join(&browser, &chat, "alice").await;
    let bob = Tab::join(&browser, &chat, "bob").await;
    bob.until_shown("#people", "aliceRevoke,bobRevoke").await;
    bob.say("Lunch at <i>one</i>?").await;
    alice.until_last("bob: Lunch at <i>one</i>?").await;
    alice.say("I am in").await;
    bob.until_last("alice: I am in").await;
    bob.announce("The kitchen is open").await;
    alice.until_last("The server: The kitchen is open").await;
    let mut expected = bob.lines().await;
    assert_eq!(expected.len(), 3, "{expected:?}");
    browser.assert_fits("chat", async |_| ()).await;

    // A user who joins late receives all earlier messages.
    bob.join_again(&chat).await;
    bob.until_last("The server: The kitchen is open").await;
    assert_eq!(bob.lines().await, expected);

    // The node that is replaced has a session, and the back end publishes without a pause.
    eventually_within(REPLACED, "a session on the first node", async || {
        if first.metric("curfew_sessions").await > 0.0 {
            return Some(());
        }
        bob.join_again(&chat).await;
        bob.until_shown("#state", "bob: open").await;
        None
    })
    .await;
    let announcer = Announcer::start(&chat);
    first.terminate();
    alice.say("do you hear me").await;
    bob.say("I do").await;
    assert_eq!(first.exited(REPLACED).await, 0);
    eventually_within(REPLACED, "both sessions on the second node", async || {
        (second.metric("curfew_sessions").await == 2.0).then_some(())
    })
    .await;
    let count = announcer.stop().await;
    assert!(count > 10, "only {count} announcements were made");
    let addresses = [
        ("127.0.0.1:8082", second.address()),
        ("127.0.0.1:9092", second.admin_address()),
    ];
    let key = [("CURFEW_ADMIN_KEY", ADMIN_KEY.to_owned())];
    guide::assert_prints("6. Deploy without loss", &addresses, &key).await;
    alice.say("still here").await;
    expected.extend((1..=count).map(|n| format!("The server: {n}")));
    expected.push("alice: still here".to_owned());
    for tab in [&alice, &bob] {
        tab.until_last("alice: still here").await;
        let (said, others) = tab
            .lines()
            .await
            .into_iter()
            .partition::<Vec<_>, _>(|line| {
                ["alice: do you hear me", "bob: I do"].contains(&line.as_str())
            });
        assert_eq!((said.len(), others), (2, expected.clone()), "{said:?}");
    }
    let refreshed = r#"curfew_commands_total{command="refresh",outcome="ok"}"#;
    second.until_metric(refreshed, |n| n >= 1.0).await;

    bob.revoke("alice").await;
    alice
        .until_shown("#notice", "Your access was revoked.")
        .await;
    bob.until_shown("#people", "bobRevoke").await;
    alice.assert_content().await;
    alice.join_again(&chat).await;
    alice
        .until_shown("#notice", "Your access was revoked.")
        .await;
    bob.say("alone").await;
    bob.until_last("bob: alone").await;
    second.until_metric("curfew_sessions", |n| n == 1.0).await;
    assert_eq!(alice.lines().await, Vec::<String>::new());
    alice.assert_content().await;
    bob.assert_content().await;
}

#[tokio::test]
async fn curfew_dev_runs_the_back_end_of_python_with_its_addresses_and_keys() {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let port = format!("PORT={}", address.port());
    let python = installed(PYTHON[0]);
    let program = repository(PYTHON[1]);
    let [python, program] = [&python, &program].map(|path| path.to_str().unwrap());
    let dev = Dev::start_beside(&["env", &port, python, program]).await;
    until_listening(address).await;
    let token = post(address, "/token", json!({"user":"alice"})).await;
    let mut alice = dev
        .ws()
        .bearer(token["token"].as_str().unwrap())
        .open()
        .await;
    alice
        .expect_json(json!({"type":"connected","user":"alice"}))
        .await;
    alice
        .send(json!({"type":"subscribe","id":1,"channel":"room:lobby"}))
        .await;
    alice.expect_json(json!({"type":"ok","id":1})).await;
    let placed = post(address, "/announce", json!({"text":"hi"})).await;
    assert_eq!(placed["offset"], 1, "{placed}");
    let message = json!({"type":"message","data":{"text":"hi"},"offset":1});
    alice.expect_json(message).await;
    let receipt = post(address, "/revoke", json!({"user":"alice"})).await;
    assert_eq!(receipt["closed"], 1, "{receipt}");
    alice.expect_close(4403, "revoked").await;
    let mut again = Connect::to(dev.address)
        .bearer(token["token"].as_str().unwrap())
        .open()
        .await;
    again.expect_auth_failed("revoked", 4403).await;
    // A page of another site can send `text/plain` without a preflight, so the back end refuses
    // this type.
    for path in ["/announce", "/revoke", "/token"] {
        let form = [("Content-Type", "text/plain")];
        let refused = http::request(address, "POST", path, &form, br#"{"user":"bob"}"#).await;
        assert!(
            (400..500).contains(&refused.status),
            "{path}: {}",
            refused.text()
        );
    }
    drop(dev);
    assert!(
        std::net::TcpStream::connect(address).is_err(),
        "the back end still runs after `curfew dev` has ended"
    );
}

#[test]
fn the_packages_of_the_python_chat_are_those_that_are_tested() {
    let tested = text_of("tests/clients/requirements.txt");
    let tested: Vec<&str> = tested.lines().collect();
    let needed = text_of("deploy/examples/chat-python/requirements.txt");
    assert!(needed.lines().count() > 0);
    for package in needed.lines() {
        assert!(tested.contains(&package), "{package} is not tested");
    }
}

#[test]
fn the_compose_file_of_the_chat_fits_the_one_below_it() {
    let (base, chat) = (
        yaml_file("deploy/compose.yaml"),
        yaml_file("deploy/examples/chat/compose.yaml"),
    );
    let [(name, service)] = &*chat["services"]
        .as_object()
        .unwrap()
        .iter()
        .collect::<Vec<_>>()
    else {
        panic!("the compose file does not have exactly one service");
    };
    assert!(base["services"][name.as_str()].is_null());
    for other in service["depends_on"].as_array().unwrap() {
        assert!(base["services"][other.as_str().unwrap()].is_object());
    }
    for secret in service["secrets"].as_array().unwrap() {
        assert!(base["secrets"][secret.as_str().unwrap()].is_object());
    }
    let volume = service["volumes"][0].as_str().unwrap();
    let (source, mounted) = volume.trim_end_matches(":ro").split_once(':').unwrap();
    let run = service["command"][1].as_str().unwrap();
    let file = format!("deploy/{source}{}", run.strip_prefix(mounted).unwrap());
    assert!(repository(&file).is_file(), "{file}");
    let environment = service["environment"].as_object().unwrap();
    for variable in environment.keys() {
        let name = variable.trim_end_matches("_FILE");
        assert!(text_of(&file).contains(name), "{file} does not read {name}");
    }
    let admin = environment["CURFEW_ADMIN_URL"].as_str().unwrap();
    for url in admin.split(',') {
        let host = url
            .strip_prefix("http://")
            .unwrap()
            .strip_suffix(":9090")
            .unwrap();
        assert!(base["services"][host].is_object(), "{host}");
    }
    let public = environment["CURFEW_URL"]
        .as_str()
        .unwrap()
        .trim_start_matches("http://");
    let published = Value::from(format!("{public}:8080"));
    let ports = base["services"]["haproxy"]["ports"].as_array().unwrap();
    assert!(ports.contains(&published), "{ports:?}");
    // The rooms of the container are equal to the rooms of the single machine.
    for section in ["[[policy.rules]]\n", "[[channels]]\n"] {
        let of = |path: &str| {
            let text = text_of(path);
            let (_, section) = text.split_once(section).expect("the section");
            section.split("\n\n").next().unwrap().to_owned()
        };
        let [one, other] = [
            "deploy/config/compose.toml",
            "deploy/examples/chat/curfew.toml",
        ]
        .map(of);
        assert_eq!(one, other, "{section}");
    }
}

/// A node with the configuration `deploy/examples/chat/curfew.toml`, but on free ports.
async fn node(redis: &Redis) -> Gateway {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("admin-key"), ADMIN_KEY).unwrap();
    std::fs::write(folder.path().join("token-secret"), SECRET).unwrap();
    let mut text = text_of("deploy/examples/chat/curfew.toml");
    for (from, to) in [
        ("127.0.0.1:8081", "127.0.0.1:0"),
        ("127.0.0.1:9091", "127.0.0.1:0"),
        ("deploy/secrets", folder.path().to_str().unwrap()),
        ("redis://127.0.0.1:6379", &redis.url()),
    ] {
        assert!(
            text.contains(from),
            "the configuration does not contain {from}"
        );
        text = text.replace(from, to);
    }
    Gateway::start_in(folder, &(text + NOTICE)).await
}

/// A load balancer with the configuration `deploy/examples/chat/haproxy.cfg`, but on free ports.
async fn balancer(nodes: &[&Gateway; 2]) -> LoadBalancer {
    let public = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let mut text = text_of("deploy/examples/chat/haproxy.cfg");
    let mut replace = |from: &str, to: String| {
        assert!(
            text.contains(from),
            "the configuration does not contain {from}"
        );
        text = text.replace(from, &to);
    };
    replace("127.0.0.1:8080", public.to_string());
    for (node, ports) in nodes
        .iter()
        .zip(["127.0.0.1:8081 port 9091", "127.0.0.1:8082 port 9092"])
    {
        let port = node.admin_address().port();
        replace(ports, format!("{} port {port}", node.address()));
    }
    LoadBalancer::run(&text, public, public).await
}

async fn until_listening(address: SocketAddr) {
    eventually("the back end to listen", async || {
        std::net::TcpStream::connect(address).ok()
    })
    .await;
}

async fn post(address: SocketAddr, path: &str, body: Value) -> Value {
    let json = [("Content-Type", "application/json")];
    let answer = http::request(address, "POST", path, &json, body.to_string().as_bytes()).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

/// A running back end, which is killed when this value is dropped.
struct Chat {
    process: Child,
    address: SocketAddr,
}

impl Chat {
    async fn start([program, file]: [&str; 2], public: SocketAddr, nodes: &[&Gateway]) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let program = match program.contains('/') {
            true => installed(program),
            false => program.into(),
        };
        let admin = nodes
            .iter()
            .map(|node| format!("http://{}", node.admin_address()));
        let secrets = nodes[0].directory();
        let process = Command::new(program)
            .arg(repository(file))
            .env("PORT", address.port().to_string())
            .env("CURFEW_URL", format!("http://{public}"))
            .env("CURFEW_ADMIN_URL", admin.collect::<Vec<_>>().join(","))
            .env("CURFEW_ADMIN_KEY_FILE", secrets.join("admin-key"))
            .env("CURFEW_TOKEN_SECRET_FILE", secrets.join("token-secret"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let chat = Self { process, address };
        until_listening(address).await;
        chat
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        // These calls fail only if the process has already ended.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Makes the back end announce the numbers 1, 2, 3, … until [`Announcer::stop`].
struct Announcer {
    is_over: watch::Sender<bool>,
    announcing: JoinSet<u64>,
}

impl Announcer {
    fn start(chat: &Chat) -> Self {
        let (is_over, told) = watch::channel(false);
        let address = chat.address;
        let mut announcing = JoinSet::new();
        announcing.spawn(async move {
            let mut beat = time::interval(BEAT);
            let mut count = 0;
            while !*told.borrow() {
                beat.tick().await;
                count += 1;
                post(address, "/announce", json!({"text":count.to_string()})).await;
            }
            count
        });
        Self {
            is_over,
            announcing,
        }
    }

    /// Stops the announcements, and returns their number.
    async fn stop(mut self) -> u64 {
        self.is_over.send_replace(true);
        self.announcing.join_next().await.unwrap().unwrap()
    }
}
