//! A server that receives the logout tokens of an identity provider and gives them to a test.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::timeout;

/// Deadline for the next logout token of a provider, on a busy machine.
const PROVIDER: Duration = Duration::from_secs(60);

/// A listener on loopback that stands in for a gateway.
#[derive(Debug)]
pub struct Inbox {
    listener: TcpListener,
}

impl Inbox {
    /// Starts to listen.
    pub async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port of loopback can be bound");
        Self { listener }
    }

    /// The URL to which a provider posts.
    pub fn url(&self) -> String {
        let address = self.listener.local_addr();
        let address = address.expect("a bound socket has an address");
        format!("http://{address}/logout/backchannel")
    }

    /// The next logout token. The provider gets a successful answer.
    pub async fn logout_token(&self) -> String {
        let next = timeout(PROVIDER, self.next());
        next.await.expect("a logout token is posted")
    }

    async fn next(&self) -> String {
        let (mut stream, _) = self
            .listener
            .accept()
            .await
            .expect("the listener accepts connections");
        let mut request = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&request);
            if let Some(token) = whole(&text) {
                let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                let written = stream.write_all(answer.as_bytes()).await;
                written.expect("the provider waits for the answer");
                return token;
            }
            let read = stream.read_buf(&mut request).await;
            let read = read.expect("the provider sends a request");
            assert!(read > 0, "no logout token in {request:?}");
        }
    }
}

/// The token in a request; `None` until the request has arrived completely.
fn whole(request: &str) -> Option<String> {
    let (head, body) = request.split_once("\r\n\r\n")?;
    let head = head.to_lowercase();
    let (_, length) = head.split_once("content-length:")?;
    let length: usize = length.lines().next()?.trim().parse().ok()?;
    let fields = (body.len() >= length).then_some(body)?;
    let token = fields
        .split('&')
        .find_map(|field| field.strip_prefix("logout_token="))?;
    Some(token.to_owned())
}
