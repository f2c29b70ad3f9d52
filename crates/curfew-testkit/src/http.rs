//! HTTP/1.1 without a library: requests as bytes, and answers as received.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::PATIENCE;

/// The head and body of an answer.
#[derive(Debug, Clone, Default)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The headers, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, with its chunks joined.
    pub body: Vec<u8>,
}

impl Response {
    /// The value of the first header with this name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(header, _)| header == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; `null` if the body is empty.
    pub fn json(&self) -> Value {
        if self.body.is_empty() {
            return Value::Null;
        }
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in the body {:?}", self.text()))
    }
}

/// Sends one request over a new connection and reads the answer.
pub async fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Response {
    request_within(PATIENCE, address, method, path, headers, body).await
}

/// Like [`request`], for a server that may take longer.
pub async fn request_within(
    patience: Duration,
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Response {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    exchange_within(patience, address, &bytes)
        .await
        .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
}

/// Sends bytes over a new connection and reads one answer.
pub async fn exchange(address: SocketAddr, bytes: &[u8]) -> io::Result<Response> {
    exchange_within(PATIENCE, address, bytes).await
}

async fn exchange_within(
    patience: Duration,
    address: SocketAddr,
    bytes: &[u8],
) -> io::Result<Response> {
    let mut stream = TcpStream::connect(address).await?;
    // The write may fail, because the server may answer and close before it has read all bytes.
    drop(stream.write_all(bytes).await);
    let mut buffer = BytesMut::new();
    read_response_within(patience, &mut stream, &mut buffer).await
}

/// Reads one answer. Bytes that follow the answer stay in `buffer`.
pub async fn read_response(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> io::Result<Response> {
    read_response_within(PATIENCE, stream, buffer).await
}

async fn read_response_within(
    patience: Duration,
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> io::Result<Response> {
    let reading = async {
        let end = loop {
            if let Some(end) = find(buffer, b"\r\n\r\n") {
                break end;
            }
            if stream.read_buf(buffer).await? == 0 {
                return Err(io::Error::other(format!(
                    "the connection closed before the head of the answer was complete: {:?}",
                    String::from_utf8_lossy(buffer)
                )));
            }
        };
        let head = buffer.split_to(end + 4);
        let mut response = parse_head(&head);
        response.body = read_body(stream, buffer, &response).await?;
        Ok(response)
    };
    timeout(patience, reading)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer"))?
}

fn parse_head(head: &[u8]) -> Response {
    let head = String::from_utf8_lossy(head);
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default();
    let status = status
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or_else(|| panic!("the answer does not begin with a status line: {status:?}"));
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Response {
        status,
        headers,
        body: Vec::new(),
    }
}

async fn read_body(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    head: &Response,
) -> io::Result<Vec<u8>> {
    if matches!(head.status, 101 | 204 | 304) {
        return Ok(Vec::new());
    }
    if head.header("transfer-encoding") == Some("chunked") {
        let mut body = Vec::new();
        loop {
            let line = read_until(stream, buffer, b"\r\n").await?;
            let line = String::from_utf8_lossy(&line);
            let size = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            let chunk = read_exactly(stream, buffer, size + 2).await?;
            if size == 0 {
                return Ok(body);
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }
    if let Some(length) = head.header("content-length") {
        let length = length.parse().map_err(io::Error::other)?;
        return read_exactly(stream, buffer, length).await;
    }
    while stream.read_buf(buffer).await? != 0 {}
    Ok(buffer.split().to_vec())
}

async fn read_until(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    end: &[u8],
) -> io::Result<Vec<u8>> {
    loop {
        if let Some(at) = find(buffer, end) {
            return Ok(buffer.split_to(at + end.len()).to_vec());
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

async fn read_exactly(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    length: usize,
) -> io::Result<Vec<u8>> {
    while buffer.len() < length {
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(buffer.split_to(length).to_vec())
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}
