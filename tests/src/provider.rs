//! A small identity provider: discovery and a key set, with valid answers and with faulty answers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use curfew_testkit::mint::{Key, jwks};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::TestAuthority;

/// Path of the OpenID configuration below the issuer.
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// The way in which the provider answers each request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manner {
    /// Answers with valid documents.
    Good,
    /// Does not answer until the manner changes. Waiting requests are then answered in the new
    /// manner.
    Hanging,
    /// Answers with this status and a body that is not JSON.
    Status(u16),
    /// Answers with this status, as a redirect to another URL.
    Redirect(u16, String),
    /// Answers with 200 and a web page.
    Html,
    /// Answers with 200 and a key set of ten megabytes.
    Huge,
    /// Closes the connection without an answer.
    Closing,
}

/// A provider that listens on loopback. It stops when this value is dropped.
#[derive(Debug)]
pub struct Provider {
    address: SocketAddr,
    paths: Paths,
    scheme: &'static str,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

/// Paths of a provider's documents.
#[derive(Debug, Clone, Copy)]
pub struct Paths {
    /// The path of the issuer identifier.
    pub issuer: &'static str,
    /// The path of the key set.
    pub keys: &'static str,
}

#[derive(Debug)]
struct Shared {
    discovery: String,
    keys_path: &'static str,
    manner: watch::Sender<Manner>,
    keys: Mutex<String>,
    configuration: Mutex<Value>,
    requests: Mutex<BTreeMap<String, usize>>,
}

impl Provider {
    /// Starts a provider with these keys.
    pub async fn start(keys: &[&Key]) -> Self {
        let paths = Paths {
            issuer: "",
            keys: "/keys",
        };
        Self::start_at(paths, keys).await
    }

    /// Starts a provider with these keys. The provider speaks TLS, with a certificate of
    /// `authority`.
    pub async fn start_secure(keys: &[&Key], authority: &TestAuthority) -> Self {
        let paths = Paths {
            issuer: "",
            keys: "/keys",
        };
        Self::serve_at(paths, keys, Some(authority.acceptor())).await
    }

    /// Starts a provider with these keys and paths.
    pub async fn start_at(paths: Paths, keys: &[&Key]) -> Self {
        Self::serve_at(paths, keys, None).await
    }

    async fn serve_at(paths: Paths, keys: &[&Key], tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port of loopback can be bound");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let origin = format!("{scheme}://{address}");
        let shared = Arc::new(Shared {
            discovery: paths.issuer.trim_end_matches('/').to_owned() + DISCOVERY,
            keys_path: paths.keys,
            manner: watch::Sender::new(Manner::Good),
            keys: Mutex::new(jwks(keys)),
            configuration: Mutex::new(json!({
                "issuer": format!("{origin}{}", paths.issuer),
                "jwks_uri": format!("{origin}{}", paths.keys),
                "id_token_signing_alg_values_supported": ["ES256"],
            })),
            requests: Mutex::default(),
        });
        let mut serving = JoinSet::new();
        let accepting = Arc::clone(&shared);
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, accepting) = (tls.clone(), Arc::clone(&accepting));
                connections.spawn(async move {
                    let Some(tls) = tls else {
                        return answer(stream, accepting).await;
                    };
                    // A client that trusts another authority ends the handshake here.
                    if let Ok(stream) = tls.accept(stream).await {
                        answer(stream, accepting).await;
                    }
                });
            }
        });
        Self {
            address,
            paths,
            scheme,
            shared,
            _serving: serving,
        }
    }

    /// The provider's issuer identifier.
    pub fn issuer(&self) -> String {
        self.origin() + self.paths.issuer
    }

    /// The scheme, host and port of all of the provider's URLs.
    pub fn origin(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// URL of the key set.
    pub fn keys_url(&self) -> String {
        self.origin() + self.paths.keys
    }

    /// A user's token, signed by `key`.
    pub fn token(&self, key: &Key, user: &str) -> String {
        key.user_with(user, json!({"iss": self.issuer()}))
    }

    /// An `[[auth.issuers]]` table for this provider, with the URL of the key set.
    pub fn by_url(&self, name: &str) -> String {
        let (iss, url) = (self.issuer(), self.keys_url());
        format!("[[auth.issuers]]\nname = {name:?}\nissuer = {iss:?}\njwks_url = {url:?}\n")
    }

    /// An `[[auth.issuers]]` table for this provider, with discovery.
    pub fn by_discovery(&self, name: &str) -> String {
        let iss = self.issuer();
        format!("[[auth.issuers]]\nname = {name:?}\nissuer = {iss:?}\ndiscovery = true\n")
    }

    /// Replaces the keys.
    pub fn rotate(&self, keys: &[&Key]) {
        self.serve(jwks(keys));
    }

    /// Replaces the key set by this text, well-formed or not.
    pub fn serve(&self, set: String) {
        *self.shared.keys.lock() = set;
    }

    /// Changes a member of the OpenID configuration.
    pub fn configure(&self, member: &str, value: Value) {
        self.shared.configuration.lock()[member] = value;
    }

    /// Changes the manner of answers.
    pub fn behave(&self, manner: Manner) {
        self.shared.manner.send_replace(manner);
    }

    /// Number of requests for the key set.
    pub fn fetches(&self) -> usize {
        self.requests(self.paths.keys)
    }

    /// Number of requests for a path.
    pub fn requests(&self, path: &str) -> usize {
        let requests = self.shared.requests.lock();
        requests.get(path).copied().unwrap_or_default()
    }
}

/// Answers one request on one connection.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, shared: Arc<Shared>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    *shared.requests.lock().entry(path.clone()).or_default() += 1;
    let mut changes = shared.manner.subscribe();
    let manner = match changes.wait_for(|manner| *manner != Manner::Hanging).await {
        Ok(manner) => manner.clone(),
        Err(_) => return,
    };
    let (status, more, body) = match manner {
        Manner::Good if path == shared.keys_path => {
            (200, String::new(), shared.keys.lock().clone())
        }
        Manner::Good if path == shared.discovery => {
            (200, String::new(), shared.configuration.lock().to_string())
        }
        Manner::Good => (404, String::new(), "nothing here".to_owned()),
        Manner::Status(status) => (status, String::new(), "no".to_owned()),
        Manner::Redirect(status, to) => (status, format!("Location: {to}\r\n"), String::new()),
        Manner::Html => (200, String::new(), "<html>sign in</html>".to_owned()),
        Manner::Huge => (
            200,
            String::new(),
            format!("{{\"keys\":[{}]}}", " ".repeat(10 << 20)),
        ),
        Manner::Closing | Manner::Hanging => return,
    };
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status} Whatever\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{more}\r\n{body}"
    );
    // The client may have closed the connection.
    drop(stream.write_all(answer.as_bytes()).await);
    drop(stream.shutdown().await);
}
