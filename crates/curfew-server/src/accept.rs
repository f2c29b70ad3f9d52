//! Accepting connections: a place, TLS, the first byte and the head of the request, each in time.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use curfew_telemetry::RejectReason;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::Public;
use crate::listen;
use crate::permits::{Full, Unauthenticated};
use crate::respond::RETRY_AFTER_SECONDS;

/// Most headers of a request.
const MAX_HEADERS: usize = 64;

/// Largest head of a request, in bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// What is known of a connection before its first request.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) peer: SocketAddr,
    pub(crate) at: Instant,
    /// Taken by the upgrade; otherwise given back when the connection ends.
    pub(crate) permit: Mutex<Option<Unauthenticated>>,
}

impl Public {
    /// Accepts connections until `stop`.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        listen::accept(listener, stop, |stream, peer| self.admit(stream, peer)).await;
    }

    fn admit(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let public = Arc::clone(self);
        let node = &self.context.node;
        match self.permits.unauthenticated(peer.ip()) {
            Ok(permit) => {
                node.spawn(async move { public.connection(stream, peer, permit).await });
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
    ) {
        let started = Instant::now();
        let settings = self.settings.load();
        let timeout = settings.server.handshake_timeout;
        let deadline = started + settings.server.upgrade_timeout;
        drop(settings);
        if let Err(error) = stream.set_nodelay(true) {
            debug!(error = %error, "connection lost before its request");
            return;
        }
        let accepted = Arc::new(Accepted {
            peer,
            at: started,
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
                    self.http(stream, accepted, timeout).await
                }
                Some(tls) => {
                    let handshake = tls.acceptor().accept(stream);
                    match time::timeout(timeout, handshake).await.map_err(|_| Late)? {
                        Ok(stream) => self.http(stream, accepted, timeout).await,
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

    /// Serves one request after another until one is an upgrade or the client leaves.
    async fn http<S>(
        self: &Arc<Self>,
        stream: S,
        accepted: Arc<Accepted>,
        head_timeout: Duration,
    ) -> Result<(), Late>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|request| {
            let public = Arc::clone(self);
            let accepted = Arc::clone(&accepted);
            async move { Ok::<_, Infallible>(public.route(request, &accepted).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            // Without a timer the head's deadline would be silently off.
            .timer(TokioTimer::new())
            .header_read_timeout(head_timeout)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        match connection.await {
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
