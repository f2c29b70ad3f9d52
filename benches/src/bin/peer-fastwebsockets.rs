//! A minimal server in the style of the fastwebsockets documentation. It uses hyper's upgrade. Each
//! connection has one task, which waits for a frame or for a message to write, and writes each
//! message separately. The server verifies no token and allows every client everything. It
//! implements only the part of `curfew.v1` that `curfew-bench` needs.
//!
//! `peer-fastwebsockets ADDRESS`

#![expect(
    clippy::disallowed_methods,
    reason = "a peer is not the gateway: it is as short as its documentation has it"
)]

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use bytes::Bytes;
use fastwebsockets::upgrade::{UpgradeFut, is_upgrade_request, upgrade};
use fastwebsockets::{Frame, OpCode, Payload, WebSocketError};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::header::{HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

type Outbox = UnboundedSender<Bytes>;
type Channels = Arc<Mutex<HashMap<String, Vec<Outbox>>>>;

#[derive(Deserialize)]
struct Command<'a> {
    r#type: &'a str,
    channel: &'a str,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct Message<'a> {
    r#type: &'a str,
    channel: &'a str,
    data: &'a RawValue,
    from: &'a str,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let address = std::env::args()
        .nth(1)
        .context("peer-fastwebsockets ADDRESS")?;
    let address: SocketAddr = address.parse()?;
    rlimit::increase_nofile_limit(u64::MAX)?;
    let listener = TcpListener::bind(address).await?;
    let channels = Channels::default();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let channels = Arc::clone(&channels);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                std::future::ready(answer(request, Arc::clone(&channels)))
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            // Clients end their connections by a reset, so an error here is normal.
            drop(connection.await);
        });
    }
}

fn answer(
    mut request: Request<Incoming>,
    channels: Channels,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let upgraded = match is_upgrade_request(&request) {
        true => upgrade(&mut request),
        false => Err(WebSocketError::InvalidConnectionHeader),
    };
    let Ok((mut response, future)) = upgraded else {
        let mut response = Response::new(Empty::new());
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(response);
    };
    let protocol = HeaderValue::from_static("curfew.v1");
    response
        .headers_mut()
        .insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    tokio::spawn(async move { drop(serve(future, channels).await) });
    Ok(response)
}

async fn serve(future: UpgradeFut, channels: Channels) -> Result<(), WebSocketError> {
    let (outbox, mut inbox) = unbounded_channel::<Bytes>();
    let mut socket = future.await?;
    tell(&outbox, r#"{"type":"connected"}"#.into());
    loop {
        // If a message is to be written while a frame is half read, the select loses the frame.
        // This does not happen, because the load generator sends whole frames.
        tokio::select! {
            frame = socket.read_frame() => {
                let frame = frame?;
                match frame.opcode {
                    OpCode::Text => act(&frame.payload, &outbox, &channels),
                    OpCode::Close => return Ok(()),
                    _ => {}
                }
            }
            Some(text) = inbox.recv() => {
                socket.write_frame(Frame::text(Payload::Borrowed(&text))).await?;
            }
        }
    }
}

fn act(text: &[u8], outbox: &Outbox, channels: &Channels) {
    let Ok(command) = serde_json::from_slice::<Command<'_>>(text) else {
        return;
    };
    let mut channels = channels
        .lock()
        .expect("no task panics while it holds the lock");
    match (command.r#type, command.data) {
        ("subscribe", _) => {
            let listeners = channels.entry(command.channel.to_owned()).or_default();
            listeners.push(outbox.clone());
            tell(outbox, r#"{"type":"ok","id":1}"#.into());
        }
        ("publish", Some(data)) => {
            let message = Message {
                r#type: "message",
                channel: command.channel,
                data,
                from: "bench-0",
            };
            let text =
                Bytes::from(serde_json::to_vec(&message).expect("a message serializes to JSON"));
            for listener in channels.get(command.channel).into_iter().flatten() {
                drop(listener.send(text.clone()));
            }
        }
        _ => {}
    }
}

fn tell(outbox: &Outbox, text: String) {
    drop(outbox.send(text.into()));
}
