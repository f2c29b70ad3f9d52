//! Requests during reloads, sent to the listeners of a whole node.

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task;

use super::*;
use crate::config::{self, Check};

/// The configuration that all tests here share. Its limits allow all requests to come from one
/// address.
const BASE: &str = r#"
[server]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[[auth.issuers]]
name = "main"
secret = "0123456789abcdef0123456789abcdef"
[backend]
kind = "memory"
[limits]
handshakes_per_second = 0
unauthenticated_per_address = 65536
unauthenticated = 65536
[telemetry]
log_level = "off"
"#;

/// The number of times that an answer must differ from the answer before it. These differences
/// prove that settings were swapped while requests were answered.
const CHANGES: usize = 500;

fn configured(sets: &[&str]) -> Config {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("curfew.toml");
    std::fs::write(&path, BASE).unwrap();
    let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
    let loaded = config::load(Some(&path), &sets, Check::Everything);
    loaded.unwrap().config
}

/// Starts a node. Without a pause, replaces the node's settings alternately by the two `configs`.
/// Sends requests to the listener that `listener` chooses, until the status has changed [`CHANGES`]
/// times. The head of a request is sent first. The body is sent after the settings were replaced at
/// least once. Returns the statuses of all answers.
async fn statuses(
    configs: [Config; 2],
    listener: fn((Listen, Listen)) -> Listen,
    [head, body]: [&str; 2],
) -> BTreeSet<String> {
    // The process can have only one log, so the tests share it.
    static TELEMETRY: OnceLock<Installed> = OnceLock::new();
    let telemetry = || curfew_telemetry::init(&configs[0].telemetry).unwrap();
    let telemetry = TELEMETRY.get_or_init(telemetry).clone();
    let app = App::build(&configs[0], telemetry, |_, _, _| Ok(None)).unwrap();
    let Listen::Tcp(address) = listener(app.addresses().unwrap()) else {
        panic!("the listener does not listen on TCP");
    };
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let running = app.listen(stop.clone(), stop).unwrap();
    let snapshots = configs.map(|config| Arc::new(settings(&config).unwrap()));
    let done = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicUsize::new(0));
    let reloads = {
        let (context, done) = (Arc::clone(&running.context), Arc::clone(&done));
        let count = Arc::clone(&count);
        std::thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                for snapshot in &snapshots {
                    context.settings.store(Arc::clone(snapshot));
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
    };
    let mut statuses = BTreeSet::new();
    let (mut last, mut changes) = (String::new(), 0);
    while changes < CHANGES {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        if !body.is_empty() {
            let before = count.load(Ordering::Relaxed);
            while count.load(Ordering::Relaxed) == before {
                task::yield_now().await;
            }
            stream.write_all(body.as_bytes()).await.unwrap();
        }
        let status = status(stream).await;
        changes += usize::from(status != last);
        statuses.insert(status.clone());
        last = status;
    }
    done.store(true, Ordering::Relaxed);
    reloads.join().unwrap();
    statuses
}

/// Reads the status code of an answer.
async fn status(mut stream: TcpStream) -> String {
    let mut head = [0; "HTTP/1.1 200".len()];
    stream.read_exact(&mut head).await.unwrap();
    let head = std::str::from_utf8(&head).unwrap();
    head.split_once(' ').unwrap().1.to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_sees_origins_and_token_sources_of_one_snapshot() {
    // Neither configuration upgrades the request: the first allows only another origin, and the
    // second requires a token in a header. The request would be upgraded by a node that mixed the
    // origins of the second with the token sources of the first.
    let configs = [
        configured(&[
            r#"server.allowed_origins=["https://other.example"]"#,
            r#"auth.token_sources=["message"]"#,
        ]),
        configured(&[
            r#"server.allowed_origins=["https://app.example"]"#,
            r#"auth.token_sources=["header"]"#,
            "auth.reject=http",
        ]),
    ];
    let request = "GET /ws HTTP/1.1\r\nHost: node\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
        Origin: https://app.example\r\n\r\n";
    let statuses = statuses(configs, |(public, _)| public, [request, ""]).await;
    assert_eq!(Vec::from_iter(statuses), ["401", "403"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_of_the_admin_api_sees_keys_and_limits_of_one_snapshot() {
    // Neither configuration publishes: in the first the key has no right to publish, and in the
    // second the data is too large. The data would be published by a node that mixed the keys of
    // the second with the limits of the first.
    let key = "a key of the admin API with 32 bytes or more";
    let keys = |may: &str| format!(r#"admin.keys=[{{name="back-end",key="{key}",may=["{may}"]}}]"#);
    let configs = [
        configured(&[&keys("publish"), "limits.message_bytes=1024"]),
        configured(&[&keys("read"), "limits.message_bytes=16384"]),
    ];
    let body = format!(r#"{{"channel":"room","data":"{}"}}"#, "x".repeat(2048));
    let head = format!(
        "POST /v1/publish HTTP/1.1\r\nHost: node\r\nAuthorization: Bearer {key}\r\n\
        Content-Length: {}\r\n\r\n",
        body.len()
    );
    let statuses = statuses(configs, |(_, admin)| admin, [&head, &body]).await;
    assert_eq!(Vec::from_iter(statuses), ["403", "413"]);
}
