//! Accepts connections, and serves each until it is upgraded or ends. The PROXY header, the TLS
//! handshake, the first byte and the head of a request each have a deadline.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use curfew_session::{LimitsConfig, Session};
use curfew_ws::Transport;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::Public;
use crate::config::Snapshot;
use crate::http::exchange::{self, Ended};
use crate::http::head::{Bounds, HeadFault};
use crate::http::{Problem, Response, close};
use crate::listeners::proxies::{self, Client, HeaderError};
use crate::listeners::tls::Tls;
use crate::listeners::{self, Listener, UNIX_PEER};
use crate::metrics::{AnswerReason, RejectReason};
use crate::permits::{LimitReached, Unauthenticated};
use crate::upgrade::Accepted;

/// Maximum time for the last answers after the listener is closed.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

impl Public {
    /// Accepts connections until `stop` is cancelled. Then waits until all accepted connections are
    /// upgraded or closed, for at most one second.
    pub async fn serve(self: Arc<Self>, listener: Listener, stop: CancellationToken) {
        let open = TaskTracker::new();
        listeners::accept(listener, stop.clone(), |stream, peer| {
            self.admit(stream, peer, stop.clone(), &open);
        })
        .await;
        open.close();
        if time::timeout(LAST_ANSWERS, open.wait()).await.is_err() {
            debug!(
                connections = open.len(),
                "connections without a request are closed"
            );
        }
    }

    fn admit(
        self: &Arc<Self>,
        stream: TcpStream,
        peer: IpAddr,
        stop: CancellationToken,
        open: &TaskTracker,
    ) {
        let public = Arc::clone(self);
        let node = &self.context.node;
        let settings = Snapshot::take(&self.context);
        let proxies = &settings.proxies;
        // A connection through a load balancer counts toward the limit of no address until the
        // client's address is known.
        let known = peer != UNIX_PEER && !proxies.trusts(peer) && !proxies.speaks_protocol(peer);
        let limits = &settings.sessions.limits;
        match self.permits.unauthenticated(known.then_some(peer), limits) {
            Ok(permit) => {
                let token = open.token();
                // The session runs in the same task as the upgrade. The state of the upgrade is
                // boxed and freed before the session runs, so that the task then holds only the
                // state of the session.
                let connection = Box::pin(public.connection(stream, peer, permit, settings, stop));
                node.spawn(async move {
                    let session = connection.await;
                    drop(token);
                    if let Some(session) = session {
                        curfew_session::run(session).await;
                    }
                });
            }
            Err(full) => {
                let problem = self.turn_away(full, peer);
                let tls = self.tls.as_ref().map(|tls| tls.acceptor());
                let bounds = Bounds::from(limits);
                node.spawn(self.porter.turn_away(stream, tls, problem, bounds));
            }
        }
    }

    /// Counts a connection that exceeds a limit, and returns the answer to it.
    fn turn_away(&self, full: LimitReached, client: IpAddr) -> Problem {
        self.rejected(RejectReason::Limit);
        debug!(peer = %client, ?full, "connection turned away");
        let problem = turned_away(full);
        self.answers.problem(&problem, client);
        problem
    }

    /// Serves an accepted connection. Returns the session if a request upgrades the connection.
    /// `settings` are the settings at the time of acceptance. They give the limits and the
    /// deadlines of the connection. Each request uses the settings at the time of its arrival.
    async fn connection(
        self: Arc<Self>,
        mut stream: TcpStream,
        peer: IpAddr,
        mut permit: Unauthenticated,
        settings: Snapshot,
        stop: CancellationToken,
    ) -> Option<Box<Session>> {
        let started = Instant::now();
        let bounds = Bounds::from(&settings.sessions.limits);
        let timeout = settings.server.handshake_timeout;
        let deadline = started + settings.server.upgrade_timeout;
        let mut client = peer;
        if settings.proxies.speaks_protocol(peer) {
            let named = Box::pin(self.named(&mut stream, peer, &mut permit, &settings));
            client = match time::timeout(timeout, named).await {
                Ok(Ok(client)) => client,
                Ok(Err(Unnamed::Told(problem))) => {
                    let tls = self.tls.as_ref().map(|tls| tls.acceptor());
                    let turned_away = self.porter.turn_away(stream, tls, problem, bounds);
                    turned_away.await;
                    return None;
                }
                Ok(Err(Unnamed::Lost)) => return None,
                Err(_) => {
                    self.late(peer);
                    return None;
                }
            };
        }
        let accepted = Accepted::new(client, started, permit);
        let served = match &self.tls {
            None => {
                // The timeout of hyper starts only with the first byte, so the wait for this byte
                // needs its own deadline.
                let first = deadline.min(started + timeout);
                match time::timeout_at(first, first_bytes(&stream)).await {
                    Ok(Ok(ahead)) => {
                        let http =
                            Box::pin(self.http(stream, ahead, accepted, bounds, timeout, stop));
                        time::timeout_at(deadline, http).await
                    }
                    Ok(Err(error)) => {
                        debug!(peer = %client, error = %error, "connection lost before its upgrade");
                        return None;
                    }
                    Err(late) => Err(late),
                }
            }
            Some(tls) => {
                let https = Box::pin(self.https(tls, stream, accepted, bounds, timeout, stop));
                time::timeout_at(deadline, https).await
            }
        };
        if let Ok(Ok(session)) = served {
            return session;
        }
        self.late(client);
        None
    }

    /// Counts a connection on which no request arrived in time.
    fn late(&self, client: IpAddr) {
        self.rejected(RejectReason::Timeout);
        debug!(peer = %client, "connection closed: no request arrived in time");
    }

    /// Reads the PROXY header, and returns the client's address that it states. If it states none,
    /// returns `peer`.
    async fn named(
        &self,
        stream: &mut TcpStream,
        peer: IpAddr,
        permit: &mut Unauthenticated,
        settings: &Snapshot,
    ) -> Result<IpAddr, Unnamed> {
        match proxies::read_header(stream).await {
            Ok(None) => Ok(peer),
            Ok(Some(source)) => {
                let client = source.ip();
                let attribute = |address, limits: &_| permit.attribute(address, limits);
                self.attribute(Client::Known(client), settings, attribute)
                    .map_err(Unnamed::Told)?;
                Ok(client)
            }
            Err(HeaderError::Malformed(why)) => {
                self.rejected(RejectReason::BadRequest);
                let problem = Problem::bad_request(format!(
                    "server.proxy_protocol is on, but the connection has no valid PROXY header: {why}"
                ));
                let reason = AnswerReason::BadRequest;
                self.answers.refused(reason, problem.status(), peer);
                Err(Unnamed::Told(problem))
            }
            Err(HeaderError::Io(error)) => {
                debug!(peer = %peer, error = %error, "connection lost before its PROXY header");
                Err(Unnamed::Lost)
            }
        }
    }

    /// Counts a connection toward the limit of the client's address, which a load balancer has
    /// stated. If the client has too many connections, the error is the answer to the client.
    fn attribute(
        &self,
        client: Client,
        settings: &Snapshot,
        attribute: impl FnOnce(IpAddr, &LimitsConfig) -> Result<(), LimitReached>,
    ) -> Result<(), Problem> {
        let address = match client {
            // A request of the load balancer itself, such as a health check, counts toward the
            // limit of no address.
            Client::Known(address) if settings.proxies.trusts(address) => return Ok(()),
            Client::Known(address) | Client::Disputed(address) => address,
        };
        attribute(address, &settings.sessions.limits).map_err(|full| self.turn_away(full, address))
    }

    /// Counts a connection that is not upgraded.
    pub(super) fn rejected(&self, reason: RejectReason) {
        let metrics = &self.metrics;
        metrics.connections_rejected.inc(reason);
    }

    /// Performs the TLS handshake, then continues like [`Public::http`].
    async fn https(
        self: &Arc<Self>,
        tls: &Tls,
        stream: TcpStream,
        accepted: Accepted,
        bounds: Bounds,
        timeout: Duration,
        stop: CancellationToken,
    ) -> Result<Option<Box<Session>>, Late> {
        let mut first = [0];
        let peeked = time::timeout(timeout, stream.peek(&mut first));
        // An uppercase letter may begin an HTTP method, but never a TLS handshake.
        if matches!(peeked.await.map_err(|_| Late)?, Ok(1)) && first[0].is_ascii_uppercase() {
            self.refuse_plain(stream, &accepted, bounds).await;
            return Ok(None);
        }
        let handshake = tls.acceptor().accept(stream);
        match time::timeout(timeout, handshake).await.map_err(|_| Late)? {
            Ok(stream) => {
                let http = self.http(stream, Bytes::new(), accepted, bounds, timeout, stop);
                http.await
            }
            Err(error) => {
                self.rejected(RejectReason::Tls);
                debug!(peer = %accepted.client(), error = %error, "TLS handshake failed");
                Ok(None)
            }
        }
    }

    /// Refuses a request in plain text on a listener that requires TLS.
    async fn refuse_plain(&self, stream: TcpStream, accepted: &Accepted, bounds: Bounds) {
        self.rejected(RejectReason::Tls);
        let problem = Problem::bad_request("this listener requires TLS: use wss:// or https://");
        let client = accepted.client();
        self.answers
            .refused(AnswerReason::BadRequest, problem.status(), client);
        debug!(peer = %client, "request without TLS refused");
        self.porter.turn_away(stream, None, problem, bounds).await;
    }

    async fn answer(&self, request: Request<Incoming>, accepted: &Accepted) -> Response {
        accepted.note_request();
        let before = accepted.client();
        // The whole request uses this snapshot. A reload during the request has no effect on the
        // request.
        let settings = Snapshot::take(&self.context);
        let client = settings.proxies.client(before, request.headers());
        let (Client::Known(address) | Client::Disputed(address)) = client;
        if client != Client::Known(before) {
            accepted.set_client(address);
            let attribute = |address, limits: &_| accepted.attribute(address, limits);
            if let Err(problem) = self.attribute(client, &settings, attribute) {
                return close(problem.into_response());
            }
        }
        let response = self.route(request, accepted, settings).await;
        self.answers.note(&response, address);
        response
    }

    /// Answers the requests of a connection. Returns the session if one of them upgrades the
    /// connection.
    async fn http<S>(
        self: &Arc<Self>,
        stream: S,
        ahead: Bytes,
        accepted: Accepted,
        bounds: Bounds,
        head_timeout: Duration,
        stop: CancellationToken,
    ) -> Result<Option<Box<Session>>, Late>
    where
        S: AsyncRead + AsyncWrite + Into<Transport> + Unpin + Send + 'static,
    {
        let accepted = Arc::new(accepted);
        let answer = |request| {
            let public = Arc::clone(self);
            let accepted = Arc::clone(&accepted);
            Box::pin(async move { public.answer(request, &accepted).await }) as _
        };
        // Before the first request has arrived, `stop` does not end the connection, because hyper
        // would close it without an answer.
        let asked = || accepted.has_asked();
        let switch = accepted.switch();
        let Ended {
            stream,
            read,
            result,
        } = exchange::serve(
            stream,
            ahead,
            switch,
            bounds,
            head_timeout,
            answer,
            (stop, asked),
        )
        .await;
        let upgrade = accepted.take_upgrade();
        match (result, upgrade) {
            (Ok(()), Some(upgrade)) => return Ok(Some(upgrade.session(stream.finish(&read)))),
            (Ok(()), None) => exchange::part(&mut stream.into_inner()).await,
            (Err(error), _) => match HeadFault::of(&error, &read, bounds) {
                Some(fault) => {
                    let problem = fault.problem(bounds);
                    self.refuse_head(fault, &problem, &accepted);
                    exchange::answer_and_part(&mut stream.into_inner(), &problem).await;
                }
                None if error.is_timeout() => return Err(Late),
                None => {
                    debug!(peer = %accepted.client(), error = %error, "connection lost before its upgrade");
                }
            },
        }
        Ok(None)
    }

    /// Counts and logs the refusal of a head that cannot be read.
    fn refuse_head(&self, fault: HeadFault, problem: &Problem, accepted: &Accepted) {
        self.rejected(fault.reject_reason());
        let reason = AnswerReason::of(problem.status, Some(problem.code));
        let client = accepted.client();
        self.answers.refused(reason, problem.status(), client);
        debug!(peer = %client, ?fault, "head of a request refused");
    }
}

/// Waits for the client's first bytes. The result is empty if the client closes the connection
/// before it has sent a byte.
///
/// The bytes are read before hyper starts, because hyper would hold its buffers during this wait.
/// In a storm of reconnects, many connections are accepted before the first of them is served, so
/// these buffers would add up. It is not enough to wait until the socket is readable, because tokio
/// reports every accepted socket as readable until a read has failed.
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

/// The error for a TLS handshake or a head that did not arrive in time.
struct Late;

/// The reasons that a connection with the PROXY protocol is not served.
enum Unnamed {
    /// The client has too many connections, or the connection has no valid PROXY header. The value
    /// is the answer.
    Told(Problem),
    /// The connection is lost.
    Lost,
}

/// Returns the answer to a connection that exceeds a limit.
fn turned_away(full: LimitReached) -> Problem {
    match full {
        LimitReached::Address => Problem {
            limit: Some(full.setting()),
            ..Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limited",
                "too many connections from this address have not authenticated yet, try again",
            )
        },
        LimitReached::Node | LimitReached::Unauthenticated => {
            let detail = "the node has reached its maximum number of connections, try again";
            Problem::over_limit(full.setting(), detail)
        }
    }
}
