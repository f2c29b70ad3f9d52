//! `POST /v1/tickets`: a ticket for a token, and at `GET /ws?ticket=` the token for the ticket.
//!
//! Browsers that can send a token neither as a subprotocol nor as the first message have the URL left,
//! where no token should be (RFC 6750 §5.3): see `curfew-auth/src/ticket.rs`.

use std::sync::Arc;

use curfew_auth::{AuthError, NewTicket, Ticket, Ticketed, VerifyError};
use curfew_backend::BackendError;
use curfew_model::json::object_text;
use curfew_model::{AuthFailure, Principal};
use curfew_node::AdmitError;
use curfew_session::Context;
use curfew_ws::{canonical_origin, handshake};
use http::header::ALLOW;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use tracing::{Instrument as _, debug};

use crate::config::{Snapshot, paths};
use crate::http::refusal::{NOT_ALLOWED, backend_away, forbidden_origin, revoked, unauthorized};
use crate::http::span::{Asked, describe, name_trace};
use crate::http::{Problem, Response, body, cors, json};
use crate::metrics::{ServerMetrics, TicketOutcome};
use crate::permits::{self, Permits};

/// The span of a request for a ticket.
const SPAN: &str = "POST /v1/tickets";

/// Largest body: room for an origin.
const MAX_BODY_BYTES: usize = 1024;

/// The body of a request.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wish {
    /// The origin of the page that the ticket is for, where a back end asks for the page.
    origin: Option<String>,
}

/// The body of the answer.
#[derive(Serialize)]
struct Given {
    ticket: String,
    /// Seconds.
    expires_in: u64,
}

/// The refusal of a ticket.
struct TicketRefusal {
    /// Its name in spans and in the log.
    reason: &'static str,
    response: Box<Response>,
}

/// The reasons for which a ticket gives no token.
#[derive(Debug)]
pub(crate) enum RedeemError {
    /// There is no such ticket, or not any more.
    NotFound(AuthError),
    /// It is for pages of another origin, and used up.
    OtherOrigin,
    /// The backend failed: the ticket may be used up or not.
    Backend(BackendError),
}

/// Gives and takes tickets.
#[derive(Debug)]
pub(crate) struct TicketEndpoint {
    context: Arc<Context>,
    metrics: Arc<ServerMetrics>,
    permits: Arc<Permits>,
}

impl TicketEndpoint {
    pub(crate) fn new(
        context: Arc<Context>,
        metrics: Arc<ServerMetrics>,
        permits: Arc<Permits>,
    ) -> Self {
        Self {
            context,
            metrics,
            permits,
        }
    }

    /// Answers a request for a ticket, or a preflight: the page is of another origin as a rule, so that its
    /// browser asks first, and shows it an answer only if that says so (Fetch §3.2).
    pub(crate) async fn answer(&self, request: Request<Incoming>, settings: &Snapshot) -> Response {
        let allowed = cors::allowed(request.headers(), &settings.origins);
        let mut response = match *request.method() {
            Method::POST => self.give_ticket(request, settings).await,
            Method::OPTIONS => cors::preflight(request.headers(), &Method::POST),
            _ => {
                let detail = "tickets are asked for by POST";
                let status = StatusCode::METHOD_NOT_ALLOWED;
                let mut response = Problem::new(status, "bad_request", detail).into_response();
                response.headers_mut().insert(ALLOW, cors::METHODS);
                response
            }
        };
        cors::share_with(allowed, response.headers_mut());
        response
    }

    async fn give_ticket(&self, request: Request<Incoming>, settings: &Snapshot) -> Response {
        let metrics = &self.metrics;
        let tracer = metrics.tracer();
        let asked = Asked::of(tracer, &request);
        let from = asked.origin.clone();
        let began = tracer.now();
        let mut span = tracer.request(SPAN, from.clone());
        let make = self.make_ticket(request, settings);
        let mut response = match make.instrument(span.scope()).await {
            Ok(given) => {
                metrics.tickets.inc(TicketOutcome::Issued);
                json(StatusCode::CREATED, &given)
            }
            Err(TicketRefusal { reason, response }) => {
                let is_ours = response.status().is_server_error();
                if !span.is_recorded() {
                    span = tracer.fault(is_ours, SPAN, from, began, asked.whose());
                }
                metrics.tickets.inc(match is_ours {
                    true => TicketOutcome::Unavailable,
                    false => TicketOutcome::Refused,
                });
                match is_ours {
                    true => span.failed(reason),
                    false => span.refused(reason),
                }
                let _entered = span.scope().entered();
                debug!(reason, "no ticket given");
                *response
            }
        };
        asked.describe(&mut span);
        describe(&mut span, "POST", paths::TICKETS, response.status());
        name_trace(&mut response, &span);
        response
    }

    async fn make_ticket(
        &self,
        request: Request<Incoming>,
        settings: &Snapshot,
    ) -> Result<Given, TicketRefusal> {
        let node = &self.context.node;
        if node.is_refusing() {
            return Err(Problem::unavailable("the node is leaving service, ask again").into());
        }
        // Within the rate of handshakes: a ticket is as much work, and leads to one.
        if !self.permits.handshake(&settings.sessions.limits) {
            let detail = "too many requests at the moment, try again";
            return Err(Problem::over_limit(permits::HANDSHAKES, detail).into());
        }
        let (head, body) = request.into_parts();
        let sent = handshake::origin(&head.headers)
            .map_err(|error| Problem::bad_request(error.to_string()))?;
        let origin = bind(sent, read(body).await?.origin)?;
        if !settings.origins.allows(origin.as_deref(), false) {
            return Err(forbidden_origin(NOT_ALLOWED).into());
        }
        let bearer = curfew_auth::bearer(&head.headers, &settings.auth)?
            .ok_or_else(AuthError::missing_token)?;
        let principal = self.verify(bearer.token()).await?;
        let ticketed = Ticketed {
            token: bearer.into_token(),
            origin,
        };
        let NewTicket { ticket, id, sealed } = ticketed.seal();
        let lifetime = settings.auth.ticket_lifetime;
        match node.keep_ticket(&principal, &id, &sealed, lifetime).await {
            Ok(()) => Ok(Given {
                ticket: ticket.expose(),
                expires_in: lifetime.as_secs(),
            }),
            Err(AdmitError::Backend(error)) => {
                debug!(error = %error, "ticket not kept");
                Err(backend_away(&error).into())
            }
            Err(error) => match revoked(&error) {
                Some(revoked) => Err(revoked.into()),
                None => Err(Problem::unavailable("no ticket at the moment, ask again").into()),
            },
        }
    }

    async fn verify(&self, token: &str) -> Result<Arc<Principal>, TicketRefusal> {
        let verified = self.context.verify(token).await;
        self.context.count_authentication(&verified);
        match verified {
            Ok(principal) => Ok(principal),
            Err(VerifyError::Refused(error)) => Err(error.into()),
            Err(VerifyError::Unknown(why)) => {
                let problem = Problem::unavailable(why.message());
                Err(problem.after(why.retry_after()).into())
            }
        }
    }

    /// Takes the token that a ticket stands for, to be used by a request with this `Origin`.
    ///
    /// # Errors
    ///
    /// There is no such ticket, or it is used up with this call; after [`RedeemError::Backend`] it may be.
    pub(crate) async fn redeem(
        &self,
        settings: &Snapshot,
        ticket: &Ticket,
        origin: Option<&str>,
    ) -> Result<String, RedeemError> {
        let node = &self.context.node;
        let (outcome, result) = match node.take_ticket(&ticket.id()).await {
            Err(error) => {
                debug!(error = %error, "ticket not taken");
                (TicketOutcome::Unavailable, Err(RedeemError::Backend(error)))
            }
            Ok(sealed) => match sealed.and_then(|sealed| ticket.open(sealed)) {
                None => {
                    let lifetime = settings.auth.ticket_lifetime.as_secs_f64();
                    // The reasons are fixed, and none is about tickets. On this one clients get another
                    // credential and come back, as they should.
                    let error = AuthError::new(
                        AuthFailure::Expired,
                        format!(
                            "the ticket is unknown, was used before or is older than {lifetime} s: get another"
                        ),
                    );
                    (TicketOutcome::NotFound, Err(RedeemError::NotFound(error)))
                }
                Some(ticketed) if ticketed.origin != origin.map(comparable) => {
                    (TicketOutcome::Refused, Err(RedeemError::OtherOrigin))
                }
                Some(ticketed) => (TicketOutcome::Redeemed, Ok(ticketed.token)),
            },
        };
        self.metrics.tickets.inc(outcome);
        result
    }
}

/// The origin that a ticket is for: that of the page that asks, or the one that a back end asks for.
/// Without any the ticket is for programs that send no origin.
fn bind(sent: Option<String>, wished: Option<String>) -> Result<Option<String>, Problem> {
    let wished = match wished {
        None => None,
        Some(origin) => Some(canonical_origin(&origin).ok_or_else(|| {
            Problem::bad_request("origin must be scheme://host or scheme://host:port")
        })?),
    };
    let sent = sent.as_deref().map(comparable);
    match (sent, wished) {
        (Some(sent), Some(wished)) if sent != wished => Err(Problem::bad_request(
            "the body's origin is another than that of the request",
        )),
        (Some(origin), _) | (None, Some(origin)) => Ok(Some(origin)),
        (None, None) => Ok(None),
    }
}

/// An `Origin` header to be compared with another. A header that names no origin, as `null` does, is equal
/// to itself: where any origin may connect, pages without one may too.
fn comparable(origin: &str) -> String {
    canonical_origin(origin).unwrap_or_else(|| origin.to_owned())
}

/// The body, which may be empty.
async fn read(body: Incoming) -> Result<Wish, Problem> {
    let body = body::read(body, MAX_BODY_BYTES, body::PUBLIC_TIMEOUT).await?;
    if body.is_empty() {
        return Ok(Wish::default());
    }
    // The error of serde could quote a token that was sent in the wrong place.
    let wish = object_text(&body).and_then(|text| serde_json::from_str(text).ok());
    wish.ok_or_else(|| Problem::bad_request("the body must be {\"origin\":\"https://…\"} or empty"))
}

impl From<Problem> for TicketRefusal {
    fn from(problem: Problem) -> Self {
        Self {
            reason: problem.code,
            response: Box::new(problem.into_response()),
        }
    }
}

impl From<AuthError> for TicketRefusal {
    fn from(error: AuthError) -> Self {
        Self {
            reason: error.failure().as_str(),
            response: Box::new(unauthorized(&error)),
        }
    }
}
