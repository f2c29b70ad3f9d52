//! Clients by other authors: Python `websockets`, Node `ws` and curl.
//!
//! The programs are in `tests/clients/`. A test starts them, and revokes their user when they ask
//! for it.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use curfew_testkit::mint::Key;
use curfew_testkit::unix_now;
use curfew_tests::{ADMIN_KEY, Gateway, Settings};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

/// Deadline for a program to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Lines that both programs print, in order.
const STEPS: [&str; 10] = [
    "token in the header",
    "token as a subprotocol",
    "subscribe",
    "publish and receive",
    "error and ping",
    "refresh",
    "token in the first message, and a close by the client",
    "refused token",
    "revoke me",
    "revoked",
];

#[tokio::test]
async fn python_websockets_lives_a_session_from_token_to_revocation() {
    let python = installed("venv/bin/python");
    lives_a_session(Command::new(python).arg(program("python_websockets.py"))).await;
}

#[tokio::test]
async fn node_ws_lives_a_session_from_token_to_revocation() {
    installed("node_modules/ws");
    let mut node = Command::new("node");
    node.arg(program("node_ws.mjs"))
        .env("CURFEW_CLIENTS", clients());
    lives_a_session(&mut node).await;
}

#[tokio::test]
async fn curl_is_told_why_its_upgrade_is_refused() {
    let gateway = Gateway::start_with(&Settings::default().with(r#"auth.reject = "http""#)).await;
    let url = format!("http://{}/ws", gateway.address());

    let plain = CurlOutput::of(&["-i", &url]).await;
    assert_eq!(plain.status(), 426, "{plain:?}");
    assert!(plain.has_header("upgrade: websocket"), "{plain:?}");

    let upgrade = [
        "-i",
        "--http1.1",
        "-H",
        "Connection: Upgrade",
        "-H",
        "Upgrade: websocket",
        "-H",
        "Sec-WebSocket-Version: 13",
        "-H",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    let tokenless = Settings::default().with(r#"auth.token_sources = ["header"]"#);
    let expired = Key::default_secret().user_with("alice", json!({"exp":unix_now() - 60}));
    let bearer = format!("Authorization: Bearer {expired}");
    let refused = CurlOutput::of(&[&upgrade[..], &["-H", &bearer, &url]].concat()).await;
    assert_eq!(refused.status(), 401, "{refused:?}");
    assert!(
        refused.has_header("www-authenticate: Bearer error=\"invalid_token\""),
        "{refused:?}"
    );
    let told = refused.json();
    assert_eq!(
        (&told["type"], &told["reason"]),
        (&json!("auth_failed"), &json!("expired"))
    );

    // This gateway accepts no token in a message, so it refuses a request without a token.
    let gateway = Gateway::start_with(&tokenless.with(r#"auth.reject = "http""#)).await;
    let url = format!("http://{}/ws", gateway.address());
    let refused = CurlOutput::of(&[&upgrade[..], &[&url]].concat()).await;
    assert_eq!(refused.status(), 401, "{refused:?}");
    assert_eq!(refused.json()["reason"], "missing_token");
}

#[tokio::test]
async fn curl_publishes_and_revokes_through_the_admin_api() {
    let gateway = Gateway::start_default().await;
    let mut alice = gateway.subscriber("alice", "room:1").await;
    let admin = format!("http://{}", gateway.admin_address());
    let key = format!("Authorization: Bearer {ADMIN_KEY}");
    let (publish, revoke) = (
        format!("{admin}/v1/publish"),
        format!("{admin}/v1/revocations"),
    );

    let stranger =
        CurlOutput::of(&["-i", "--json", r#"{"channel":"room:1","data":1}"#, &publish]).await;
    assert_eq!(stranger.status(), 401, "{stranger:?}");
    assert!(
        stranger.has_header("content-type: application/problem+json"),
        "{stranger:?}"
    );

    let body = r#"{"channel":"room:1","data":{"from":"curl"}}"#;
    let published = CurlOutput::of(&["-i", "-H", &key, "--json", body, &publish]).await;
    assert_eq!(published.status(), 200, "{published:?}");
    alice
        .expect_json(json!({"type":"message","channel":"room:1","data":{"from":"curl"}}))
        .await;

    let sessions =
        CurlOutput::of(&["-i", "-H", &key, &format!("{admin}/v1/sessions?user=alice")]).await;
    assert_eq!(
        sessions.json()["sessions"][0]["user"],
        "alice",
        "{sessions:?}"
    );

    let body = r#"{"kind":"user","value":"alice"}"#;
    let receipt = CurlOutput::of(&["-i", "-H", &key, "--json", body, &revoke]).await;
    assert_eq!(receipt.json()["closed"], 1, "{receipt:?}");
    alice.expect_close(4403, "revoked").await;

    let metrics = CurlOutput::of(&["-i", &format!("{admin}/metrics")]).await;
    assert_eq!(metrics.status(), 200, "{metrics:?}");
    assert!(metrics.body().contains("curfew_"), "{metrics:?}");
}

/// Runs a program of `tests/clients/` against a gateway, and revokes the user at the program's
/// request.
async fn lives_a_session(program: &mut Command) {
    let gateway = Gateway::start_default().await;
    let (key, now) = (Key::default_secret(), unix_now());
    let stranger = Key::hmac("HS256", b"another secret of thirty-two bytes or more");
    let task = json!({
        "url": format!("ws://{}/ws", gateway.address()),
        "token": key.user_with("alice", json!({"exp":now + 600})),
        "newer_token": key.user_with("alice", json!({"exp":now + 1200})),
        "bad_token": stranger.user("alice"),
    });
    let mut child = program
        .arg(task.to_string())
        // The gateway is on this machine, so the program must not use the environment's proxy.
        .env("no_proxy", "*")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the client's interpreter is installed: run .ci/run");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut steps = Vec::new();
    let watched = timeout(PATIENCE, async {
        while let Some(step) = lines.next_line().await.unwrap() {
            if step == "revoke me" {
                let receipt = gateway.revoke(json!({"kind":"user","value":"alice"})).await;
                assert_eq!(receipt["closed"], 2, "{receipt}");
            }
            steps.push(step);
        }
        child.wait().await.unwrap()
    })
    .await;
    let status = watched.unwrap_or_else(|_| panic!("the client does not end; it did {steps:?}"));
    assert!(status.success(), "the client failed after {steps:?}");
    assert_eq!(steps, STEPS);
}

/// Folder of the installed clients: `CURFEW_CLIENTS`, or the folder that `.ci/run` uses by default.
pub(crate) fn clients() -> PathBuf {
    std::env::var_os("CURFEW_CLIENTS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/clients"),
        PathBuf::from,
    )
}

pub(crate) fn installed(what: &str) -> PathBuf {
    let path = clients().join(what);
    assert!(
        path.exists(),
        "{} is missing: run .ci/run, which installs it",
        path.display()
    );
    path
}

pub(crate) fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("clients")
        .join(name)
}

/// Output of `curl -i`: head and body.
#[derive(Debug)]
struct CurlOutput(String);

impl CurlOutput {
    async fn of(arguments: &[&str]) -> Self {
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--max-time",
            "20",
            "--noproxy",
            "*",
        ])
        .args(arguments);
        let output = curl.stdin(Stdio::null()).output().await;
        let Output {
            status,
            stdout,
            stderr,
        } = output.expect("curl is installed: run .ci/run");
        let complaint = String::from_utf8_lossy(&stderr);
        assert!(status.success(), "curl {arguments:?}: {complaint}");
        Self(String::from_utf8(stdout).unwrap())
    }

    fn status(&self) -> u16 {
        self.0.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn head(&self) -> &str {
        self.0.split_once("\r\n\r\n").unwrap().0
    }

    fn body(&self) -> &str {
        self.0.split_once("\r\n\r\n").unwrap().1
    }

    fn has_header(&self, start: &str) -> bool {
        let start = start.to_ascii_lowercase();
        self.head()
            .lines()
            .any(|line| line.to_ascii_lowercase().starts_with(&start))
    }

    fn json(&self) -> Value {
        serde_json::from_str(self.body())
            .unwrap_or_else(|_| panic!("the body is not JSON: {self:?}"))
    }
}

/// Runs `program` with `task`, and returns its output lines. A line that ends in a colon is a
/// request, which `asked` fulfils. `started` gets the program's process id.
pub(crate) async fn steps(
    mut program: Command,
    task: &Value,
    longest: Duration,
    mut asked: impl AsyncFnMut(&str),
    started: impl FnOnce(u32),
) -> Vec<String> {
    let mut child = program
        .arg(task.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the program's interpreter is installed: run .ci/run");
    started(child.id().expect("the program runs"));
    let mut answers = child.stdin.take().expect("stdin is piped");
    let stdout = child.stdout.take().expect("stdout is piped");
    let mut lines = BufReader::new(stdout).lines();
    let mut steps = Vec::new();
    let watched = timeout(longest, async {
        while let Some(step) = lines.next_line().await.unwrap() {
            if step.ends_with(':') {
                asked(&step).await;
                answers.write_all(b"done\n").await.unwrap();
            }
            steps.push(step);
        }
        child.wait().await.unwrap()
    });
    let status = watched.await;
    let status = status.unwrap_or_else(|_| panic!("{program:?} does not end; it did {steps:?}"));
    assert!(status.success(), "{program:?} failed; it did {steps:?}");
    steps
}
