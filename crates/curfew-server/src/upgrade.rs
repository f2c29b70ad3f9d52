//! The upgrade: from a request to a session's task.
//!
//! In order: draining, rate, handshake, protocol, credentials, origin, a place, ticket, token,
//! admission, 101. What a client could not read as a failed handshake, which is anything about its
//! token, is told after the 101, unless `auth.reject` says otherwise. A dependency that is down is
//! told before it, as 503.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use curfew_auth::{AuthError, Credential, Source, Ticket};
use curfew_session::{Context, Guards, Opening, Session, WireId};
use curfew_telemetry::{Span, SpanKind};
use curfew_ws::{Handshake, Upgraded, handshake};
use http::Request;
use http_body_util::Full;
use hyper::body::Incoming;
use tracing::Instrument as _;

mod credential;
mod refused;
mod span;

use crate::accept::Accepted;
use crate::listen::UNIX_PEER;
use crate::metrics::RejectReason;
use crate::refusal::backend_away;
use crate::respond::{Problem, Response};
use crate::tickets::RedeemError;
use crate::{Public, PublicSettings, permits};
use refused::{UpgradeRefusal, not_admitted};
use span::UpgradeSpan;

/// How a token is offered as a subprotocol.
const BEARER_SUBPROTOCOL: &str = "bearer.";

/// A request that was accepted: what its connection becomes once hyper lets go of it.
#[derive(Debug)]
pub(crate) struct Upgrade {
    context: Arc<Context>,
    wire: WireId,
    opening: Opening,
    guards: Guards,
    address: IpAddr,
    span: Span,
}

impl Upgrade {
    /// The session on the connection, which has the request's answer to write first.
    pub(crate) fn session(self, upgraded: Upgraded) -> Box<Session> {
        let Self {
            context,
            wire,
            opening,
            guards,
            address,
            span,
        } = self;
        let open = || Box::new(Session::new(context, upgraded, wire, opening, guards));
        let mut session = span.scope().in_scope(open);
        session.set_trace(span.context());
        if address != UNIX_PEER {
            session.set_address(address);
        }
        session
    }
}

impl Public {
    /// Answers a request for the WebSocket endpoint.
    pub(crate) async fn websocket(
        self: &Arc<Self>,
        request: Request<Incoming>,
        accepted: &Accepted,
    ) -> Response {
        let tracer = self.context.node.metrics().tracer();
        let mut span = UpgradeSpan::begin(tracer, &request, accepted);
        let log = span.whole().scope();
        let upgrade = self.upgrade(request, accepted, &mut span);
        match upgrade.instrument(log).await {
            Ok(response) => response,
            Err(refused) => {
                self.metrics.connections_rejected.inc(refused.reason);
                span.refuse(refused, accepted.client())
            }
        }
    }

    async fn upgrade(
        self: &Arc<Self>,
        mut request: Request<Incoming>,
        accepted: &Accepted,
        span: &mut UpgradeSpan<'_>,
    ) -> Result<Response, UpgradeRefusal> {
        let settings = self.settings.load_full();
        if self.context.node.is_refusing() {
            let problem = Problem::unavailable("the node is leaving service, connect again");
            return Err(UpgradeRefusal::new(RejectReason::Draining, problem));
        }
        if !self.permits.handshake() {
            let problem = Problem::over_limit(
                permits::HANDSHAKES,
                "too many handshakes at the moment, try again",
            );
            return Err(UpgradeRefusal::new(RejectReason::Rate, problem));
        }
        let offer =
            handshake::check(&request).map_err(|error| UpgradeRefusal::handshake(&error))?;
        let (wire, subprotocol) = self.negotiate(&offer)?;
        let credential = credential::of(&settings, &request, &offer);
        credential::check_origin(&settings, &offer, credential.as_ref())?;
        let connection = self.permits.connection().map_err(|full| {
            let detail = "the node has as many connections as it accepts";
            let problem = Problem::over_limit(full.setting(), detail);
            UpgradeRefusal::new(RejectReason::Limit, problem)
        })?;
        let token = match credential {
            Ok(Some(Credential::Ticket(ticket))) => {
                let redeem = span.whole().child("redeem ticket", SpanKind::Internal);
                self.redeem(&settings, &ticket, offer.origin.as_deref(), redeem)
                    .await?
                    .map(Some)
            }
            Ok(Some(Credential::Bearer(bearer))) => Ok(Some(bearer.into_token())),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        let address = accepted.client();
        let opening = self.open(&settings, wire, address, token, span).await?;

        let mut response = curfew_ws::accept(&mut request, subprotocol)
            .map_err(|error| UpgradeRefusal::handshake(&error))?;
        let guards = Guards {
            connection: Box::new(connection),
            unauthenticated: accepted
                .permit
                .lock()
                .take()
                .map(|permit| Box::new(permit) as _),
        };
        let metrics = &self.metrics;
        let name = self.context.node.hub().wires().get(wire).name();
        metrics.connections_accepted.inc(name, ());
        metrics
            .handshake_duration
            .observe(accepted.at.elapsed().as_secs_f64());
        let span = span.opened(&opening, &mut response);
        accepted.take_over(Upgrade {
            context: Arc::clone(&self.context),
            wire,
            opening,
            guards,
            address,
            // It ends when the session is open.
            span,
        });
        Ok(response.map(|_| Full::new(Bytes::new())))
    }

    /// The protocol to speak, and the subprotocol to answer with. A client that offers none gets
    /// the default one; a client that offers only others, or only a token, is refused.
    fn negotiate(
        &self,
        offer: &Handshake,
    ) -> Result<(WireId, Option<&'static str>), UpgradeRefusal> {
        let wires = self.context.node.hub().wires();
        if offer.subprotocols.is_empty() {
            return Ok((wires.default_id(), None));
        }
        let found = offer.subprotocols.iter().find_map(|name| wires.find(name));
        let Some(id) = found else {
            let only_token = offer
                .subprotocols
                .iter()
                .all(|name| name.starts_with(BEARER_SUBPROTOCOL));
            let detail = if only_token {
                "offer curfew.v1 beside the token in Sec-WebSocket-Protocol"
            } else {
                "no offered subprotocol is spoken here: offer curfew.v1 or none"
            };
            return Err(UpgradeRefusal::new(
                RejectReason::BadRequest,
                Problem::bad_request(detail),
            ));
        };
        Ok((id, Some(wires.get(id).subprotocol())))
    }

    /// The token that a ticket stands for. Any fault of the ticket is told as one of the token, except
    /// where it is used by a page of another origin.
    async fn redeem(
        &self,
        settings: &PublicSettings,
        ticket: &Ticket,
        origin: Option<&str>,
        mut span: Span,
    ) -> Result<Result<String, AuthError>, UpgradeRefusal> {
        let redeem = self.redeem_ticket(settings, ticket, origin);
        match redeem.instrument(span.scope()).await {
            Ok(token) => Ok(Ok(token)),
            Err(RedeemError::NotFound(error)) => {
                span.failed(error.failure().as_str());
                Ok(Err(error))
            }
            Err(RedeemError::OtherOrigin) => {
                span.failed("forbidden_origin");
                Err(UpgradeRefusal::forbidden_origin(
                    "the ticket is for pages of another origin",
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

    /// What the request's token, if it has one, leads to.
    async fn open(
        &self,
        settings: &PublicSettings,
        wire: WireId,
        address: IpAddr,
        token: Result<Option<String>, AuthError>,
        span: &mut UpgradeSpan<'_>,
    ) -> Result<Opening, UpgradeRefusal> {
        if matches!(token, Ok(None)) && settings.auth.accepts(Source::Message) {
            return Ok(Opening::Awaiting);
        }
        let token = token.and_then(|token| token.ok_or_else(AuthError::missing_token));
        let token = token.as_deref().map_err(AuthError::clone);
        let verified = match self.context.verify_part(token, span.whole()).await {
            Ok(verified) => verified,
            Err(error) => return not_admitted(settings, error),
        };
        span.is_of(&verified.principal);
        let address = (address != UNIX_PEER).then_some(address);
        let admit = self
            .context
            .admit_part(verified, wire, address, span.whole());
        match admit.await {
            Ok(attachment) => Ok(Opening::Admitted(attachment)),
            Err(error) => not_admitted(settings, error),
        }
    }
}
