//! Accepting connections: a place, TLS, the first byte and the head of the request, each in time.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use curfew_session::Session;
use curfew_telemetry::RejectReason;
use curfew_ws::{Held, Hold, Transport};
use http::header::CONNECTION;
use http::{HeaderValue, Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1::Parts;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::listen;
use crate::permits::{Full, Unauthenticated};
use crate::respond::{RETRY_AFTER_SECONDS, Response};
use crate::upgrade::Upgrade;
use crate::{Public, Tls};

/// Most headers of a request.
const MAX_HEADERS: usize = 64;

/// Longest wait for the last answers once the listener is closed.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// What is known of a connection before it is upgraded.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) peer: SocketAddr,
    pub(crate) at: Instant,
    /// Whether its first request has come.
    asked: AtomicBool,
    /// Taken by the upgrade; otherwise given back when the connection ends.
    pub(crate) permit: Mutex<Option<Unauthenticated>>,
    /// What it is to become.
    upgrade: Mutex<Option<Box<Upgrade>>>,
    /// Of the answer to the upgrade.
    hold: Hold,
}

impl Accepted {
    /// Has the connection taken over once the request that is being answered is. Its answer is
    /// left to the session to write.
    pub(crate) fn take_over(&self, upgrade: Upgrade) {
        *self.upgrade.lock() = Some(Box::new(upgrade));
        self.hold.hold();
    }
}

impl Public {
    /// Accepts connections until `stop`. Returns when those it has accepted are upgraded or answered,
    /// or after a second.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let open = TaskTracker::new();
        listen::accept(listener, stop.clone(), |stream, peer| {
            self.admit(stream, peer, stop.clone(), &open);
        })
        .await;
        open.close();
        if time::timeout(LAST_ANSWERS, open.wait()).await.is_err() {
            debug!(
                connections = open.len(),
                "connections without a request are cut"
            );
        }
    }

    fn admit(
        self: &Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        stop: CancellationToken,
        open: &TaskTracker,
    ) {
        let public = Arc::clone(self);
        let node = &self.context.node;
        match self.permits.unauthenticated(peer.ip()) {
            Ok(permit) => {
                let token = open.token();
                // The session goes on in the same task, which holds only what an idle session
                // needs: what it takes to get there is in boxes, which are gone by then.
                let connection = Box::pin(public.connection(stream, peer, permit, stop));
                node.spawn(async move {
                    let session = connection.await;
                    drop(token);
                    if let Some(session) = session {
                        curfew_session::run(session).await;
                    }
                });
            }
            Err(full) => {
                node.metrics().connections_rejected.inc(RejectReason::Limit);
                debug!(peer = %peer.ip(), ?full, "connection turned away");
                // Over TLS the client sees a broken handshake: the answer is not worth one.
                if self.tls.is_none() {
                    node.spawn(async move { turn_away(stream, full).await });
                }
            }
        }
    }

    /// From an accepted connection to the session on it, if it comes to one.
    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        permit: Unauthenticated,
        stop: CancellationToken,
    ) -> Option<Box<Session>> {
        let started = Instant::now();
        let settings = self.settings.load();
        let timeout = settings.server.handshake_timeout;
        let deadline = started + settings.server.upgrade_timeout;
        drop(settings);
        let accepted = Accepted {
            peer,
            at: started,
            asked: AtomicBool::new(false),
            permit: Mutex::new(Some(permit)),
            upgrade: Mutex::new(None),
            hold: Hold::default(),
        };
        let served = match &self.tls {
            None => {
                // hyper's own deadline begins with the first byte.
                let first = deadline.min(started + timeout);
                match time::timeout_at(first, first_bytes(&stream)).await {
                    Ok(Ok(ahead)) => {
                        let http = Box::pin(self.http(stream, ahead, accepted, timeout, stop));
                        time::timeout_at(deadline, http).await
                    }
                    Ok(Err(error)) => {
                        debug!(peer = %peer.ip(), error = %error, "connection lost before its upgrade");
                        return None;
                    }
                    Err(late) => Err(late),
                }
            }
            Some(tls) => {
                let https = Box::pin(self.https(tls, stream, accepted, timeout, stop));
                time::timeout_at(deadline, https).await
            }
        };
        if let Ok(Ok(session)) = served {
            return session;
        }
        self.context
            .node
            .metrics()
            .connections_rejected
            .inc(RejectReason::Timeout);
        debug!(peer = %peer.ip(), "connection closed: no request came in time");
        None
    }

    /// The TLS handshake, then as [`Public::http`].
    async fn https(
        self: &Arc<Self>,
        tls: &Tls,
        stream: TcpStream,
        accepted: Accepted,
        timeout: Duration,
        stop: CancellationToken,
    ) -> Result<Option<Box<Session>>, Late> {
        let handshake = tls.acceptor().accept(stream);
        match time::timeout(timeout, handshake).await.map_err(|_| Late)? {
            Ok(stream) => {
                self.http(stream, Bytes::new(), accepted, timeout, stop)
                    .await
            }
            Err(error) => {
                debug!(peer = %accepted.peer.ip(), error = %error, "TLS handshake failed");
                Ok(None)
            }
        }
    }

    async fn answer(self: &Arc<Self>, request: Request<Incoming>, accepted: &Accepted) -> Response {
        accepted.asked.store(true, Ordering::Relaxed);
        let mut response = self.route(request, accepted).await;
        let upgrades = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if self.context.node.is_draining() && !upgrades {
            // The next request is for another node.
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        response
    }

    /// Serves one request after another until one is an upgrade, the client leaves or, once a first
    /// request was answered, `stop`.
    async fn http<S>(
        self: &Arc<Self>,
        stream: S,
        ahead: Bytes,
        accepted: Accepted,
        head_timeout: Duration,
        stop: CancellationToken,
    ) -> Result<Option<Box<Session>>, Late>
    where
        S: AsyncRead + AsyncWrite + Into<Transport> + Unpin + Send + 'static,
    {
        let stream = Held::new(stream, ahead, accepted.hold.clone());
        let accepted = Arc::new(accepted);
        let service = service_fn(|request| {
            let public = Arc::clone(self);
            let accepted = Arc::clone(&accepted);
            // Boxed, for a connection that is taken back from hyper must not be pinned.
            Box::pin(async move { Ok::<_, Infallible>(public.answer(request, &accepted).await) })
        });
        let mut connection = hyper::server::conn::http1::Builder::new()
            // Without a timer the head's deadline would be silently off.
            .timer(TokioTimer::new())
            .header_read_timeout(head_timeout)
            .max_headers(MAX_HEADERS)
            .max_buf_size(self.settings.load().auth.least_head_bytes())
            .serve_connection(TokioIo::new(stream), service);
        let served = tokio::select! {
            served = poll_fn(|cx| connection.poll_without_shutdown(cx)) => served,
            () = stop.cancelled() => {
                // It would close one that has not asked yet, without an answer.
                if accepted.asked.load(Ordering::Relaxed) {
                    std::pin::Pin::new(&mut connection).graceful_shutdown();
                }
                poll_fn(|cx| connection.poll_without_shutdown(cx)).await
            }
        };
        match served {
            Err(error) if error.is_timeout() => return Err(Late),
            Err(error) => {
                debug!(peer = %accepted.peer.ip(), error = %error, "connection lost before its upgrade");
                return Ok(None);
            }
            Ok(()) => {}
        }
        let Parts { io, read_buf, .. } = connection.into_parts();
        let mut stream = io.into_inner();
        let upgrade = accepted.upgrade.lock().take();
        let Some(upgrade) = upgrade else {
            if let Err(error) = stream.shutdown().await {
                debug!(peer = %accepted.peer.ip(), error = %error, "connection lost at its end");
            }
            return Ok(None);
        };
        Ok(Some(upgrade.session(stream.finish(&read_buf))))
    }
}

/// Waits for what the client sends first; none where it sends nothing and closes.
///
/// Read here and not by hyper, which would hold its buffers meanwhile: a storm's connections are all
/// accepted before the first of them is served. That the socket is readable would not do, since tokio
/// takes an accepted one for readable until it was tried.
async fn first_bytes(stream: &TcpStream) -> io::Result<Bytes> {
    loop {
        stream.readable().await?;
        let read = curfew_ws::with_read_buffer(|buffer| {
            let read = stream.try_read(buffer);
            read.map(|read| Bytes::copy_from_slice(&buffer[..read]))
        });
        match read {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return done,
        }
    }
}

/// Something did not come in time.
struct Late;

/// Answers without reading: a connection beyond the caps gets as little work as possible.
async fn turn_away(mut stream: TcpStream, full: Full) {
    let status = match full {
        Full::Address => "429 Too Many Requests",
        Full::Node | Full::Unauthenticated => "503 Service Unavailable",
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nRetry-After: {RETRY_AFTER_SECONDS}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    );
    let write = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    };
    if time::timeout(Duration::from_secs(1), write).await.is_err() {
        debug!("turned-away connection did not take its answer");
    }
}
