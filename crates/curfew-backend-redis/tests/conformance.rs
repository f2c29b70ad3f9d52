//! The suite that every backend must pass, over real servers: a standalone Redis and a cluster.

#[path = "conformance/nodes.rs"]
mod nodes;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use curfew_backend::Presence;
use curfew_backend::conformance::{self, DEADLINE, ManualClock};
use curfew_model::{Channel, Clock as _, NodeId, PresenceEntry, Present, SessionId, SystemClock};
use tempfile::TempDir;

use nodes::nodes;

/// A redis-server for this test, which is killed when this value is dropped.
struct Server {
    child: Child,
    port: u16,
    _directory: TempDir,
}

impl Server {
    fn start(more: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory is created");
        let port = free_port();
        let child = start(port, directory.path(), more);
        let server = Self {
            child,
            port,
            _directory: directory,
        };
        server.until("PONG", &["PING"]);
        server
    }

    fn cli(&self, arguments: &[&str]) -> String {
        let output = Command::new(program("redis-cli"))
            .args(["-p", &self.port.to_string()])
            .args(arguments)
            .output()
            .expect("redis-cli runs: apt-get install redis-tools");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Repeats a command of `redis-cli` until its output contains `wanted`.
    fn until(&self, wanted: &str, arguments: &[&str]) {
        let deadline = std::time::Instant::now() + DEADLINE;
        while !self.cli(arguments).contains(wanted) {
            assert!(
                std::time::Instant::now() < deadline,
                "redis-cli with {arguments:?} does not print {wanted} in time"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The calls fail only if the server has already ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A program of the Redis in the folder that `CURFEW_REDIS` names, or of the installed Redis.
fn program(name: &str) -> PathBuf {
    let folder = std::env::var_os("CURFEW_REDIS").map(PathBuf::from);
    folder.map_or_else(|| name.into(), |folder| folder.join(name))
}

fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener
            .local_addr()
            .expect("a bound listener has an address")
            .port();
        // The port of a cluster's bus is 10,000 higher, and must be a valid port too.
        if port < 55_000 {
            return port;
        }
    }
}

fn start(port: u16, directory: &Path, more: &[&str]) -> Child {
    Command::new(program("redis-server"))
        .args(["--port", &port.to_string(), "--save", "", "--dir"])
        .arg(directory)
        .args(more)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server runs: apt-get install redis-server")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standalone_redis_passes() {
    let server = Server::start(&[]);
    let url = format!("redis://127.0.0.1:{}", server.port);
    conformance::run(3, |clock, recorders| nodes(url.clone(), clock, recorders)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_cluster_passes() {
    let servers: Vec<Server> = (0..3)
        .map(|_| Server::start(&["--cluster-enabled", "yes"]))
        .collect();
    let addresses: Vec<String> = servers
        .iter()
        .map(|server| format!("127.0.0.1:{}", server.port))
        .collect();
    let mut create = vec!["--cluster", "create"];
    create.extend(addresses.iter().map(String::as_str));
    create.push("--cluster-yes");
    servers[0].cli(&create);
    for server in &servers {
        server.until("cluster_state:ok", &["CLUSTER", "INFO"]);
        server.until("cluster_size:3", &["CLUSTER", "INFO"]);
    }
    let url = format!("redis+cluster://{}", addresses.join(","));
    conformance::run(2, |clock, recorders| nodes(url.clone(), clock, recorders)).await;
}

/// Number of sessions in the channel of the measurement.
const SESSIONS: u64 = 100_000;

/// Measures the presence of a channel with 100,000 sessions. Prints the time of each operation, and
/// the time in which a node that cleans up removes all entries.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, for a release build"]
async fn presence_of_a_hundred_thousand_sessions() {
    let server = Server::start(&[]);
    let url = format!("redis://127.0.0.1:{}", server.port);
    let clock = Arc::new(ManualClock::default());
    let members = nodes(url, Arc::clone(&clock), vec![Arc::default()]).await;
    let presence = Arc::clone(&members[0].backends.presence);
    // This node has no heartbeat, so it counts as dead after two searches for dead nodes.
    let node = NodeId::new();
    let channel = Channel::parse("room").expect("the channel's name is valid");
    let entry = |number: u64| PresenceEntry {
        channel: channel.clone(),
        present: Present {
            session: SessionId::new(),
            user: format!("user-{number}").into(),
            info: Some(r#"{"name":"a name"}"#.into()),
            channel_info: None,
        },
        node,
        number,
        is_told: true,
        ends_at: clock.now() + Duration::from_secs(600),
    };
    let time_passes = async {
        loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let (now, before) = (SystemClock.now(), clock.now());
            clock.advance(now.saturating_sub(before));
        }
    };
    tokio::select! {
        () = measure(&presence, members[0].node, entry) => {}
        () = time_passes => {}
    }
}

async fn measure(presence: &Arc<dyn Presence>, ours: NodeId, entry: impl Fn(u64) -> PresenceEntry) {
    let entries: Vec<_> = (0..SESSIONS).map(&entry).collect();
    let began = Instant::now();
    for batch in entries.chunks(512) {
        presence.enter(batch).await.expect("the entries are added");
    }
    println!("all enter in {:?}", began.elapsed());
    let channel = &entries[0].channel;
    let mut took = [const { Vec::new() }; 3];
    for number in SESSIONS..SESSIONS + 100 {
        let one = [PresenceEntry {
            node: ours,
            ..entry(number)
        }];
        let began = Instant::now();
        presence.enter(&one).await.expect("the entry is added");
        took[0].push(began.elapsed());
        let began = Instant::now();
        let list = presence
            .list(channel, 1_000)
            .await
            .expect("the presence is listed");
        took[1].push(began.elapsed());
        assert_eq!(list.sessions.len(), 1_000);
        let began = Instant::now();
        presence.leave(&one).await.expect("the entry is removed");
        took[2].push(began.elapsed());
    }
    for (name, mut took) in ["one enters", "a list", "one leaves"].into_iter().zip(took) {
        took.sort_unstable();
        println!("{name} in {:?}, at most {:?}", took[50], took[99]);
    }
    let mut left = SESSIONS;
    let mut began = Instant::now();
    while left > 0 {
        let list = presence
            .list(channel, 1)
            .await
            .expect("the presence is listed");
        if list.count == SESSIONS {
            began = Instant::now();
        }
        left = list.count;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("all are removed in {:?}", began.elapsed());
}
