//! Opening a WebSocket: the request, whose bytes the test chooses, and the answer.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::http::{Response, read_response};
use crate::{OutFrame, PATIENCE, Stream, WsClient};

/// The nonce of the example in RFC 6455 §1.3, and the `Sec-WebSocket-Accept` that it requires.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The response to an upgrade request, if its status is not 101.
pub type RefusedUpgrade = Response;

/// The upgrade request for a WebSocket to be opened. By default the request is correct and asks for
/// `/ws`.
#[derive(Clone)]
pub struct Connect {
    address: SocketAddr,
    method: String,
    path: String,
    version: String,
    headers: Vec<(String, Vec<u8>)>,
    behind: Vec<u8>,
    receive_buffer: Option<u32>,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Connect {
    /// A request for `/ws` at `address`, without credentials and without a subprotocol.
    pub fn to(address: SocketAddr) -> Self {
        let header = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
        Self {
            address,
            method: "GET".to_owned(),
            path: "/ws".to_owned(),
            version: "HTTP/1.1".to_owned(),
            headers: vec![
                header("Host", &address.to_string()),
                header("Connection", "Upgrade"),
                header("Upgrade", "websocket"),
                header("Sec-WebSocket-Version", "13"),
                header("Sec-WebSocket-Key", KEY),
            ],
            behind: Vec::new(),
            receive_buffer: None,
            tls: None,
        }
    }

    /// Uses this method instead of GET.
    pub fn method(mut self, method: &str) -> Self {
        self.method = method.to_owned();
        self
    }

    /// Uses this path, with its query, instead of `/ws`.
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Uses this version instead of `HTTP/1.1`.
    pub fn version(mut self, version: &str) -> Self {
        self.version = version.to_owned();
        self
    }

    /// Adds a header. Its value may be any bytes.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers
            .push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// Leaves out every header with this name.
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(header, _)| header != name);
        self
    }

    /// Adds `Authorization: Bearer <token>`.
    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", format!("Bearer {token}"))
    }

    /// Offers these subprotocols, in one header.
    pub fn subprotocols(self, offered: &str) -> Self {
        self.header("Sec-WebSocket-Protocol", offered)
    }

    /// Sends frames right behind the request, in the same write.
    pub fn behind(mut self, frames: &[OutFrame]) -> Self {
        for frame in frames {
            self.behind.extend(frame.to_bytes());
        }
        self
    }

    /// Sends bytes right behind the request, in the same write.
    pub fn behind_bytes(mut self, bytes: &[u8]) -> Self {
        self.behind.extend_from_slice(bytes);
        self
    }

    /// Sets the size of the kernel's receive buffer. If the buffer is small, the server soon
    /// notices a client that stops reading.
    pub fn receive_buffer(mut self, bytes: u32) -> Self {
        self.receive_buffer = Some(bytes);
        self
    }

    /// Speaks TLS to a server named `name`.
    pub fn tls(mut self, config: Arc<ClientConfig>, name: &str) -> Self {
        let name = ServerName::try_from(name.to_owned()).expect("the name is not a server's name");
        self.tls = Some((config, name));
        self
    }

    /// The request's bytes, and the bytes to send behind it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} {}\r\n", self.method, self.path, self.version).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.behind);
        bytes
    }

    /// Connects without sending anything.
    pub async fn stream(&self) -> io::Result<Stream> {
        let connecting = Stream::connect(self.address, self.receive_buffer, self.tls.as_ref());
        timeout(PATIENCE, connecting).await?
    }

    /// Sends the request. An answer with a status other than 101 is the `Err`. Panics if there is
    /// no answer.
    pub async fn attempt(self) -> Result<WsClient, RefusedUpgrade> {
        self.try_attempt()
            .await
            .unwrap_or_else(|error| panic!("the upgrade request has no answer: {error}"))
    }

    /// Like [`Connect::attempt`], but does not panic: the outer `Err` reports a connection that is
    /// refused, cut or silent.
    pub async fn try_attempt(self) -> io::Result<Result<WsClient, RefusedUpgrade>> {
        let mut stream = self.stream().await?;
        // The write may fail, because the server may refuse before it has read all bytes.
        let sent = stream.write_all(&self.to_bytes()).await;
        let mut buffer = BytesMut::new();
        let response = match read_response(&mut stream, &mut buffer).await {
            Ok(response) => response,
            Err(error) => return Err(sent.err().unwrap_or(error)),
        };
        if response.status != 101 {
            return Ok(Err(response));
        }
        if let Some(key) = self
            .headers
            .iter()
            .find(|(name, _)| name == "Sec-WebSocket-Key")
            && key.1 == KEY.as_bytes()
        {
            assert_eq!(response.header("sec-websocket-accept"), Some(ACCEPT));
        }
        Ok(Ok(WsClient::new(stream, buffer, response)))
    }

    /// Sends the request, which must be accepted.
    pub async fn open(self) -> WsClient {
        match self.attempt().await {
            Ok(client) => client,
            Err(refused) => panic!(
                "the upgrade was refused with {}: {}",
                refused.status,
                refused.text()
            ),
        }
    }

    /// Sends the request, which must not be accepted.
    pub async fn refused(self) -> RefusedUpgrade {
        match self.attempt().await {
            Ok(_) => panic!("the upgrade was accepted"),
            Err(refused) => refused,
        }
    }
}

impl std::fmt::Debug for Connect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} at {}", self.method, self.path, self.address)
    }
}
