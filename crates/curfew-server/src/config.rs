//! The settings of `[server]` and `[admin]`.

mod centrifuge;
mod keys;
pub(crate) mod paths;
mod settings;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use curfew_model::{Problems, Secret};
use curfew_ws::OriginPolicy;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use centrifuge::CentrifugeConfig;
pub use keys::{AdminKey, AdminKeyConfig, Power};
pub use settings::ServerSettings;
pub(crate) use settings::Snapshot;

use crate::listeners::Listen;
use crate::listeners::proxies::Proxies;
use crate::listeners::tls::Tls;

/// Largest value of `admin.connections`.
const MAX_ADMIN_CONNECTIONS: usize = 65_536;

/// `[server]`: the public listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Address and port of the public listener; with port 0, the system chooses a free port.
    /// `unix:/path` selects a Unix socket instead, for a load balancer on the same machine; the
    /// process's umask limits who may connect. Takes effect at start.
    #[schemars(with = "String")]
    pub listen: Listen,
    /// Paths of the WebSocket endpoint, such as `/ws`: the paths in the URLs that clients use.
    pub path: Vec<String>,
    /// The node's name for operators, in `curfew nodes` and the admin API: 1 to 253 characters.
    /// Absent: the machine's name, which in Kubernetes is the pod's. Takes effect at start.
    pub node_name: Option<String>,
    /// The address at which operators find the node, shown beside its name. Set it to the pod's
    /// address if `listen` is `0.0.0.0`. Curfew never connects to this address. Absent: the address
    /// on which the public listener listens. Takes effect at start.
    pub node_address: Option<String>,
    /// Load balancers in front of this listener, as addresses and networks: `["10.0.0.0/8"]`;
    /// `"unix"` stands for connections over a Unix socket. Their `X-Forwarded-For` or `Forwarded`
    /// header is trusted: limits, logs and records of sessions use the nearest address that is not
    /// a load balancer's. Empty: a client's address is the socket's. If a request has both headers
    /// and they disagree, neither is trusted, and all clients with such requests count as one
    /// client: have the load balancer remove the header that it does not write.
    pub trusted_proxies: Vec<String>,
    /// Connections of `trusted_proxies`, or all connections if that list is empty, begin with a
    /// header of the PROXY protocol, version 1 or 2. With this setting, let only load balancers
    /// reach the listener.
    pub proxy_protocol: bool,
    /// Origins that browsers may connect from, each as `scheme://host[:port]`, compared exactly;
    /// `https://*.example.com` is every subdomain of `example.com`. `null` and `file://`, the
    /// origins of local files and of sandboxed frames of any site, are allowed only if listed, and
    /// never with cookies. Empty: any origin, which is safe as long as tokens do not come in
    /// cookies.
    pub allowed_origins: Vec<String>,
    /// File with the certificate chain in PEM. If it and `tls_key_file` are set, the listener
    /// speaks TLS. Re-read when it changes.
    pub tls_cert_file: Option<PathBuf>,
    /// File with the private key in PEM for `tls_cert_file`. Re-read when it changes.
    pub tls_key_file: Option<PathBuf>,
    /// Time that a client has for each of: the TLS handshake, its first byte, and the whole head of
    /// its request.
    #[serde(with = "curfew_model::setting::duration")]
    #[schemars(with = "String")]
    pub handshake_timeout: Duration,
    /// Maximum time from the acceptance of a connection to the end of its upgrade.
    #[serde(with = "curfew_model::setting::duration")]
    #[schemars(with = "String")]
    pub upgrade_timeout: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: Listen::Tcp(SocketAddr::from(([0, 0, 0, 0], 8080))),
            path: vec![paths::WEBSOCKET.to_owned()],
            node_name: None,
            node_address: None,
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            allowed_origins: Vec::new(),
            tls_cert_file: None,
            tls_key_file: None,
            handshake_timeout: Duration::from_secs(5),
            upgrade_timeout: Duration::from_secs(10),
        }
    }
}

impl ServerConfig {
    /// Reports invalid values, and TLS files that cannot be used.
    pub fn check(&self, problems: &mut Problems) {
        if let Err(bad) = OriginPolicy::parse(&self.allowed_origins) {
            for (at, message) in bad {
                problems.report(&format!("allowed_origins[{at}]"), message);
            }
        }
        if let Err(bad) = Proxies::parse(&self.trusted_proxies, self.proxy_protocol) {
            for (at, message) in bad {
                problems.report(&format!("trusted_proxies[{at}]"), message);
            }
        }
        if self.path.is_empty() {
            problems.report("path", "must have at least one path, such as \"/ws\"");
        }
        for (at, path) in self.path.iter().enumerate() {
            if let Err(message) = paths::check(path) {
                problems.report(&format!("path[{at}]"), message);
            }
        }
        for (key, value) in [
            ("node_name", &self.node_name),
            ("node_address", &self.node_address),
        ] {
            if value.as_ref().is_some_and(|value| !is_shown_whole(value)) {
                problems.report(
                    key,
                    format!("must have 1 to {MAX_NODE_NAME} characters, none of them a control character; leave it out to use the machine's own"),
                );
            }
        }
        match (&self.tls_cert_file, &self.tls_key_file) {
            (Some(_), None) => {
                problems.report("tls_key_file", "required if server.tls_cert_file is set")
            }
            (None, Some(_)) => {
                problems.report("tls_cert_file", "required if server.tls_key_file is set")
            }
            (Some(cert), Some(key)) => {
                if let Err(error) = Tls::load(cert, key) {
                    problems.report(error.key(), error.to_string());
                }
            }
            (None, None) => {}
        }
        for (key, value) in [
            ("handshake_timeout", self.handshake_timeout),
            ("upgrade_timeout", self.upgrade_timeout),
        ] {
            if !(Duration::from_millis(100)..=Duration::from_secs(300)).contains(&value) {
                problems.report(key, "must be between 100ms and 5m");
            }
        }
    }
}

/// Maximum length of a node's name or address, in characters. A DNS name has the same limit.
const MAX_NODE_NAME: usize = 253;

/// True if the list of nodes can show `text` unchanged: it has 1 to [`MAX_NODE_NAME`] characters,
/// and none of them is a control character.
fn is_shown_whole(text: &str) -> bool {
    let length = text.chars().count();
    (1..=MAX_NODE_NAME).contains(&length) && !text.chars().any(char::is_control)
}

/// `[admin]`: the listener for health, metrics and the admin API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Address and port of the admin listener; with port 0, the system chooses a free port. Keep it
    /// off public networks: health and metrics need no key. Takes effect at start.
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// The key for every operation of the admin API, at least 32 bytes. If neither this key nor any
    /// entry of `keys` is set, the API answers 403.
    pub key: Option<Secret>,
    /// File that holds `key`; a line break at its end does not count. Re-read when it changes.
    pub key_file: Option<PathBuf>,
    /// Keys that may do only some of the API's operations, for callers that need no more.
    pub keys: Vec<AdminKeyConfig>,
    /// Maximum number of connections of the admin listener. A further connection displaces the
    /// connection that has waited longest for a request; if every connection has a request, the
    /// further connection is answered 503. Takes effect at start.
    pub connections: usize,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9090)),
            key: None,
            key_file: None,
            keys: Vec::new(),
            connections: 512,
        }
    }
}

impl AdminConfig {
    /// Reports invalid values, and key files that cannot be used.
    pub fn check(&self, problems: &mut Problems) {
        if !(1..=MAX_ADMIN_CONNECTIONS).contains(&self.connections) {
            problems.report("connections", "must be between 1 and 65536");
        }
        self.check_keys(problems);
    }
}
