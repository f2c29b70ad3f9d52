//! The shipped load balancer in front of real nodes.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Stdio};

use curfew_testkit::http;
use curfew_testkit::mint::Key;
use curfew_testkit::{Connect, PATIENCE};
use curfew_tests::{Gateway, Settings, eventually, free_port};
use serde_json::json;
use tempfile::TempDir;

use super::tools::{system_tool, text_of};

/// HAProxy with `deploy/haproxy/haproxy.cfg`, its names and ports replaced; killed when dropped.
struct LoadBalancer {
    process: Child,
    public: SocketAddr,
    _directory: TempDir,
}

impl LoadBalancer {
    async fn start(nodes: &[&Gateway]) -> Self {
        let (public, stats) = (free_port(), free_port());
        // Fewer connections, since a test may not have that many files open.
        let mut text = text_of("deploy/haproxy/haproxy.cfg")
            .replace("maxconn 20000", "maxconn 500")
            .replace("bind :8080", &format!("bind 127.0.0.1:{public}"))
            .replace("bind :8404", &format!("bind 127.0.0.1:{stats}"))
            .replace("check port 9090", "check");
        for (at, node) in nodes.iter().enumerate() {
            let (name, address) = (format!("curfew-{}:8080", at + 1), node.address());
            assert!(text.contains(&name), "haproxy.cfg has no {name}");
            let admin = node.admin_address().port();
            text = text.replace(&name, &format!("{address} port {admin}"));
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("haproxy.cfg");
        fs::write(&file, text).unwrap();
        let process = system_tool("haproxy")
            .args(["-db", "-f"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let balancer = Self {
            process,
            public: SocketAddr::from((Ipv4Addr::LOCALHOST, public)),
            _directory: directory,
        };
        eventually("the load balancer to listen", async || {
            std::net::TcpStream::connect(balancer.public).ok()
        })
        .await;
        balancer
    }

    fn user(&self, user: &str) -> Connect {
        Connect::to(self.public).bearer(&Key::default_secret().user(user))
    }
}

impl Drop for LoadBalancer {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

#[tokio::test]
async fn sessions_go_to_the_emptiest_node_and_only_to_the_endpoint() {
    let settings = Settings::default();
    let (first, second, third) = (
        Gateway::start_with(&settings).await,
        Gateway::start_with(&settings).await,
        Gateway::start_with(&settings).await,
    );
    let nodes = [&first, &second, &third];
    let balancer = LoadBalancer::start(&nodes).await;
    let mut clients = Vec::new();
    for n in 0..9 {
        let mut client = balancer.user(&format!("user-{n}")).open().await;
        client.expect_json(json!({"type":"connected"})).await;
        clients.push(client);
    }
    for node in nodes {
        node.until_metric("curfew_sessions", |n| n == 3.0).await;
    }
    for path in ["/", "/metrics", "/readyz", "/v1/sessions"] {
        let answer = http::request(balancer.public, "GET", path, &[], b"").await;
        assert_eq!(answer.status, 404, "{path}");
    }
}

#[tokio::test]
async fn who_comes_while_a_node_drains_is_let_in_by_another() {
    let settings = Settings::default().with("drain.window = \"3s\"");
    let (mut leaving, second, third) = (
        Gateway::start_with(&settings).await,
        Gateway::start_with(&settings).await,
        Gateway::start_with(&settings).await,
    );
    let balancer = LoadBalancer::start(&[&leaving, &second, &third]).await;
    let mut clients = Vec::new();
    for n in 0..9 {
        let mut client = balancer.user(&format!("user-{n}")).open().await;
        client.expect_json(json!({"type":"connected"})).await;
        clients.push(client);
    }
    leaving.terminate();
    // The node refuses already, and the load balancer looks once a second only.
    let refuses = leaving.log().line(PATIENCE, |line| {
        line.contains(r#""message":"draining""#).then_some(())
    });
    refuses.await.expect("a node logs its drain");
    for n in 0..9 {
        let mut client = balancer.user(&format!("late-{n}")).open().await;
        client.expect_json(json!({"type":"connected"})).await;
        clients.push(client);
    }
    assert_eq!(leaving.exited(PATIENCE).await, 0);
    let kept = second.metric("curfew_sessions").await + third.metric("curfew_sessions").await;
    assert_eq!(kept, 15.0, "six of before and all nine that came late");
}
