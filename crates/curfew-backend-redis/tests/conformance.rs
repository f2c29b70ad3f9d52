//! The suite that every backend must pass, over real servers: a standalone Redis and a cluster.

#[path = "conformance/nodes.rs"]
mod nodes;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use curfew_backend::conformance::{self, DEADLINE};
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
        let directory = tempfile::tempdir().expect("a directory");
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
                "redis does not say {wanted} to {arguments:?}"
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

/// A program of the Redis in the folder that `CURFEW_REDIS` names, or of the installed one.
fn program(name: &str) -> PathBuf {
    let folder = std::env::var_os("CURFEW_REDIS").map(PathBuf::from);
    folder.map_or_else(|| name.into(), |folder| folder.join(name))
}

fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("it has an address").port();
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
