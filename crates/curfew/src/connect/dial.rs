//! Opens the WebSocket at a URL.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use curfew_identity::exchange;
use curfew_ws::client::{Client, ConnectError, connect as open};
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Uri};
use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::trace::Traces;
use super::{ConnectArgs, TokenIn};
use crate::failure::Failure;
use crate::{output, trust};

/// Longest time that the opening of the WebSocket may take, including the TLS handshake.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The path of the endpoint, for a URL without a path.
const DEFAULT_PATH: &str = "/ws";

/// Maximum number of characters that are shown of the body of a refusal, if the body has no message
/// of Curfew.
const MAX_BODY_SHOWN: usize = 500;

/// The transport of a WebSocket.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// The parts of a URL.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    tls: bool,
    host: String,
    port: u16,
    /// The `Host` header.
    authority: String,
    path_and_query: String,
}

/// Opens the WebSocket.
pub(super) async fn connect(
    args: &ConnectArgs,
    token: Option<&str>,
    traces: &mut Traces,
) -> Result<Client<Box<dyn Stream>>, Failure> {
    let mut target = Target::parse(&args.url).map_err(Failure::Usage)?;
    let mut headers = headers(&args.headers)?;
    let mut subprotocols = vec!["curfew.v1".to_owned()];
    if let Some(token) = token {
        let usable = |c: char| c.is_ascii_alphanumeric() || "-_.~+/=".contains(c);
        if token.is_empty() || !token.chars().all(usable) {
            return Err(Failure::usage(
                "the token is empty or has characters that a token cannot have",
            ));
        }
        match args.token_in {
            TokenIn::Header => {
                let mut value = HeaderValue::from_str(&format!("Bearer {token}"))?;
                value.set_sensitive(true);
                headers.insert(AUTHORIZATION, value);
            }
            TokenIn::Subprotocol => subprotocols.push(format!("bearer.{token}")),
            TokenIn::Query => {
                let separator = if target.path_and_query.contains('?') {
                    '&'
                } else {
                    '?'
                };
                target
                    .path_and_query
                    .push_str(&format!("{separator}token={token}"));
            }
            TokenIn::Message => {}
        }
    }
    let subprotocols: Vec<&str> = subprotocols.iter().map(String::as_str).collect();
    let opening = async {
        let stream = target.stream(args.ca_file.as_deref()).await?;
        open(
            stream,
            &target.authority,
            &target.path_and_query,
            &subprotocols,
            headers,
        )
        .await
        .map_err(|error| explain(error, traces))
    };
    let opened = timeout(TIMEOUT, opening).await.map_err(|_| {
        anyhow!(
            "{} did not answer within {} s",
            target.authority,
            TIMEOUT.as_secs()
        )
    });
    Ok(opened??)
}

impl Target {
    fn parse(url: &str) -> Result<Self, String> {
        // The message does not repeat the URL, because the query may hold a token.
        let wrong = || "the URL is not of the form ws://127.0.0.1:8080/ws".to_owned();
        let url = url.split('#').next().unwrap_or_default();
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let tls = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            Some("http") => return Err(format!("{}; use ws:// instead of http://", wrong())),
            Some("https") => return Err(format!("{}; use wss:// instead of https://", wrong())),
            _ => return Err(wrong()),
        };
        let authority = uri
            .authority()
            .filter(|authority| !authority.as_str().contains('@'));
        let authority = authority.ok_or_else(wrong)?;
        // `port_u16` returns `None` for an invalid port and for an absent port.
        if authority.port_u16().is_none() && authority.as_str() != authority.host() {
            return Err(format!(
                "{}: the port must be a number from 1 to 65535",
                wrong()
            ));
        }
        let path = if uri.path() == "/" {
            DEFAULT_PATH
        } else {
            uri.path()
        };
        let query = uri
            .query()
            .map(|query| format!("?{query}"))
            .unwrap_or_default();
        Ok(Self {
            tls,
            host: authority.host().to_owned(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            authority: authority.as_str().to_owned(),
            path_and_query: format!("{path}{query}"),
        })
    }

    async fn stream(&self, ca_file: Option<&Path>) -> anyhow::Result<Box<dyn Stream>> {
        let address = format!("{}:{}", self.host, self.port);
        let stream = exchange::connect(&address)
            .await
            .with_context(|| format!("connect to {address} (is the node running?)"))?;
        stream.set_nodelay(true)?;
        if !self.tls {
            return Ok(Box::new(stream));
        }
        let roots = roots(ca_file).await?;
        let config = trust::client(roots);
        let host = self
            .host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let name = ServerName::try_from(host)
            .context("the host in the URL is not a valid server name for TLS")?;
        let stream = TlsConnector::from(config)
            .connect(name, stream)
            .await
            .with_context(|| {
                format!("TLS handshake with {address} (is its certificate trusted? see --ca-file)")
            })?;
        Ok(Box::new(stream))
    }
}

async fn roots(ca_file: Option<&Path>) -> anyhow::Result<RootCertStore> {
    let Some(file) = ca_file else {
        let roots = trust::system_roots();
        anyhow::ensure!(
            !roots.is_empty(),
            "the system has no root certificates; give some with --ca-file"
        );
        return Ok(roots);
    };
    let roots = exchange::roots(file).await;
    roots.with_context(|| format!("read the certificates in {}", file.display()))
}

fn headers(given: &[String]) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    for header in given {
        let parsed = header.split_once(':').and_then(|(name, value)| {
            let name: HeaderName = name.trim().parse().ok()?;
            Some((name, HeaderValue::from_str(value.trim()).ok()?))
        });
        let (name, value) = parsed.ok_or_else(|| Failure::usage("--header takes 'Name: value'"))?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// Explains to a person why the WebSocket did not open.
fn explain(error: ConnectError, traces: &mut Traces) -> anyhow::Error {
    let ConnectError::Refused {
        status,
        headers,
        body,
    } = error
    else {
        return error.into();
    };
    let mut text = format!("the server refused the upgrade: {status}");
    let said = serde_json::from_slice::<Value>(&body).unwrap_or_default();
    let reason = said["reason"].as_str().or_else(|| said["code"].as_str());
    let message = said["message"].as_str().or_else(|| said["detail"].as_str());
    match (reason, message) {
        (Some(reason), Some(message)) => text.push_str(&format!("\n  {reason}: {message}")),
        (None, Some(message)) => text.push_str(&format!("\n  {message}")),
        _ => {
            let body: String = String::from_utf8_lossy(&body)
                .chars()
                .take(MAX_BODY_SHOWN)
                .collect();
            if !body.trim().is_empty() {
                text.push_str(&format!("\n  {}", output::clean(body.trim())));
            }
        }
    }
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(seconds) = header("retry-after") {
        text.push_str(&format!("\n  Try again in {seconds} s."));
    }
    if let Some(location) = header("location").filter(|_| status.is_redirection()) {
        text.push_str(&format!(
            "\n  The server redirects to {}.",
            output::clean(location)
        ));
    }
    if status == StatusCode::NOT_FOUND {
        text.push_str("\n  The native protocol is at /ws on the public listener.");
    }
    if let Some(line) = traces.line(&String::from_utf8_lossy(&body)) {
        text.push_str(&format!("\n  {line}"));
    }
    anyhow!(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        for (url, tls, host, port, path) in [
            ("ws://127.0.0.1:8080/ws", false, "127.0.0.1", 8080, "/ws"),
            ("ws://127.0.0.1:8080", false, "127.0.0.1", 8080, "/ws"),
            (
                "wss://rt.example.com/?a=b",
                true,
                "rt.example.com",
                443,
                "/ws?a=b",
            ),
            ("ws://[::1]/other?x#y", false, "[::1]", 80, "/other?x"),
        ] {
            let target = Target::parse(url).unwrap();
            let found = (
                target.tls,
                target.host.as_str(),
                target.port,
                target.path_and_query.as_str(),
            );
            assert_eq!(found, (tls, host, port, path), "{url}");
        }
        for url in [
            "http://127.0.0.1:8080/ws",
            "127.0.0.1:8080",
            "/ws",
            "ws://a:b@c/",
            "ws://127.0.0.1:80a0/ws",
            "ws://127.0.0.1:65536/ws",
            "ws://[::1]:/ws",
            "",
        ] {
            let error = Target::parse(url).unwrap_err();
            assert!(error.contains("ws://"), "{url}: {error}");
        }
    }

    #[test]
    fn refusals_show_status_reason_and_body() {
        let refused = |status, body: &'static str| {
            let refused = ConnectError::Refused {
                status,
                headers: HeaderMap::new(),
                body: body.into(),
            };
            explain(refused, &mut Traces::new(None)).to_string()
        };
        let body = r#"{"type":"auth_failed","reason":"expired","message":"the token has expired"}"#;
        let text = refused(StatusCode::UNAUTHORIZED, body);
        assert!(
            text.contains("401") && text.contains("expired: the token has expired"),
            "{text}"
        );
        let text = refused(StatusCode::BAD_GATEWAY, "<h1>Bad\u{1b} Gateway</h1>");
        assert!(text.contains("<h1>") && !text.contains('\u{1b}'), "{text}");
    }
}
