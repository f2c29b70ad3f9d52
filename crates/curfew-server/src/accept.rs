//! Accepting connections: a place, TLS, the first byte and the head of the request, each in time.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use curfew_telemetry::RejectReason;
use http::header::CONNECTION;
use http::{HeaderValue, Request, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::Public;
use crate::listen;
use crate::permits::{Full, Unauthenticated};
use crate::respond::{RETRY_AFTER_SECONDS, Response};

/// Most headers of a request.
const MAX_HEADERS: usize = 64;

/// Largest head of a request, in bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Longest wait for the last answers once the listener is closed.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// What is known of a connection before its first request.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) peer: SocketAddr,
    pub(crate) at: Instant,
    /// Whether its first request has come.
    asked: AtomicBool,
    /// Taken by the upgrade; otherwise given back when the connection ends.
    pub(crate) permit: Mutex<Option<Unauthenticated>>,
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
                let connection = async move { public.connection(stream, peer, permit, stop).await };
                node.spawn(open.track_future(connection));
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

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        permit: Unauthenticated,
        stop: CancellationToken,
    ) {
        let started = Instant::now();
        let settings = self.settings.load();
        let timeout = settings.server.handshake_timeout;
        let deadline = started + settings.server.upgrade_timeout;
        drop(settings);
        let accepted = Arc::new(Accepted {
            peer,
            at: started,
            asked: AtomicBool::new(false),
            permit: Mutex::new(Some(permit)),
        });
        let served = time::timeout_at(deadline, async {
            match &self.tls {
                None => {
                    // hyper's own deadline begins with the first byte.
                    time::timeout(timeout, stream.readable())
                        .await
                        .map_err(|_| Late)?
                        .ok();
                    self.http(stream, accepted, timeout, stop).await
                }
                Some(tls) => {
                    let handshake = tls.acceptor().accept(stream);
                    match time::timeout(timeout, handshake).await.map_err(|_| Late)? {
                        Ok(stream) => self.http(stream, accepted, timeout, stop).await,
                        Err(error) => {
                            debug!(peer = %peer.ip(), error = %error, "TLS handshake failed");
                            Ok(())
                        }
                    }
                }
            }
        })
        .await;
        if !matches!(served, Ok(Ok(()))) {
            self.context
                .node
                .metrics()
                .connections_rejected
                .inc(RejectReason::Timeout);
            debug!(peer = %peer.ip(), "connection closed: no request came in time");
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
        accepted: Arc<Accepted>,
        head_timeout: Duration,
        stop: CancellationToken,
    ) -> Result<(), Late>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|request| {
            let public = Arc::clone(self);
            let accepted = Arc::clone(&accepted);
            async move { Ok::<_, Infallible>(public.answer(request, &accepted).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            // Without a timer the head's deadline would be silently off.
            .timer(TokioTimer::new())
            .header_read_timeout(head_timeout)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = pin!(connection);
        let served = tokio::select! {
            served = connection.as_mut() => served,
            () = stop.cancelled() => {
                // It would close one that has not asked yet, without an answer.
                if accepted.asked.load(Ordering::Relaxed) {
                    connection.as_mut().graceful_shutdown();
                }
                connection.await
            }
        };
        match served {
            Err(error) if error.is_timeout() => Err(Late),
            Err(error) => {
                debug!(peer = %accepted.peer.ip(), error = %error, "connection lost before its upgrade");
                Ok(())
            }
            Ok(()) => Ok(()),
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
