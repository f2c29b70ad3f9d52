//! Helpers for both ends of a connection: a server that uses this crate as the gateway does, and
//! handwritten bytes of a client.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use bytes::Bytes;
use curfew_model::Message;
use curfew_ws::{
    Decoder, DeferSwitch, DeferredResponse, Event, Input, Limits, Transport, Upgraded, WriteBatch,
    accept, frame, handshake, with_read_buffer,
};
use http::{Request, Response};
use http_body_util::{Either, Empty, Full};
use hyper::body::Incoming as Body;
use hyper::server::conn::http1::{self, Parts};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

pub(crate) const REQUEST: &str = "GET /ws?x=1 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
    Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: curfew.v1, bearer.secret\r\n\
    Sec-WebSocket-Extensions: permessage-deflate\r\n";

/// The text "early" in a masked frame.
pub(crate) const EARLY: &[u8] = &[
    0x81,
    0x85,
    1,
    2,
    3,
    4,
    b'e' ^ 1,
    b'a' ^ 2,
    b'r' ^ 3,
    b'l' ^ 4,
    b'y' ^ 1,
];

type HttpAnswer = Response<Either<Empty<Bytes>, Full<Bytes>>>;

/// Both ends of a TCP connection.
pub(crate) async fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
    (client.unwrap(), server.unwrap().0)
}

/// Serves one request. If the request is an upgrade, takes over the connection and writes the
/// answer.
pub(crate) async fn serve<S>(stream: S) -> Option<(Transport, Bytes)>
where
    S: AsyncRead + AsyncWrite + Unpin + Into<Transport>,
{
    let Upgraded {
        mut transport,
        answer,
        early,
    } = upgrade(stream).await?;
    write(&mut transport, &[answer]).await;
    Some((transport, early))
}

/// Serves one request. If the request is an upgrade, takes over the connection.
pub(crate) async fn upgrade<S>(stream: S) -> Option<Upgraded>
where
    S: AsyncRead + AsyncWrite + Unpin + Into<Transport>,
{
    let switch = DeferSwitch::default();
    let accepted = AtomicBool::new(false);
    let service = service_fn(|mut request: Request<Body>| {
        let answer = answer(&mut request, &switch, &accepted);
        std::future::ready(Ok::<_, Infallible>(answer))
    });
    let io = TokioIo::new(DeferredResponse::new(stream, Bytes::new(), switch.clone()));
    let served = http1::Builder::new()
        .serve_connection(io, service)
        .without_shutdown()
        .await;
    let Parts { io, read_buf, .. } = served.ok()?;
    let mut held = io.into_inner();
    if accepted.load(Ordering::Relaxed) {
        return Some(held.finish(&read_buf));
    }
    held.shutdown().await.ok();
    None
}

fn answer(request: &mut Request<Body>, switch: &DeferSwitch, accepted: &AtomicBool) -> HttpAnswer {
    let checked = handshake::check(request).and_then(|offer| {
        let chosen = offer.subprotocols.iter().find(|name| *name == "curfew.v1");
        accept(request, chosen.map(String::as_str))
    });
    match checked {
        Ok(response) => {
            accepted.store(true, Ordering::Relaxed);
            switch.defer();
            response.map(Either::Left)
        }
        Err(error) => {
            let mut response = Response::new(Either::Right(Full::from(error.to_string())));
            *response.status_mut() = error.status();
            response.headers_mut().extend(error.headers());
            response
        }
    }
}

/// The head of an HTTP answer, in lower case, without the line of its date.
pub(crate) async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

pub(crate) async fn read(transport: &mut Transport, buffer: &mut [u8]) -> io::Result<usize> {
    poll_fn(|cx| transport.poll_read(cx, buffer)).await
}

pub(crate) async fn write(transport: &mut Transport, frames: &[Bytes]) {
    let mut at = 0;
    let all: usize = frames.iter().map(Bytes::len).sum();
    while at < all {
        let mut skip = at;
        let slices: Vec<IoSlice<'_>> = frames
            .iter()
            .map(|frame| {
                let skipped = skip.min(frame.len());
                skip -= skipped;
                IoSlice::new(&frame[skipped..])
            })
            .collect();
        at += poll_fn(|cx| transport.poll_write(cx, WriteBatch::Slices(&slices)))
            .await
            .unwrap();
    }
    poll_fn(|cx| transport.poll_flush(cx)).await.unwrap();
}

/// Echoes text messages and answers pings and a close, until the connection ends.
pub(crate) async fn echo(transport: &mut Transport, early: &[u8]) {
    let limits = Limits {
        message_bytes: 1 << 20,
        fragments: 1,
    };
    let mut decoder = Decoder::new();
    decoder.preload(early);
    let mut replies = Vec::new();
    loop {
        let read = poll_fn(|cx| {
            with_read_buffer(|buffer| {
                let read = transport.poll_read(cx, buffer)?;
                let mut input = match read {
                    Poll::Ready(read) => Input::new(&mut buffer[..read]),
                    Poll::Pending => Input::empty(),
                };
                while let Some(event) = decoder.next(&mut input, &limits).unwrap() {
                    replies.push(match event {
                        Event::Message(Message::Text(text)) => frame::text(text.as_bytes()),
                        Event::Message(Message::Binary(data)) => {
                            frame::encode(frame::Opcode::Binary, |out| out.extend_from_slice(data))
                        }
                        Event::Ping(payload) => frame::pong(payload),
                        Event::Pong(_) => continue,
                        Event::Close { code, reason } => frame::close(code.unwrap_or(1000), reason),
                    });
                }
                match read {
                    Poll::Pending if replies.is_empty() => Poll::Pending,
                    Poll::Pending => Poll::Ready(Ok(1)),
                    Poll::Ready(read) => Poll::Ready(Ok::<_, io::Error>(read)),
                }
            })
        })
        .await;
        if !matches!(read, Ok(1..)) {
            return;
        }
        write(transport, &std::mem::take(&mut replies)).await;
    }
}
