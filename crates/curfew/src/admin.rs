//! The commands that use the admin API, and their small HTTP client.

pub(crate) mod disconnect;
pub(crate) mod history;
pub(crate) mod nodes;
pub(crate) mod presence;
pub(crate) mod publish;
pub(crate) mod restore;
pub(crate) mod revocations;
pub(crate) mod revoke;
pub(crate) mod sessions;

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use curfew_identity::exchange::{connect, exchange};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Full;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cli::AdminArgs;
use crate::failure::Failure;
use crate::output;

/// Longest wait for the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait for an answer. The answer to a revocation waits for receipts from every node.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest answer that is read, in bytes. A page of sessions is far smaller.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// The characters that are escaped in a segment of a path: all except the unreserved characters
/// (RFC 3986 §2.3).
const ENCODED: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The environment variable that may hold the admin key itself.
const KEY_VARIABLE: &str = "CURFEW_ADMIN_KEY";

/// A client of the admin API. It uses the first of the given nodes that it can connect to.
pub(crate) struct AdminClient {
    nodes: Vec<Node>,
    key: Option<HeaderValue>,
}

/// The admin API of one node.
#[derive(Debug, PartialEq, Eq)]
struct Node {
    /// Host and port, for the connection.
    address: String,
    /// The value of the `Host` header.
    host: String,
    /// The base path of the API, without a slash at its end.
    base: String,
}

/// A successful answer.
pub(crate) struct AdminAnswer {
    body: Bytes,
}

impl AdminClient {
    /// Reads the addresses and the key.
    pub(crate) fn new(args: &AdminArgs) -> Result<Self, Failure> {
        let nodes = args.url.split(',').map(|url| parse_url(url.trim()));
        let nodes = nodes.collect::<Result<_, _>>().map_err(Failure::Usage)?;
        let key = key(args)?;
        Ok(Self { nodes, key })
    }

    /// Sends a request and waits for the answer. An answer is an error unless its status is a
    /// success.
    pub(crate) fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<AdminAnswer, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let asked = async {
            // A node that has received the request may have acted on it, so the request is not
            // repeated at another node.
            let (node, stream) = self.reach().await?;
            let request = self.request(node, method, path, body)?;
            Ok::<_, Failure>(node.exchange(stream, request).await?)
        };
        let (status, body) = runtime.block_on(asked)?;
        if status.is_success() {
            return Ok(AdminAnswer { body });
        }
        Err(Failure::Other(refusal(status, &body, self.key.is_some())))
    }

    /// Connects to the first node that accepts a connection.
    async fn reach(&self) -> anyhow::Result<(&Node, TcpStream)> {
        let mut missed = Vec::new();
        for node in &self.nodes {
            match node.connect().await {
                Ok(stream) => return Ok((node, stream)),
                Err(error) => missed.push(error),
            }
        }
        if missed.len() == 1 {
            return Err(missed.swap_remove(0));
        }
        let told = missed.iter().map(|error| format!("\n  {error:#}"));
        bail!("no node can be reached{}", told.collect::<String>())
    }

    fn request(
        &self,
        node: &Node,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", node.base))
            .header(HOST, &node.host)
            .header(ACCEPT, "application/json");
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, key);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = Full::new(Bytes::from(body.unwrap_or_default()));
        Ok(request.body(body).context("write the request")?)
    }
}

impl Node {
    async fn connect(&self) -> anyhow::Result<TcpStream> {
        timeout(CONNECT_TIMEOUT, connect(&self.address))
            .await
            .map_err(|_| anyhow!("no answer within {} s", CONNECT_TIMEOUT.as_secs()))
            .and_then(|connected| Ok(connected?))
            .with_context(|| {
                format!(
                    "connect to the admin listener {} (is the node running? see --url)",
                    self.address
                )
            })
    }

    async fn exchange(
        &self,
        stream: TcpStream,
        request: Request<Full<Bytes>>,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let exchange = exchange(stream, request, MAX_ANSWER_BYTES, |_| anyhow::Ok(()));
        timeout(ANSWER_TIMEOUT, exchange)
            .await
            .map_err(|_| anyhow!("no answer within {} s", ANSWER_TIMEOUT.as_secs()))
            .and_then(|answered| answered)
            .with_context(|| format!("send a request to the admin listener {}", self.address))
    }
}

impl AdminAnswer {
    /// The answer as JSON.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        Ok(serde_json::from_slice(&self.body).context("read the admin API's answer")?)
    }

    /// Prints the answer as it was received, with a line break at its end.
    pub(crate) fn print(&self) -> Result<(), Failure> {
        let text = String::from_utf8_lossy(&self.body);
        Ok(output::print(&format!("{}\n", text.trim_end()))?)
    }
}

/// Parses the URL of a node's admin API, `http://host:port/path`.
fn parse_url(url: &str) -> Result<Node, String> {
    let wrong = || format!("--url {url:?} is not of the form http://127.0.0.1:9090");
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => {
            return Err("--url takes http:// only: the admin listener does not speak TLS; reach it through a tunnel, for example ssh -L or kubectl port-forward".to_owned());
        }
        _ => return Err(wrong()),
    }
    let authority = uri.authority().ok_or_else(wrong)?;
    if authority.as_str().contains('@') || uri.query().is_some() {
        return Err(wrong());
    }
    // `port_u16` returns `None` for an invalid port and for an absent port.
    if authority.port_u16().is_none() && authority.as_str() != authority.host() {
        return Err(format!(
            "{}: the port must be a number from 1 to 65535",
            wrong()
        ));
    }
    let address = format!(
        "{}:{}",
        authority.host(),
        authority.port_u16().unwrap_or(80)
    );
    let base = uri.path().trim_end_matches('/').to_owned();
    Ok(Node {
        address,
        host: authority.as_str().to_owned(),
        base,
    })
}

/// The value of the `Authorization` header, with the admin key from the file or from the variable;
/// `None` if neither is given.
fn key(args: &AdminArgs) -> Result<Option<HeaderValue>, Failure> {
    let key = match &args.key_file {
        Some(file) => std::fs::read_to_string(file)
            .with_context(|| format!("read the key file {}", file.display()))?,
        None => match std::env::var(KEY_VARIABLE) {
            Ok(key) => key,
            Err(_) => return Ok(None),
        },
    };
    let mut header =
        HeaderValue::from_str(&format!("Bearer {}", key.trim_end_matches(['\r', '\n']))).map_err(
            |_| Failure::usage("the admin key has characters that an HTTP header cannot carry"),
        )?;
    header.set_sensitive(true);
    Ok(Some(header))
}

/// Returns a line with the URL of the trace of the call, or with the trace's id if no URL is known.
/// The line is empty if the answer names no trace.
pub(crate) fn trace_line(answer: &Value) -> String {
    let named = ["trace_url", "trace"].map(|name| answer[name].as_str());
    match named.into_iter().flatten().next() {
        Some(trace) => format!("trace: {}\n", output::clean(trace)),
        None => String::new(),
    }
}

/// Describes the API's refusal in a sentence, with the remedy if a remedy is known.
fn refusal(status: StatusCode, body: &[u8], with_key: bool) -> anyhow::Error {
    let problem: Value = serde_json::from_slice(body).unwrap_or_default();
    let mut text = format!("the admin API answered {status}");
    for member in ["detail", "title"] {
        if let Some(said) = problem[member].as_str() {
            write!(text, ": {}", output::clean(said)).expect("writing to a string does not fail");
            break;
        }
    }
    let trace = trace_line(&problem);
    if !trace.is_empty() {
        write!(text, "\n  {}", trace.trim_end()).expect("writing to a string does not fail");
    }
    match status {
        StatusCode::UNAUTHORIZED if with_key => {
            text.push_str(
                "\n  The key is not an admin key of this node: see admin.key_file in the node's configuration.",
            );
        }
        StatusCode::UNAUTHORIZED => {
            text.push_str(
                "\n  Give the node's admin key: --key-file FILE, or the variable CURFEW_ADMIN_KEY.",
            );
        }
        StatusCode::FORBIDDEN
            if text.contains("no admin key") && !text.contains("admin.key_file") =>
        {
            text.push_str("\n  Set admin.key_file in the node's configuration.");
        }
        StatusCode::NOT_FOUND if problem.is_null() => {
            text.push_str("\n  Is --url the admin listener (admin.listen), not the public one?");
        }
        _ => {}
    }
    anyhow!(text)
}

/// Encodes `text` as one segment of a path (RFC 3986 §2.3).
pub(crate) fn segment(text: &str) -> String {
    // In a segment of only dots, the dots are escaped, because `.` and `..` would be read as
    // relative paths.
    let encoded = match text.bytes().all(|byte| byte == b'.') {
        true => &const { ENCODED.add(b'.') },
        false => &ENCODED,
    };
    utf8_percent_encode(text, encoded).to_string()
}

/// The list in the answer's member `name`.
pub(crate) fn list<'a>(answer: &'a Value, name: &str) -> Result<&'a [Value], Failure> {
    let list = answer[name].as_array();
    Ok(list.with_context(|| format!("the admin API's answer has no list {name}"))?)
}

/// A member as text; `-` when it is absent or null.
pub(crate) fn text(object: &Value, name: &str) -> String {
    match &object[name] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Returns a member that is a time in Unix seconds, as the distance from `now`.
pub(crate) fn when(object: &Value, name: &str, now: u64) -> String {
    object[name].as_u64().map_or_else(
        || text(object, name),
        |time| crate::time::relative(time, now),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_or_explained() {
        for (url, expect) in [
            (
                "http://127.0.0.1:9090",
                Some(("127.0.0.1:9090", "127.0.0.1:9090", "")),
            ),
            ("http://curfew/", Some(("curfew:80", "curfew", ""))),
            (
                "http://[::1]:9090/admin/",
                Some(("[::1]:9090", "[::1]:9090", "/admin")),
            ),
            ("https://127.0.0.1:9090", None),
            ("127.0.0.1:9090", None),
            ("http://me:secret@host", None),
            ("http://127.0.0.1:90a0", None),
            ("http://[::1]:65536", None),
            ("", None),
        ] {
            let found = parse_url(url).ok();
            let found = found
                .as_ref()
                .map(|node| (&*node.address, &*node.host, &*node.base));
            assert_eq!(found, expect, "{url}");
        }
    }

    #[test]
    fn any_value_is_one_segment() {
        for (text, expect) in [
            ("alice", "alice"),
            ("a/b?c#d%e f", "a%2Fb%3Fc%23d%25e%20f"),
            ("zoë", "zo%C3%AB"),
            ("..", "%2E%2E"),
            ("v1.2", "v1.2"),
        ] {
            assert_eq!(segment(text), expect);
        }
    }

    #[test]
    fn refusals_say_what_to_do() {
        let body = br#"{"title":"Unauthorized","detail":"the admin key is wrong"}"#;
        let text = refusal(StatusCode::UNAUTHORIZED, body, true).to_string();
        assert!(
            text.contains("the admin key is wrong") && text.contains("key_file"),
            "{text}"
        );
        let body = br#"{"detail":"away","trace":"4bf9","trace_url":"https://jaeger.example/trace/4bf9\u001b"}"#;
        let text = refusal(StatusCode::SERVICE_UNAVAILABLE, body, true).to_string();
        assert!(
            text.contains("trace: https://jaeger.example/trace/4bf9") && !text.contains('\u{1b}'),
            "{text}"
        );
        let text = refusal(StatusCode::UNAUTHORIZED, b"", false).to_string();
        assert!(text.contains("--key-file"), "{text}");
    }
}
