//! The published JavaScript SDK in Chromium, behind a middlebox that blocks WebSockets.

use std::net::SocketAddr;
use std::time::Duration;

use curfew_testkit::mint::Key;
use curfew_testkit::unix_now;
use curfew_tests::Gateway;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;
use tokio::fs;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::settings;
use crate::clients::{installed, program};
use crate::demo::Browser;

/// Time to wait for a reconnection that must not come. The page's client would reconnect after a
/// small part of this time.
const STAYS_AWAY: Duration = Duration::from_secs(2);

/// Limit on the bytes of a request's head.
const HEAD_BYTES: usize = 64 * 1024;

#[tokio::test]
async fn a_page_whose_websocket_is_blocked_goes_on_over_http_stream() {
    goes_on_over("http_stream").await;
}

#[tokio::test]
async fn a_page_whose_websocket_is_blocked_goes_on_over_sse() {
    goes_on_over("sse").await;
}

#[tokio::test]
async fn a_page_whose_websocket_is_not_blocked_uses_it() {
    let site = Site::start().await;
    let node = node(&site).await;
    let browser = Browser::start().await;
    let transports = ["websocket", "http_stream", "sse"];
    open(&browser, &site, node.address(), &transports).await;
    until_step(&browser, "message 0 at 1").await;
    let [connected, ..] = &*steps(&browser).await else {
        panic!("the page has shown no step");
    };
    assert_eq!(connected, "connected by websocket");
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

/// Runs a session over `transport`, and cuts its connection once.
async fn goes_on_over(transport: &str) {
    let site = Site::start().await;
    let node = node(&site).await;
    let middlebox = Middlebox::start(node.address()).await;
    let browser = Browser::start().await;
    let transports = ["websocket", transport];
    open(&browser, &site, middlebox.address, &transports).await;
    let connected = format!("connected by {transport}");
    until_step(&browser, "message 0 at 1").await;
    node.publish("room:page", json!({"n":1})).await;
    until_step(&browser, "message 1 at 2").await;
    let expected = [
        "subscribed",
        "present 1",
        "message 0 at 1",
        "message 1 at 2",
    ];
    let mut all = vec![connected.as_str()];
    all.extend(expected);
    assert_eq!(steps(&browser).await, all);

    // The missed publications arrive when the client has reconnected.
    middlebox.close();
    for n in 2..=4 {
        node.publish("room:page", json!({"n":n})).await;
    }
    middlebox.open();
    until_step(&browser, "message 4 at 5").await;
    node.publish("room:page", json!({"n":5})).await;
    until_step(&browser, "message 5 at 6").await;
    all.extend([
        connected.as_str(),
        "subscribed again, recovered true",
        "message 2 at 3",
        "message 3 at 4",
        "message 4 at 5",
        "message 5 at 6",
    ]);
    assert_eq!(steps(&browser).await, all);

    let connections = async || {
        let accepted = node.metric("curfew_connections_accepted_total").await;
        accepted + node.metric("curfew_connections_rejected_total").await
    };
    let before = connections().await;
    node.revoke(json!({"kind":"user","value":"alice"})).await;
    until_step(&browser, "disconnected 3503 revoked").await;
    all.push("disconnected 3503 revoked");
    sleep(STAYS_AWAY).await;
    assert_eq!(steps(&browser).await, all);
    assert_eq!(connections().await, before);
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

/// A node that accepts pages of `site`.
async fn node(site: &Site) -> Gateway {
    let origins = format!("server.allowed_origins = [\"http://{}\"]", site.address);
    Gateway::start_with(&settings().with(&origins)).await
}

async fn open(browser: &Browser, site: &Site, node: SocketAddr, transports: &[&str]) {
    let token = Key::default_secret().user_with("alice", json!({"exp":unix_now() + 600}));
    let task = json!({
        "address": node.to_string(),
        "token": token,
        "transports": transports,
        "channel": "room:page",
    });
    let task = task.to_string();
    let task = utf8_percent_encode(&task, NON_ALPHANUMERIC);
    browser
        .open(&format!("http://{}/#{task}", site.address))
        .await;
}

/// The steps that the page has listed so far.
async fn steps(browser: &Browser) -> Vec<String> {
    let script =
        "return [...document.querySelectorAll('#steps li')].map((line) => line.textContent)";
    let steps = browser.client.execute(script, Vec::new()).await.unwrap();
    serde_json::from_value(steps).unwrap()
}

async fn until_step(browser: &Browser, step: &str) {
    let what = format!("the page has the step {step:?}");
    let holds = async || steps(browser).await.iter().any(|each| each == step);
    browser.until(&what, holds).await;
}

/// A site with a page that runs the SDK. The site's origin differs from the node's origin.
struct Site {
    address: SocketAddr,
    _serving: JoinSet<()>,
}

impl Site {
    async fn start() -> Self {
        let page = "<!doctype html><meta charset=utf-8><title>A page</title><link rel=icon href=data:,>\
            <main><ol id=steps></ol></main><script src=/sdk.js></script><script src=/page.js></script>";
        let sdk = fs::read(installed("node_modules/centrifuge/dist/centrifuge.js")).await;
        let script = fs::read(program("centrifuge_page.js")).await;
        let files = [
            ("/sdk.js", "text/javascript", sdk.unwrap()),
            ("/page.js", "text/javascript", script.unwrap()),
            ("/", "text/html", page.into()),
        ];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let Some(head) = read_head(&mut client).await else {
                    continue;
                };
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let found = files.iter().find(|(name, ..)| *name == path);
                let (status, kind, body) = match found {
                    Some((_, kind, body)) => ("200 OK", *kind, body.as_slice()),
                    None => ("404 Not Found", "text/plain", &b""[..]),
                };
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                // The write fails if the browser has closed the connection.
                drop(client.write_all(&[head.as_bytes(), body].concat()).await);
                drop(client.shutdown().await);
            }
        });
        Self {
            address,
            _serving: serving,
        }
    }
}

/// A middlebox between a page and a node. It answers 403 to each WebSocket upgrade.
struct Middlebox {
    address: SocketAddr,
    is_open: watch::Sender<bool>,
    _carrying: JoinSet<()>,
}

impl Middlebox {
    async fn start(node: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (is_open, watched) = watch::channel(true);
        let mut carrying = JoinSet::new();
        carrying.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let mut watched = watched.clone();
                connections.spawn(async move {
                    tokio::select! {
                        () = carry(client, node) => {}
                        _ = watched.wait_for(|is_open| !is_open) => {}
                    }
                });
            }
        });
        Self {
            address,
            is_open,
            _carrying: carrying,
        }
    }

    /// Cuts every connection. Each new connection is cut as well, until [`Self::open`] is called.
    fn close(&self) {
        self.is_open.send_replace(false);
    }

    fn open(&self) {
        self.is_open.send_replace(true);
    }
}

async fn carry(mut client: TcpStream, node: SocketAddr) {
    let Some(head) = read_head(&mut client).await else {
        return;
    };
    if head.to_ascii_lowercase().contains("upgrade: websocket") {
        let refusal = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        drop(client.write_all(refusal).await);
        return;
    }
    let Ok(mut node) = TcpStream::connect(node).await else {
        return;
    };
    if node.write_all(head.as_bytes()).await.is_ok() {
        // The copy returns an error if either side resets the connection.
        drop(copy_bidirectional(&mut client, &mut node).await);
    }
}

/// The head of a request, with the bytes already read after it; `None` if the client closes the
/// connection.
async fn read_head(client: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        let read = client.read_buf(&mut head).await.ok()?;
        if read == 0 || head.len() > HEAD_BYTES {
            return None;
        }
    }
    String::from_utf8(head).ok()
}
