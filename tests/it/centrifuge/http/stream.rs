//! A client that reads a streamed answer, and sends commands in separate requests.

use std::net::SocketAddr;

use bytes::{Buf as _, BytesMut};
use curfew_testkit::http::{self, Response};
use curfew_testkit::{PATIENCE, Stream};
use curfew_tests::Gateway;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

/// A transport with a streamed answer, in one encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Json,
    Protobuf,
    Sse,
}

pub(super) const KINDS: [Kind; 3] = [Kind::Json, Kind::Protobuf, Kind::Sse];

/// The way in which a streamed answer ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The last chunk arrived, and then the end of the connection.
    Whole,
    /// The connection ended within the answer.
    Cut,
}

/// A client that reads a streamed answer.
pub(super) struct Client {
    kind: Kind,
    address: SocketAddr,
    stream: Stream,
    buffer: BytesMut,
    /// The content of received chunks that is not yet read.
    content: BytesMut,
    pub(super) head: Response,
    pub(super) session: String,
    pub(super) node: String,
    pub(super) id: String,
}

/// The bytes of a request with `command` in its body or query.
pub(super) fn request(kind: Kind, command: &[u8], headers: &[(&str, &str)]) -> Vec<u8> {
    let (method, path, content) = match kind {
        Kind::Json => (
            "POST",
            "/connection/http_stream".to_owned(),
            "application/json",
        ),
        Kind::Protobuf => (
            "POST",
            "/connection/http_stream".to_owned(),
            "application/octet-stream",
        ),
        Kind::Sse => (
            "GET",
            format!("/connection/sse?cf_connect={}", encoded(command)),
            "",
        ),
    };
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: node.test\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    if kind == Kind::Sse {
        request.push_str("\r\n");
        return request.into_bytes();
    }
    let length = command.len();
    request.push_str(&format!(
        "Content-Type: {content}\r\nContent-Length: {length}\r\n\r\n"
    ));
    [request.as_bytes(), command].concat()
}

fn encoded(text: &[u8]) -> String {
    text.iter().map(|byte| format!("%{byte:02X}")).collect()
}

/// The `connect` command with `token`. The command's id is 1.
pub(super) fn connect(kind: Kind, token: &str) -> Vec<u8> {
    match kind {
        Kind::Protobuf => {
            delimited(&[&[0x08, 1][..], &field(4, &field(1, token.as_bytes()))].concat())
        }
        Kind::Json | Kind::Sse => json!({"id":1,"connect":{"token":token}})
            .to_string()
            .into_bytes(),
    }
}

/// A Protobuf field of bytes.
pub(super) fn field(tag: u8, content: &[u8]) -> Vec<u8> {
    [&[tag << 3 | 2][..], &delimited(content)].concat()
}

/// A message with its length in front.
pub(super) fn delimited(content: &[u8]) -> Vec<u8> {
    let mut length = content.len();
    let mut out = Vec::new();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    [&out[..], content].concat()
}

impl Client {
    /// Connects with `token`, which must be valid.
    pub(super) async fn open(gateway: &Gateway, kind: Kind, token: &str) -> Self {
        let mut client = Self::ask(gateway, kind, &connect(kind, token), &[]).await;
        client.expect_connected().await;
        client
    }

    /// Sends a request, and reads the head of the answer.
    pub(super) async fn ask(
        gateway: &Gateway,
        kind: Kind,
        command: &[u8],
        headers: &[(&str, &str)],
    ) -> Self {
        let address = gateway.address();
        let stream = Stream::connect(address, Some(16 * 1024), None)
            .await
            .unwrap();
        Self::ask_on(stream, address, kind, &request(kind, command, headers)).await
    }

    pub(super) async fn ask_on(
        mut stream: Stream,
        address: SocketAddr,
        kind: Kind,
        request: &[u8],
    ) -> Self {
        stream.write_all(request).await.unwrap();
        let mut client = Self {
            kind,
            address,
            stream,
            buffer: BytesMut::new(),
            content: BytesMut::new(),
            head: Response::default(),
            session: String::new(),
            node: String::new(),
            id: String::new(),
        };
        let line = client
            .through(b"\r\n\r\n")
            .await
            .expect("an answer has a head");
        let head = String::from_utf8(line).unwrap();
        let mut lines = head.trim_end().lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        client.head.status = status.parse().unwrap();
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
        client.head.headers = headers.collect();
        client
    }

    pub(super) async fn expect_connected(&mut self) {
        assert_eq!(self.head.status, 200);
        match self.kind {
            Kind::Protobuf => {
                let reply = self.message().await.expect("the node answers connect");
                let result = part(&reply, 5).expect("a result");
                let text = |tag| String::from_utf8(part(&result, tag).unwrap()).unwrap();
                (self.id, self.session, self.node) = (text(1), text(9), text(10));
            }
            Kind::Json | Kind::Sse => {
                let reply = self.next().await;
                let text = |name: &str| reply["connect"][name].as_str().unwrap().to_owned();
                (self.id, self.session, self.node) =
                    (text("client"), text("session"), text("node"));
            }
        }
        assert_ne!(self.session, self.id);
    }

    /// The received bytes up to and including `end`; `None` if the connection ends before.
    async fn through(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            let at = self
                .buffer
                .windows(end.len())
                .position(|bytes| bytes == end);
            if let Some(at) = at {
                return Some(self.buffer.split_to(at + end.len()).to_vec());
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Option<()> {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer));
        match read.await.expect("the server sends something") {
            Ok(1..) => Some(()),
            Ok(0) | Err(_) => None,
        }
    }

    /// Reads one chunk, and adds it to `content`.
    async fn chunk(&mut self) -> Result<(), End> {
        let head = self.through(b"\r\n").await.ok_or(End::Cut)?;
        let head = String::from_utf8(head).unwrap();
        let size = usize::from_str_radix(head.trim_end(), 16).unwrap();
        while self.buffer.len() < size + 2 {
            self.fill().await.ok_or(End::Cut)?;
        }
        self.content.extend_from_slice(&self.buffer.split_to(size));
        assert_eq!(&self.buffer.split_to(2)[..], b"\r\n");
        if size > 0 {
            return Ok(());
        }
        assert!(self.buffer.is_empty() && self.fill().await.is_none());
        Err(End::Whole)
    }

    /// The next message, which may be a ping. An error means the end of the answer.
    async fn any(&mut self) -> Result<Vec<u8>, End> {
        loop {
            if self.kind == Kind::Protobuf {
                if let Some((message, length)) = take(&self.content) {
                    self.content.advance(length);
                    return Ok(message);
                }
            } else if let Some(at) = self.content.iter().position(|byte| *byte == b'\n') {
                let line = self.content.split_to(at);
                self.content.advance(1);
                match self.kind {
                    // Blank lines are at the beginning of the stream and between events.
                    Kind::Sse if line.trim_ascii().is_empty() => continue,
                    Kind::Sse => return Ok(line.strip_prefix(b"data: ").unwrap().to_vec()),
                    _ => return Ok(line.to_vec()),
                }
            }
            self.chunk().await?;
        }
    }

    fn ping(&self) -> &'static [u8] {
        match self.kind {
            Kind::Protobuf => b"",
            Kind::Json | Kind::Sse => b"{}",
        }
    }

    /// Waits for a ping, which must be the next message, and answers it.
    pub(super) async fn expect_ping(&mut self) {
        assert_eq!(self.any().await.expect("a ping"), self.ping());
        let pong = match self.kind {
            Kind::Protobuf => &[0][..],
            Kind::Json | Kind::Sse => b"{}",
        };
        self.send(pong).await;
    }

    /// The next message other than a ping. An error means the end of the answer.
    pub(super) async fn message(&mut self) -> Result<Vec<u8>, End> {
        loop {
            let message = self.any().await?;
            if message != self.ping() {
                return Ok(message);
            }
        }
    }

    /// The next message in JSON.
    pub(super) async fn next(&mut self) -> Value {
        let message = self.message().await.expect("a message");
        serde_json::from_slice(&message).unwrap()
    }

    /// The remaining messages, and the end.
    pub(super) async fn rest(&mut self) -> (Vec<Vec<u8>>, End) {
        let mut messages = Vec::new();
        loop {
            match self.message().await {
                Ok(message) => messages.push(message),
                Err(end) => return (messages, end),
            }
        }
    }

    /// Sends commands through `gateway` from now on.
    pub(super) fn send_by(&mut self, gateway: &Gateway) {
        self.address = gateway.address();
    }

    /// Sends commands in a separate request, which must get 204.
    pub(super) async fn send(&self, commands: &[u8]) {
        let answer = self.send_as(&self.session, &self.node, commands, &[]).await;
        assert_eq!((answer.status, answer.text().as_str()), (204, ""));
    }

    pub(super) async fn send_as(
        &self,
        session: &str,
        node: &str,
        commands: &[u8],
        headers: &[(&str, &str)],
    ) -> Response {
        let (content, body) = match self.kind {
            Kind::Protobuf => {
                let fields = [
                    field(1, node.as_bytes()),
                    field(2, session.as_bytes()),
                    field(3, commands),
                ];
                ("application/octet-stream", fields.concat())
            }
            Kind::Json | Kind::Sse => {
                let commands = std::str::from_utf8(commands).unwrap();
                let body = json!({"session":session,"node":node,"data":commands});
                ("application/json", body.to_string().into_bytes())
            }
        };
        let headers = [&[("Content-Type", content)][..], headers].concat();
        http::request(self.address, "POST", "/emulation", &headers, &body).await
    }
}

/// The first message in `bytes`, and the number of bytes that its length field and its content
/// take.
fn take(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut length, mut at) = (0, 0);
    loop {
        let byte = *bytes.get(at)?;
        length |= usize::from(byte & 0x7f) << (7 * at);
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some((bytes.get(at..at + length)?.to_vec(), at + length))
}

/// The content of the field `wanted`, a field of bytes in a Protobuf message.
pub(super) fn part(mut message: &[u8], wanted: u8) -> Option<Vec<u8>> {
    while let Some((&key, rest)) = message.split_first() {
        match key & 7 {
            0 => {
                let end = rest.iter().position(|byte| byte & 0x80 == 0)?;
                message = &rest[end + 1..];
            }
            _ => {
                let (content, length) = take(rest)?;
                if key >> 3 == wanted {
                    return Some(content);
                }
                message = &rest[length..];
            }
        }
    }
    None
}
