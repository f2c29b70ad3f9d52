//! `POST /v1/tickets` issues a ticket for a token. An upgrade can then send `?ticket=` in its URL
//! in place of the token.
//!
//! Some pages can send a credential only in the URL, and no token should be in a URL (RFC 6750
//! §5.3). `curfew-auth/src/ticket.rs` describes tickets.

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

/// The name of the span of a request for a ticket.
const SPAN: &str = "POST /v1/tickets";

/// Maximum size of the body of a request, in bytes. The body contains at most an origin.
const MAX_BODY_BYTES: usize = 1024;

/// The body of a request for a ticket.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wish {
    /// The origin of the page that will use the ticket, if a back end requests the ticket for the
    /// page.
    origin: Option<String>,
}

/// The body of the answer that issues a ticket.
#[derive(Serialize)]
struct Given {
    ticket: String,
    /// The ticket's lifetime in seconds.
    expires_in: u64,
}

/// The refusal of a request for a ticket.
struct TicketRefusal {
    /// The refusal's name in spans and in the log.
    reason: &'static str,
    response: Box<Response>,
}

/// The reasons that a ticket yields no token.
#[derive(Debug)]
pub(crate) enum RedeemError {
    /// The ticket is unknown, was used before or has expired.
    NotFound(AuthError),
    /// The ticket was issued for another origin. The ticket is now used up.
    OtherOrigin,
    /// The backend failed. The ticket may or may not be used up.
    Backend(BackendError),
}

/// Issues and redeems tickets.
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

    /// Answers a request for a ticket, or the preflight of such a request. The requesting page
    /// usually has another origin than the node. Its browser then sends a preflight first, and lets
    /// the page read only answers that allow the page's origin (Fetch §3.2).
    pub(crate) async fn answer(&self, request: Request<Incoming>, settings: &Snapshot) -> Response {
        let allowed = cors::allowed(request.headers(), &settings.origins);
        let mut response = match *request.method() {
            Method::POST => self.give_ticket(request, settings).await,
            Method::OPTIONS => cors::preflight(request.headers(), &Method::POST),
            _ => {
                let detail = "a request for a ticket must use the method POST";
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
                debug!(reason, "request for a ticket refused");
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
            return Err(Problem::unavailable("the node is leaving service, try again").into());
        }
        // A request for a ticket counts against the rate of handshakes, because it costs as much as
        // a handshake and is followed by one.
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
                debug!(error = %error, "ticket could not be stored");
                Err(backend_away(&error).into())
            }
            Err(error) => match revoked(&error) {
                Some(revoked) => Err(revoked.into()),
                None => Err(Problem::unavailable(
                    "the node can issue no ticket at the moment, try again",
                )
                .into()),
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

    /// Returns the token of a ticket, and uses the ticket up. `origin` is the `Origin` header of
    /// the request that sends the ticket.
    ///
    /// # Errors
    ///
    /// See [`RedeemError`]. After [`RedeemError::Backend`] the ticket may or may not be used up.
    pub(crate) async fn redeem(
        &self,
        settings: &Snapshot,
        ticket: &Ticket,
        origin: Option<&str>,
    ) -> Result<String, RedeemError> {
        let node = &self.context.node;
        let (outcome, result) = match node.take_ticket(&ticket.id()).await {
            Err(error) => {
                debug!(error = %error, "ticket could not be redeemed");
                (TicketOutcome::Unavailable, Err(RedeemError::Backend(error)))
            }
            Ok(sealed) => match sealed.and_then(|sealed| ticket.open(sealed)) {
                None => {
                    let lifetime = settings.auth.ticket_lifetime.as_secs_f64();
                    // The protocol has no reason for tickets. `Expired` is used, because it makes
                    // clients get another credential and reconnect.
                    let error = AuthError::new(
                        AuthFailure::Expired,
                        format!(
                            "the ticket is unknown, was used before or is older than {lifetime} s: request a new ticket"
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

/// Returns the origin to which a ticket is bound: the `Origin` header of the request for the
/// ticket, or the origin in its body. If the request has neither, only programs that send no
/// `Origin` header can use the ticket.
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
            "the origin in the body differs from the request's Origin header",
        )),
        (Some(origin), _) | (None, Some(origin)) => Ok(Some(origin)),
        (None, None) => Ok(None),
    }
}

/// Returns the canonical form of an `Origin` header, for comparisons. A header without a canonical
/// form, such as `null`, is returned unchanged, so pages with such an origin can use tickets too.
fn comparable(origin: &str) -> String {
    canonical_origin(origin).unwrap_or_else(|| origin.to_owned())
}

/// Reads the body of a request for a ticket. The body may be empty.
async fn read(body: Incoming) -> Result<Wish, Problem> {
    let body = body::read(body, MAX_BODY_BYTES, body::PUBLIC_TIMEOUT).await?;
    if body.is_empty() {
        return Ok(Wish::default());
    }
    // serde's error is not shown, because it could quote a token that was sent in the body by
    // mistake.
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
