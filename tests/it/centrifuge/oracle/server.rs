//! The servers that scripts run against.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use curfew_testkit::http;
use curfew_tests::{ADMIN_KEY, Gateway, Settings, eventually, free_port};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;

/// A running server.
#[derive(Debug)]
pub(super) enum Server {
    Curfew(Box<Gateway>),
    Centrifugo(Centrifugo),
}

/// A Centrifugo, which is killed when this value is dropped.
#[derive(Debug)]
pub(super) struct Centrifugo {
    child: Child,
    address: SocketAddr,
    /// Folder with the server's configuration.
    _directory: TempDir,
}

impl Drop for Centrifugo {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Server {
    /// Curfew, with the rules, channels and sections of `<name>.curfew.toml`.
    pub(super) async fn curfew(folder: &Path, name: &str) -> Self {
        let toml = super::read(&folder.join(format!("{name}.curfew.toml")));
        let gateway = Gateway::start_with(&Settings::default().rules(&toml)).await;
        Self::Curfew(Box::new(gateway))
    }

    /// Centrifugo from `binary`, with the configuration `<name>.centrifugo.json`.
    pub(super) async fn centrifugo(binary: &Path, folder: &Path, name: &str) -> Self {
        let text = super::read(&folder.join(format!("{name}.centrifugo.json")));
        let mut config: Value = serde_json::from_str(&text).expect("the configuration is JSON");
        let port = free_port();
        config["http_server"] = json!({"address":"127.0.0.1","port":port});
        config["client"]["token"] = json!({"hmac_secret_key":curfew_testkit::mint::SECRET});
        config["http_api"] = json!({"key":ADMIN_KEY});
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("config.json");
        std::fs::write(&path, config.to_string()).expect("the configuration can be written");
        let child = Command::new(binary)
            .arg("--config")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the binary runs");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        eventually("Centrifugo to listen", async || {
            TcpStream::connect(address).await.ok()
        })
        .await;
        Self::Centrifugo(Centrifugo {
            child,
            address,
            _directory: directory,
        })
    }

    /// The public listener.
    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Self::Curfew(gateway) => gateway.address(),
            Self::Centrifugo(centrifugo) => centrifugo.address,
        }
    }

    /// Publishes through the server's API. The data is JSON, and is sent unchanged.
    pub(super) async fn publish(&self, channel: &str, data: &str) {
        let body = format!(r#"{{"channel":"{channel}","data":{data}}}"#);
        match self {
            Self::Curfew(gateway) => {
                let bearer = format!("Bearer {ADMIN_KEY}");
                let headers = [
                    ("Authorization", &bearer[..]),
                    ("Content-Type", "application/json"),
                ];
                let address = gateway.admin_address();
                let body = body.as_bytes();
                let answer = http::request(address, "POST", "/v1/publish", &headers, body).await;
                assert!(
                    (200..300).contains(&answer.status),
                    "publish: {}",
                    answer.text()
                );
            }
            Self::Centrifugo(centrifugo) => centrifugo.call("publish", &body).await,
        }
    }

    /// Disconnects a user through the server's API.
    pub(super) async fn disconnect(&self, user: &str) {
        match self {
            Self::Curfew(gateway) => {
                let list = gateway
                    .admin_ok("GET", &format!("/v1/sessions?user={user}"), None)
                    .await;
                for session in list["sessions"].as_array().into_iter().flatten() {
                    let id = session["session"].as_str().expect("a session has an id");
                    let path = format!("/v1/sessions/{id}");
                    gateway.admin_ok("DELETE", &path, None).await;
                }
            }
            Self::Centrifugo(centrifugo) => {
                centrifugo
                    .call("disconnect", &json!({"user":user}).to_string())
                    .await;
            }
        }
    }
}

impl Centrifugo {
    async fn call(&self, method: &str, body: &str) {
        let path = format!("/api/{method}");
        let headers = [
            ("Content-Type", "application/json"),
            ("X-API-Key", ADMIN_KEY),
        ];
        let answer = http::request(self.address, "POST", &path, &headers, body.as_bytes()).await;
        assert!(
            answer.status == 200 && answer.json().get("error").is_none(),
            "{method}: {}",
            answer.text()
        );
    }
}
