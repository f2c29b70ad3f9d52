//! HAProxy with the shipped configuration, in front of real nodes.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Stdio};
use std::time::Duration;

use curfew_testkit::mint::Key;
use curfew_testkit::{Connect, http};
use curfew_tests::{Gateway, eventually, eventually_within, free_port};
use tempfile::TempDir;

use super::tools::{system_tool, text_of};

/// Name of the file with HAProxy's log.
const LOG: &str = "log";

/// Number of nodes in the shipped configuration.
const SHIPPED: usize = 3;

/// Deadline for HAProxy to notice that a node's state has changed. It needs two good checks, and
/// checks once a second.
const NOTICE: Duration = Duration::from_secs(10);

/// The addresses of a node's two listeners.
#[derive(Debug, Clone, Copy)]
pub(super) struct Server {
    pub(super) public: SocketAddr,
    pub(super) admin: SocketAddr,
}

impl Server {
    /// Reserves ports for a node that is started later.
    pub(super) fn reserve() -> Self {
        let reserve = || SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        Self {
            public: reserve(),
            admin: reserve(),
        }
    }
}

impl From<&Gateway> for Server {
    fn from(node: &Gateway) -> Self {
        Self {
            public: node.address(),
            admin: node.admin_address(),
        }
    }
}

/// HAProxy with `deploy/haproxy/haproxy.cfg`, in which names and ports are replaced. The process is
/// killed when this value is dropped.
#[derive(Debug)]
pub(super) struct LoadBalancer {
    process: Child,
    public: SocketAddr,
    stats: SocketAddr,
    directory: TempDir,
}

impl LoadBalancer {
    /// Starts HAProxy for the three servers of the shipped configuration. Each further server gets
    /// a similar line.
    pub(super) async fn start(servers: &[Server]) -> Self {
        let [public, stats] =
            [free_port(), free_port()].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        // `maxconn` is lowered: each connection takes two file descriptors, and a test may not open
        // as many file descriptors as the shipped value needs.
        let mut text = text_of("deploy/haproxy/haproxy.cfg")
            .replace("maxconn 20000", "maxconn 2500")
            .replace("bind :8080", &format!("bind {public}"))
            .replace("bind :8404", &format!("bind {stats}"))
            .replace("check port 9090", "check");
        for (at, server) in servers.iter().enumerate() {
            let (node, address) = (at + 1, server.public);
            let port = server.admin.port();
            if at < SHIPPED {
                let name = format!("curfew-{node}:8080");
                assert!(text.contains(&name), "haproxy.cfg has no {name}");
                text = text.replace(&name, &format!("{address} port {port}"));
            } else {
                writeln!(text, "    server node{node} {address} port {port}").unwrap();
            }
        }
        Self::run(&text, public, stats).await
    }

    /// Starts HAProxy with this configuration, which listens at the addresses `public` and `stats`.
    pub(super) async fn run(configuration: &str, public: SocketAddr, stats: SocketAddr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("haproxy.cfg");
        fs::write(&file, configuration).unwrap();
        let process = system_tool("haproxy")
            .args(["-db", "-f"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(fs::File::create(directory.path().join(LOG)).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let balancer = Self {
            process,
            public,
            stats,
            directory,
        };
        eventually("the load balancer to listen", async || {
            std::net::TcpStream::connect(balancer.public).ok()
        })
        .await;
        balancer
    }

    /// The content of the log so far.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join(LOG)).unwrap()
    }

    /// The address that clients connect to.
    pub(super) fn public(&self) -> SocketAddr {
        self.public
    }

    /// A WebSocket connection of `user` to HAProxy, which the caller opens.
    pub(super) fn user(&self, user: &str) -> Connect {
        Connect::to(self.public).bearer(&Key::default_secret().user(user))
    }

    /// Waits until HAProxy considers the server at index `at` in service (`wanted`) or out of
    /// service.
    pub(super) async fn until_in_service(&self, at: usize, wanted: bool) {
        let state = if wanted { "UP" } else { "DOWN" };
        let series = format!(
            r#"haproxy_server_status{{proxy="nodes",server="node{}",state="{state}"}} 1"#,
            at + 1
        );
        eventually_within(NOTICE, &series, async || {
            let answer = http::request(self.stats, "GET", "/metrics", &[], b"").await;
            answer
                .text()
                .lines()
                .any(|line| line == series)
                .then_some(())
        })
        .await;
    }
}

/// Starts HAProxy as a TCP forwarder to one server. `header` is the keyword of the `server` line
/// that makes HAProxy send a PROXY header. The header states 203.0.113.7 as the client's address.
pub(super) async fn relay(server: SocketAddr, header: &str) -> LoadBalancer {
    let public = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let text = format!(
        "defaults\n mode tcp\n timeout connect 2s\n timeout client 30s\n timeout server 30s\n\
         frontend relay\n bind {public}\n tcp-request connection set-src str(203.0.113.7)\n\
         default_backend node\n\
         backend node\n server node {server} {header}\n"
    );
    LoadBalancer::run(&text, public, public).await
}

impl Drop for LoadBalancer {
    fn drop(&mut self) {
        // These calls fail only if the process has already ended.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
