//! The upgrade: from a request to a session's task.
//!
//! In order: draining, rate, handshake, protocol, credentials, origin, a place, ticket, token,
//! admission, 101. What a client could not read as a failed handshake, which is anything about its
//! token, is told after the 101, unless `auth.reject` says otherwise. A dependency that is down is
//! told before it, as 503.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use curfew_auth::{AuthError, Credential, Reject, Source, Ticket, Unverified, VerifyError};
use curfew_backend::BackendError;
use curfew_model::{AuthFailure, Principal};
use curfew_node::AdmitError;
use curfew_session::{Context, Guards, Opening, Refusal, Session, WireId};
use curfew_telemetry::{Span, SpanKind, Tracer, Whose};
use curfew_ws::{Handshake, HandshakeError, Upgraded, handshake};
use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, Request, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde::Serialize;
use tracing::{Instrument as _, debug};

mod credential;

use crate::accept::Accepted;
use crate::asked::{Asked, describe};
use crate::listen::UNIX_PEER;
use crate::metrics::RejectReason;
use crate::respond::{self, Problem, Response};
use crate::tickets::RedeemError;
use crate::{Public, PublicSettings, permits};

/// How a token is offered as a subprotocol.
const BEARER_SUBPROTOCOL: &str = "bearer.";

/// What an origin that may not connect is told.
pub(crate) const NOT_ALLOWED: &str = "the Origin is not in server.allowed_origins";

/// The span of an upgrade, to any path of `server.path`. It ends when the session is open: its life is not one long span.
const SPAN: &str = "GET /ws";

/// A request that is not upgraded: its answer, how it is counted, and its name in spans.
struct UpgradeRefusal {
    reason: RejectReason,
    error_type: &'static str,
    response: Box<Response>,
}

impl UpgradeRefusal {
    fn new(reason: RejectReason, problem: Problem) -> Self {
        Self {
            reason,
            error_type: reason.as_str(),
            response: Box::new(problem.into_response()),
        }
    }

    fn handshake(error: &HandshakeError) -> Self {
        let problem = Problem::new(error.status(), error.reason(), error.to_string());
        let mut refused = Self::new(RejectReason::BadRequest, problem);
        refused.response.headers_mut().extend(error.headers());
        refused
    }

    /// It cannot be known at the moment if the token is good.
    fn unverified(why: &Unverified) -> Self {
        let problem = Problem::unavailable(why.message()).after(why.retry_after());
        Self::new(RejectReason::Unavailable, problem)
    }

    fn forbidden_origin(detail: &'static str) -> Self {
        Self::new(RejectReason::Origin, forbidden_origin(detail))
    }
}

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
        let asked = Asked::of(tracer, &request);
        let origin = asked.origin.clone();
        let path = request.uri().path().to_owned();
        let mut span = tracer.request(SPAN, origin.clone());
        let began = began(tracer, accepted);
        span.began(began);
        let log = span.scope();
        let mut verified = None;
        let upgrade = self.upgrade(request, accepted, &asked, &mut span, &mut verified);
        match upgrade.instrument(log).await {
            Ok(response) => response,
            Err(UpgradeRefusal {
                reason,
                error_type,
                response,
            }) => {
                self.metrics.connections_rejected.inc(reason);
                let is_ours = response.status().is_server_error();
                if !span.is_recorded() {
                    let whose = whose(&asked, verified.as_deref());
                    span = tracer.fault(is_ours, SPAN, origin, began, whose);
                }
                if let Some(principal) = &verified {
                    tracer.name_user(&mut span, principal.user());
                }
                asked.describe(&mut span);
                describe(&mut span, "GET", &path, response.status());
                match is_ours {
                    true => span.failed(error_type),
                    false => span.refused(error_type),
                }
                let _entered = span.scope().entered();
                debug!(
                    peer = %accepted.client(),
                    status = response.status().as_u16(),
                    ?reason,
                    "upgrade refused"
                );
                let mut response = *response;
                respond::name_trace(&mut response, &span);
                response
            }
        }
    }

    async fn upgrade(
        self: &Arc<Self>,
        mut request: Request<Incoming>,
        accepted: &Accepted,
        asked: &Asked,
        span: &mut Span,
        verified: &mut Option<Arc<Principal>>,
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
                let redeem = span.child("redeem ticket", SpanKind::Internal);
                self.redeem(&settings, &ticket, offer.origin.as_deref(), redeem)
                    .await?
                    .map(Some)
            }
            Ok(Some(Credential::Bearer(bearer))) => Ok(Some(bearer.into_token())),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        let address = accepted.client();
        let open = self.open(&settings, wire, address, token, span, verified);
        let opening = open.await?;

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
        let tracer = metrics.tracer();
        if let Opening::Refused(refusal) = &opening {
            if !span.is_recorded() {
                let origin = asked.origin.clone();
                let whose = whose(asked, verified.as_deref());
                let began = began(tracer, accepted);
                *span = tracer.fault(false, SPAN, origin, began, whose);
            }
            span.failed(refusal.reason());
        }
        if let Opening::Admitted(attachment) = &opening {
            span.of_session(attachment.member().session());
        }
        if let Some(principal) = &verified {
            tracer.name_user(span, principal.user());
        }
        asked.describe(span);
        describe(span, "GET", request.uri().path(), response.status());
        respond::name_span(response.headers_mut(), span);
        accepted.take_over(Upgrade {
            context: Arc::clone(&self.context),
            wire,
            opening,
            guards,
            address,
            // It ends when the session is open.
            span: std::mem::take(span),
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
        span: &Span,
        verified_as: &mut Option<Arc<Principal>>,
    ) -> Result<Opening, UpgradeRefusal> {
        let metrics = &self.metrics;
        let authentications = &self.context.metrics.authentications;
        if matches!(token, Ok(None)) && settings.auth.accepts(Source::Message) {
            return Ok(Opening::Awaiting);
        }
        let mut verify = span.child("verify token", SpanKind::Internal);
        let verified = match token {
            Ok(None) => Err(AuthError::missing_token().into()),
            Ok(Some(token)) => {
                let verified = self.context.verify(&token);
                verified.instrument(verify.scope()).await
            }
            Err(error) => Err(error.into()),
        };
        let principal = match verified {
            Ok(principal) => principal,
            Err(VerifyError::Unknown(why)) => {
                verify.failed(why.error_type());
                debug!(%why, "token not verified");
                return Err(UpgradeRefusal::unverified(&why));
            }
            Err(VerifyError::Refused(error)) => {
                authentications.refused(error.failure().as_str());
                verify.failed(error.failure().as_str());
                debug!(reason = error.failure().as_str(), "token refused");
                return refuse(settings, &error);
            }
        };
        authentications.accepted();
        verify.ended(metrics.tracer().now());
        *verified_as = Some(Arc::clone(&principal));
        let mut admission = span.child("admission", SpanKind::Internal);
        let admit =
            self.context
                .node
                .admit(principal, wire, (address != UNIX_PEER).then_some(address));
        let admitted = admit.instrument(admission.scope()).await;
        match &admitted {
            Err(error) => admission.failed(error.error_type()),
            Ok(attachment) => verify.of_session(attachment.member().session()),
        }
        drop(admission);
        match admitted {
            Ok(attachment) => Ok(Opening::Admitted(attachment)),
            Err(AdmitError::Backend(error)) => {
                debug!(error = %error, "session not admitted");
                Err(UpgradeRefusal::new(
                    RejectReason::Unavailable,
                    backend_away(&error),
                ))
            }
            Err(AdmitError::Draining) => {
                let problem = Problem::unavailable("the node is leaving service, connect again");
                Err(UpgradeRefusal::new(RejectReason::Draining, problem))
            }
            Err(
                error @ (AdmitError::Revoked(_)
                | AdmitError::Ended(_)
                | AdmitError::SessionLimit { .. }),
            ) => {
                debug!(error = %error, "session not admitted");
                match (settings.auth.reject, revoked(&error)) {
                    (Reject::Http, Some(error)) => refuse(settings, &error),
                    _ => Ok(Opening::Refused(Refusal::from(error))),
                }
            }
        }
    }
}

/// For the request's share of what is recorded.
fn whose<'a>(asked: &Asked, verified: Option<&'a Principal>) -> Whose<'a> {
    Whose {
        user: verified.map(Principal::user),
        ..asked.whose()
    }
}

/// When the connection was accepted.
fn began(tracer: &Tracer, accepted: &Accepted) -> SystemTime {
    let now = tracer.now();
    now.checked_sub(accepted.at.elapsed()).unwrap_or(now)
}

/// The refusal of a token that a revocation covers.
pub(crate) fn revoked(error: &AdmitError) -> Option<AuthError> {
    let disconnect = match error {
        AdmitError::Revoked(disconnect) => *disconnect,
        AdmitError::Ended(ending) if ending.is_revocation() => ending.disconnect,
        _ => return None,
    };
    let (failure, message) = curfew_session::revoked(disconnect);
    Some(AuthError::new(failure, message))
}

/// Tells a client that its token is at fault, in the configured way.
fn refuse(settings: &PublicSettings, error: &AuthError) -> Result<Opening, UpgradeRefusal> {
    match settings.auth.reject {
        Reject::Message => Ok(Opening::Refused(Refusal::token(
            error.failure(),
            error.message().to_owned(),
        ))),
        Reject::Http => Err(UpgradeRefusal {
            reason: RejectReason::Auth,
            error_type: error.failure().as_str(),
            response: Box::new(unauthorized(error)),
        }),
    }
}

/// What a client is told of the backend's being away.
pub(crate) fn backend_away(error: &BackendError) -> Problem {
    if matches!(error, BackendError::Unusable(_)) {
        tracing::warn!(error = %error, "the backend gave an unusable answer");
    }
    Problem::unavailable("the service is temporarily unavailable, try again")
}

/// 401 with the same JSON as the `auth_failed` frame.
pub(crate) fn unauthorized(error: &AuthError) -> Response {
    #[derive(Serialize)]
    struct AuthFailed<'a> {
        r#type: &'static str,
        reason: AuthFailure,
        message: &'a str,
    }
    let body = AuthFailed {
        r#type: "auth_failed",
        reason: error.failure(),
        message: error.message(),
    };
    let mut response = respond::json(StatusCode::UNAUTHORIZED, &body);
    if let Ok(value) = HeaderValue::from_str(&error.www_authenticate()) {
        response.headers_mut().insert(WWW_AUTHENTICATE, value);
    }
    response
}

/// A page of this origin may not do this.
pub(crate) fn forbidden_origin(detail: &'static str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "forbidden_origin", detail)
}
