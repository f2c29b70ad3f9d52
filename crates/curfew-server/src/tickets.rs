//! `POST /v1/tickets`: a ticket for a token, and at `GET /ws?ticket=` the token for the ticket.
//!
//! Browsers that can send a token neither as a subprotocol nor as the first message have the URL left,
//! where no token should be (RFC 6750 §5.3): see `curfew-auth/src/ticket.rs`.

use std::sync::Arc;

use curfew_auth::{AuthError, NewTicket, Ticket, Ticketed, VerifyError};
use curfew_backend::BackendError;
use curfew_model::{AuthFailure, Principal};
use curfew_node::AdmitError;
use curfew_telemetry::{Origin, TicketOutcome};
use curfew_ws::{canonical_origin, handshake};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW, HeaderMap, HeaderValue, VARY,
};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use tracing::{Instrument as _, debug};

use crate::respond::{self, Problem, Response};
use crate::upgrade::{
    NOT_ALLOWED, backend_away, describe, forbidden_origin, revoked, traceparent, unauthorized,
};
use crate::{Public, Settings};

/// The path.
pub(crate) const PATH: &str = "/v1/tickets";

/// The span of a request for a ticket.
const SPAN: &str = "POST /v1/tickets";

/// Largest body: room for an origin.
const MAX_BODY_BYTES: usize = 1024;

/// The methods there are, as `Allow` has them.
const METHODS: HeaderValue = HeaderValue::from_static("POST, OPTIONS");

/// For how long a browser may remember that it may ask, in seconds. Configurations change.
const PREFLIGHT_SECONDS: HeaderValue = HeaderValue::from_static("600");

/// What the body may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wish {
    /// The origin of the page that the ticket is for, where a back end asks for the page.
    origin: Option<String>,
}

/// What is given.
#[derive(Serialize)]
struct Given {
    ticket: String,
    /// Seconds.
    expires_in: u64,
}

/// Why no ticket is given.
struct Refused {
    /// Its name in spans and in the log.
    reason: &'static str,
    response: Box<Response>,
}

/// Why a ticket gives no token.
#[derive(Debug)]
pub(crate) enum RedeemError {
    /// There is no such ticket, or not any more.
    NotFound(AuthError),
    /// It is for pages of another origin, and used up.
    OtherOrigin,
    /// Whether there is one is not known, and whether there still is.
    Backend(BackendError),
}

impl Public {
    /// Answers whoever asks for a ticket, or whether it may: the page is of another origin as a rule, so
    /// that its browser asks first, and shows it an answer only if that says so (Fetch §3.2).
    pub(crate) async fn tickets(self: &Arc<Self>, request: Request<Incoming>) -> Response {
        let settings = self.settings.load_full();
        let allowed = handshake::origin(request.headers())
            .ok()
            .flatten()
            .filter(|origin| settings.origins.allows(Some(origin), false));
        let mut response = match *request.method() {
            Method::POST => self.give_ticket(request, &settings).await,
            Method::OPTIONS => preflight(),
            _ => {
                let detail = "tickets are asked for by POST";
                let status = StatusCode::METHOD_NOT_ALLOWED;
                let mut response = Problem::new(status, "bad_request", detail).into_response();
                response.headers_mut().insert(ALLOW, METHODS);
                response
            }
        };
        share_with(allowed, response.headers_mut());
        response
    }

    async fn give_ticket(&self, request: Request<Incoming>, settings: &Settings) -> Response {
        let metrics = self.context.node.metrics();
        let tracer = metrics.tracer();
        let from = Origin::client(traceparent(request.headers()));
        let began = tracer.now();
        let mut span = tracer.request(SPAN, from);
        let make = self.make_ticket(request, settings);
        let response = match make.instrument(span.scope()).await {
            Ok(given) => {
                metrics.tickets.inc(TicketOutcome::Issued);
                respond::json(StatusCode::CREATED, &given)
            }
            Err(Refused { reason, response }) => {
                let is_ours = response.status().is_server_error();
                if !span.is_recorded() {
                    span = match is_ours {
                        true => tracer.failure(SPAN, from, began),
                        false => tracer.refusal(SPAN, from, began),
                    };
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
        describe(&mut span, "POST", PATH, response.status());
        response
    }

    async fn make_ticket(
        &self,
        request: Request<Incoming>,
        settings: &Settings,
    ) -> Result<Given, Refused> {
        let node = &self.context.node;
        if node.is_refusing() {
            return Err(Problem::unavailable("the node is leaving service, ask again").into());
        }
        // With the handshakes: as much work, and one for each.
        if !self.permits.handshake() {
            return Err(Problem::unavailable("too many requests at the moment, try again").into());
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
            // Nothing else keeps a ticket from being kept.
            Err(_) => Err(revoked().into()),
        }
    }

    async fn verify(&self, token: &str) -> Result<Arc<Principal>, Refused> {
        let authentications = &self.context.node.metrics().authentications;
        match self.context.verify(token).await {
            Ok(principal) => {
                authentications.accepted();
                Ok(principal)
            }
            Err(VerifyError::Refused(error)) => {
                authentications.refused(error.failure().as_str());
                Err(error.into())
            }
            Err(VerifyError::Unknown(why)) => Err(Problem::unavailable(why.message()).into()),
        }
    }

    /// Takes the token that a ticket stands for, to be used by a request with this `Origin`. Whatever
    /// comes of it, the ticket is used up, or may be.
    pub(crate) async fn redeem_ticket(
        &self,
        settings: &Settings,
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
                    // The reasons are fixed, and none is about tickets. By this one clients get
                    // another credential and come back, which is what is to be done.
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
        node.metrics().tickets.inc(outcome);
        result
    }
}

/// The origin that a ticket is for: that of the page that asks, or that the back end asks for, which is
/// no page. Without any it is for what is no page either.
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

/// An `Origin` header to be compared with another. One that names no origin, as `null` does, is equal
/// to itself: where any origin may connect, pages that have none may too.
fn comparable(origin: &str) -> String {
    canonical_origin(origin).unwrap_or_else(|| origin.to_owned())
}

/// The body, which may be empty.
async fn read(body: Incoming) -> Result<Wish, Problem> {
    let body = match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            return Err(Problem::new(
                status,
                "bad_request",
                "the body is over 1 KiB",
            ));
        }
        Err(_) => return Err(Problem::bad_request("the body broke off")),
    };
    if body.is_empty() {
        return Ok(Wish::default());
    }
    // What serde says of it could quote a token that was sent in the wrong place.
    serde_json::from_slice(&body)
        .map_err(|_| Problem::bad_request("the body must be {\"origin\":\"https://…\"} or empty"))
}

/// The answer to a browser that asks whether a page may ask; [`share_with`] says whether.
fn preflight() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(ALLOW, METHODS);
    headers.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("POST"),
    );
    // Not by `*`, which never means Authorization.
    headers.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("authorization, content-type"),
    );
    headers.insert(ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS);
    response
}

/// Lets pages of this origin read the answer, errors included. Never with credentials: a cookie gets
/// no ticket.
fn share_with(origin: Option<String>, headers: &mut HeaderMap) {
    headers.insert(VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = origin.and_then(|origin| HeaderValue::from_str(&origin).ok()) else {
        return;
    };
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(
        ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("Retry-After, WWW-Authenticate"),
    );
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self {
            reason: problem.code,
            response: Box::new(problem.into_response()),
        }
    }
}

impl From<AuthError> for Refused {
    fn from(error: AuthError) -> Self {
        Self {
            reason: error.failure().as_str(),
            response: Box::new(unauthorized(&error)),
        }
    }
}
