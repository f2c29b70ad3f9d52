//! The endpoints that open sessions: from an upgrade request to the session that takes over the
//! connection. `streams` does the same for requests for a streamed answer.
//!
//! An upgrade checks in this order: draining, rate, handshake, protocol, credentials, origin,
//! permit, ticket, token, admission. Then the answer is 101. A browser cannot read the answer to a
//! failed handshake. If the token is refused, the answer is therefore also 101, and the session
//! reports the fault to the client, unless `auth.reject` selects an HTTP answer. If the token
//! cannot be verified because the backend or the issuer's keys are unavailable, the answer is 503.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use curfew_auth::{AuthError, Credential, Source, Ticket};
use curfew_node::RelayReceiver;
use curfew_session::{Context, Credentials, Guards, LimitsConfig, Opening, WireId};
use curfew_telemetry::{Span, SpanKind};
use curfew_ws::{Handshake, handshake};
use http::Request;
use http_body_util::Full;
use hyper::body::Incoming;
use tracing::Instrument as _;

mod accepted;
mod centrifuge;
mod credential;
mod emulation;
mod refused;
mod span;
mod streams;

use crate::config::{Snapshot, paths};
use crate::http::refusal::backend_away;
use crate::http::{Problem, Response, cors};
use crate::listeners::UNIX_PEER;
use crate::metrics::{RejectReason, ServerMetrics};
use crate::permits::{self, Connection, Permits};
use crate::tickets::{RedeemError, TicketEndpoint};
pub(crate) use accepted::{Accepted, Upgrade};
use emulation::{Emulated, Emulations};
use refused::{UpgradeRefusal, not_admitted};
use span::UpgradeSpan;
use streams::StreamKind;

/// The prefix of a subprotocol that carries a token.
const BEARER_SUBPROTOCOL: &str = "bearer.";

/// An endpoint that opens sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// The native protocol over WebSocket, at a path in `server.path`.
    Native,
    /// The Centrifuge protocol over WebSocket.
    Centrifuge,
    /// The Centrifuge protocol in a streamed answer.
    Stream(StreamKind),
}

impl Endpoint {
    /// Returns the endpoint at `path`, if the settings have one there.
    pub(crate) fn at(path: &str, settings: &Snapshot) -> Option<Self> {
        if settings.server.path.iter().any(|native| native == path) {
            return Some(Self::Native);
        }
        let centrifuge = &settings.centrifuge;
        let (is_on, endpoint) = match path {
            paths::CENTRIFUGE_WEBSOCKET => (centrifuge.websocket, Self::Centrifuge),
            paths::CENTRIFUGE_HTTP_STREAM => {
                (centrifuge.http_stream, Self::Stream(StreamKind::HttpStream))
            }
            paths::CENTRIFUGE_SSE => (centrifuge.sse, Self::Stream(StreamKind::Sse)),
            _ => return None,
        };
        (centrifuge.enabled && is_on).then_some(endpoint)
    }

    /// Returns the name of the endpoint's spans. All WebSocket endpoints have the same name.
    fn span_name(self) -> &'static str {
        match self {
            Self::Native | Self::Centrifuge => "GET /ws",
            Self::Stream(StreamKind::HttpStream) => "POST /connection/http_stream",
            Self::Stream(StreamKind::Sse) => "GET /connection/sse",
        }
    }
}

/// The endpoints that open sessions.
#[derive(Debug)]
pub(crate) struct Upgrades {
    context: Arc<Context>,
    metrics: Arc<ServerMetrics>,
    permits: Arc<Permits>,
    tickets: Arc<TicketEndpoint>,
    emulated: Arc<Emulated>,
    emulations: Emulations,
}

impl Upgrades {
    pub(crate) fn new(
        context: Arc<Context>,
        metrics: Arc<ServerMetrics>,
        permits: Arc<Permits>,
        tickets: Arc<TicketEndpoint>,
    ) -> Self {
        let emulated = Emulated::new(Arc::clone(&metrics));
        let emulations = Emulations::new(
            Arc::clone(&context.node),
            Arc::clone(&permits),
            Arc::clone(&metrics),
            Arc::clone(&emulated),
        );
        Self {
            context,
            metrics,
            permits,
            tickets,
            emulated,
            emulations,
        }
    }

    /// Returns the receiver of commands that other nodes relay to sessions of this node.
    pub(crate) fn relay_receiver(&self) -> RelayReceiver {
        let emulated = Arc::clone(&self.emulated);
        RelayReceiver::new(move |message| emulated.take_relayed(&message))
    }

    /// Answers a request that carries commands for a session with a streamed answer.
    pub(crate) async fn take_commands(
        &self,
        request: Request<Incoming>,
        settings: &Snapshot,
    ) -> Response {
        self.emulations.answer(request, settings).await
    }

    /// Answers a request to an endpoint that opens sessions.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        endpoint: Endpoint,
        accepted: &Accepted,
        settings: &Snapshot,
    ) -> Response {
        let Endpoint::Stream(kind) = endpoint else {
            return self
                .open_session(request, endpoint, accepted, settings)
                .await;
        };
        let page = request.headers().clone();
        let mut response = match streams::answer_aside(&request, kind) {
            Some(response) => response,
            None => {
                self.open_session(request, endpoint, accepted, settings)
                    .await
            }
        };
        cors::share_with_credentials(&page, &settings.origins, response.headers_mut());
        response
    }

    /// Opens a session on the connection of a request, or refuses the request.
    async fn open_session(
        &self,
        request: Request<Incoming>,
        endpoint: Endpoint,
        accepted: &Accepted,
        settings: &Snapshot,
    ) -> Response {
        let tracer = self.context.node.metrics().tracer();
        let mut span = UpgradeSpan::begin(tracer, &request, endpoint.span_name(), accepted);
        let log = span.whole().scope();
        let opened = async {
            match endpoint {
                Endpoint::Stream(kind) => {
                    let stream = self.stream(request, kind, accepted, settings, &mut span);
                    stream.await
                }
                Endpoint::Native | Endpoint::Centrifuge => {
                    let upgrade = self.upgrade(request, endpoint, accepted, settings, &mut span);
                    upgrade.await
                }
            }
        };
        match opened.instrument(log).await {
            Ok(response) => response,
            Err(refused) => {
                self.metrics.connections_rejected.inc(refused.reason);
                span.refuse(refused, accepted.client())
            }
        }
    }

    async fn upgrade(
        &self,
        mut request: Request<Incoming>,
        endpoint: Endpoint,
        accepted: &Accepted,
        settings: &Snapshot,
        span: &mut UpgradeSpan<'_>,
    ) -> Result<Response, UpgradeRefusal> {
        let limits = &settings.sessions.limits;
        self.check_service(limits)?;
        if endpoint == Endpoint::Centrifuge {
            centrifuge::tolerate(&mut request);
        }
        let offer =
            handshake::check(&request).map_err(|error| UpgradeRefusal::handshake(&error))?;
        let (wire, subprotocol) = match endpoint {
            Endpoint::Native => self.negotiate(&offer)?,
            Endpoint::Centrifuge | Endpoint::Stream(_) => {
                let wires = self.context.node.hub().wires();
                let chosen = centrifuge::negotiate(wires, &offer, request.uri().query());
                chosen.ok_or_else(not_spoken)?
            }
        };
        let credential = credential::of(settings, &request, &offer);
        let (connection, token) = self.claim(settings, &offer, credential, span).await?;
        let address = accepted.client();
        let opening = self.open(settings, wire, address, token, span).await?;

        let mut response = curfew_ws::accept(&mut request, subprotocol)
            .map_err(|error| UpgradeRefusal::handshake(&error))?;
        let span = span.opened(&opening, &mut response);
        self.take_over(
            Upgrade {
                context: Arc::clone(&self.context),
                wire,
                opening,
                guards: guards(connection, accepted),
                address,
                // The span ends when `Upgrade::session` has created the session.
                span,
                stream: None,
            },
            accepted,
        );
        Ok(response.map(|_| Full::new(Bytes::new())))
    }

    /// Refuses a request if the node is draining, or if the rate of handshakes is exceeded.
    fn check_service(&self, limits: &LimitsConfig) -> Result<(), UpgradeRefusal> {
        if self.context.node.is_refusing() {
            let problem = Problem::unavailable("the node is leaving service, connect again");
            return Err(UpgradeRefusal::new(RejectReason::Draining, problem));
        }
        if !self.permits.handshake(limits) {
            let problem = Problem::over_limit(
                permits::HANDSHAKES,
                "too many handshakes at the moment, try again",
            );
            return Err(UpgradeRefusal::new(RejectReason::Rate, problem));
        }
        Ok(())
    }

    /// Checks the origin of a request and takes a permit for its connection. Returns the permit,
    /// and the token of the request's credential or the credential's fault.
    async fn claim(
        &self,
        settings: &Snapshot,
        offer: &Handshake,
        credential: Result<Option<Credential>, AuthError>,
        span: &UpgradeSpan<'_>,
    ) -> Result<(Connection, Result<Option<String>, AuthError>), UpgradeRefusal> {
        credential::check_origin(settings, offer, credential.as_ref())?;
        // The permit is taken before the ticket is redeemed, so that a full node does not use up
        // the ticket.
        let connection = self.place(&settings.sessions.limits)?;
        let origin = offer.origin.as_deref();
        let token = self.token(settings, credential, origin, span).await?;
        Ok((connection, token))
    }

    /// Takes a permit for the connection.
    fn place(&self, limits: &LimitsConfig) -> Result<Connection, UpgradeRefusal> {
        self.permits.connection(limits).map_err(|full| {
            let detail = "the node has reached its maximum number of connections";
            let problem = Problem::over_limit(full.setting(), detail);
            UpgradeRefusal::new(RejectReason::Limit, problem)
        })
    }

    /// Returns the token of a request's credential, or the fault of the credential. A ticket is
    /// redeemed for its token.
    async fn token(
        &self,
        settings: &Snapshot,
        credential: Result<Option<Credential>, AuthError>,
        origin: Option<&str>,
        span: &UpgradeSpan<'_>,
    ) -> Result<Result<Option<String>, AuthError>, UpgradeRefusal> {
        Ok(match credential {
            Ok(Some(Credential::Ticket(ticket))) => {
                let redeem = span.whole().child("redeem ticket", SpanKind::Internal);
                let redeemed = self.redeem(settings, &ticket, origin, redeem).await?;
                redeemed.map(Some)
            }
            Ok(Some(Credential::Bearer(bearer))) => Ok(Some(bearer.into_token())),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        })
    }

    /// Counts the upgrade, and lets the session take over the connection after the request.
    fn take_over(&self, upgrade: Upgrade, accepted: &Accepted) {
        let metrics = &self.metrics;
        let name = self.context.node.hub().wires().get(upgrade.wire).name();
        metrics.connections_accepted.inc(name, ());
        metrics
            .handshake_duration
            .observe(accepted.at.elapsed().as_secs_f64());
        accepted.take_over(upgrade);
    }

    /// Chooses the protocol of the session, and the subprotocol for the answer. If the client
    /// offers no subprotocol, it gets the default protocol. If it offers only unknown subprotocols,
    /// or only a token, it is refused.
    fn negotiate(
        &self,
        offer: &Handshake,
    ) -> Result<(WireId, Option<&'static str>), UpgradeRefusal> {
        let wires = self.context.node.hub().wires();
        if offer.subprotocols.is_empty() {
            return Ok((wires.default_id(), None));
        }
        let found = offer.subprotocols.iter().find_map(|name| wires.find(name));
        let native = found.filter(|id| !wires.get(*id).rules().opens_by_command);
        let Some(id) = native else {
            let only_token = offer
                .subprotocols
                .iter()
                .all(|name| name.starts_with(BEARER_SUBPROTOCOL));
            let detail = if only_token {
                "offer curfew.v1 as well as the token in Sec-WebSocket-Protocol"
            } else {
                "no offered subprotocol is supported: offer curfew.v1 or no subprotocol"
            };
            return Err(UpgradeRefusal::new(
                RejectReason::BadRequest,
                Problem::bad_request(detail),
            ));
        };
        Ok((id, Some(wires.get(id).subprotocol())))
    }

    /// Redeems a ticket for its token. A ticket that is not found counts as a fault of the token.
    /// If the ticket was issued for another origin, or if the backend fails, the request is
    /// refused.
    async fn redeem(
        &self,
        settings: &Snapshot,
        ticket: &Ticket,
        origin: Option<&str>,
        mut span: Span,
    ) -> Result<Result<String, AuthError>, UpgradeRefusal> {
        let redeem = self.tickets.redeem(settings, ticket, origin);
        match redeem.instrument(span.scope()).await {
            Ok(token) => Ok(Ok(token)),
            Err(RedeemError::NotFound(error)) => {
                span.failed(error.failure().as_str());
                Ok(Err(error))
            }
            Err(RedeemError::OtherOrigin) => {
                span.failed("forbidden_origin");
                Err(UpgradeRefusal::forbidden_origin(
                    "the ticket was issued for pages of another origin",
                ))
            }
            Err(RedeemError::Backend(error)) => {
                span.failed(error.error_type());
                Err(UpgradeRefusal::new(
                    RejectReason::Unavailable,
                    backend_away(&error),
                ))
            }
        }
    }

    /// Decides how the session opens: the session is admitted by the request's token, awaits a
    /// token from the client, or tells the client the reason of its refusal.
    async fn open(
        &self,
        settings: &Snapshot,
        wire: WireId,
        address: IpAddr,
        token: Result<Option<String>, AuthError>,
        span: &mut UpgradeSpan<'_>,
    ) -> Result<Opening, UpgradeRefusal> {
        let takes_message = settings.auth.accepts(Source::Message);
        let rules = self.context.node.hub().wires().get(wire).rules();
        // In this protocol, a command of the client opens the session. The token of the request is
        // stored until this command arrives.
        if rules.opens_by_command {
            return Ok(Opening::Awaiting(Credentials {
                of_request: token.transpose(),
                takes_message,
            }));
        }
        let has_none = matches!(token, Ok(None));
        if has_none && takes_message {
            return Ok(Opening::Awaiting(Credentials {
                of_request: None,
                takes_message,
            }));
        }
        let verified = match settings.sessions.anonymous.filter(|_| has_none) {
            Some(lifetime) => self.context.anonymous_part(lifetime, span.whole()).await,
            None => {
                let token = token.and_then(|token| token.ok_or_else(AuthError::missing_token));
                let token = token.as_deref().map_err(AuthError::clone);
                self.context.verify_part(token, span.whole()).await
            }
        };
        let verified = match verified {
            Ok(verified) => verified,
            Err(error) => return not_admitted(settings, error),
        };
        span.is_of(&verified.principal);
        let address = (address != UNIX_PEER).then_some(address);
        let limit = settings.sessions.user_limit();
        let admit = self
            .context
            .admit_part(verified, wire, address, limit, span.whole());
        match admit.await {
            Ok(attachment) => Ok(Opening::Admitted(attachment)),
            Err(error) => not_admitted(settings, error),
        }
    }
}

/// Returns the permits of a session: one that it holds until it ends, and one that it holds until
/// it authenticates.
fn guards(connection: Connection, accepted: &Accepted) -> Guards {
    Guards {
        connection: Box::new(connection),
        unauthenticated: accepted.take_permit().map(|permit| Box::new(permit) as _),
    }
}

/// Returns the refusal of a request for a protocol that was enabled by a reload. The node supports
/// the protocol only after a restart.
fn not_spoken() -> UpgradeRefusal {
    let problem = Problem::unavailable("the node supports this protocol only after a restart");
    UpgradeRefusal::new(RejectReason::Unavailable, problem)
}
