//! The admin listener: health, metrics and the admin API.

mod api;
mod channels;
mod explain;
mod health;
mod issuers;
mod key;
mod nodes;
mod openapi;
mod places;
mod publish;
mod revocations;
mod sessions;
mod trace;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use curfew_backend::BackendError;
use curfew_session::Context;
use curfew_telemetry::{Origin, Whose};
use curfew_ws::{DeferSwitch, handshake};
use http::header::ALLOW;
use http::{HeaderValue, Request, StatusCode};
use hyper::body::Incoming;
use tokio::net::TcpStream;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, warn};

use crate::config::Snapshot;
use crate::http::answers::Answers;
use crate::http::exchange::{self, Ended, Porter, Timely};
use crate::http::head::{Bounds, HeadFault};
use crate::http::span::{add_trace, name_span};
use crate::http::{Problem, Response, body};
use crate::listeners::{self, Listener};
use crate::metrics::{AnswerReason, ListenerKind, ServerMetrics};
use api::{Access, Api, Call, Caller, Operation};
use key::Key;
use places::{Place, Places};

pub use openapi::openapi;

/// Maximum time for the head of a request to arrive. A connection on which no request begins for
/// this time is closed.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum time to read the body of a request. It is also the maximum time for the handler of the
/// request, which starts after the body was read.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum time for a client to read an answer. If a client takes longer, its connection is closed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Number of bytes by which the body of a request may exceed `limits.message_bytes`, which limits
/// only the data of a publication.
const BODY_OVERHEAD_BYTES: usize = 64 * 1024;

/// The name of the setting that limits the number of connections to this listener.
const CONNECTIONS: &str = "admin.connections";

/// The admin listener.
#[derive(Debug)]
pub struct Admin {
    context: Arc<Context>,
    metrics: Arc<ServerMetrics>,
    api: Api,
    key: Key,
    answers: Answers,
    porter: Porter,
    /// `admin.connections`.
    places: Arc<Places>,
    /// `backend.redis.prefix`.
    prefix: String,
}

impl Admin {
    /// Creates an admin listener. `prefix` is `backend.redis.prefix`, and `connections` is
    /// `admin.connections`. Every other setting of the listener is read from `context`.
    pub fn new(
        context: Arc<Context>,
        metrics: Arc<ServerMetrics>,
        prefix: String,
        connections: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            context,
            metrics: Arc::clone(&metrics),
            api: Api::new(),
            key: Key::new(),
            answers: Answers::new(ListenerKind::Admin, metrics),
            porter: Porter::new(),
            places: Places::new(connections),
            prefix,
        })
    }

    /// Logs the refusals that no log line has counted yet. At most one line a minute is logged for
    /// each cause of refusals. Call this method about once a second.
    pub fn tell_rest(&self) {
        self.answers.tell_rest();
    }

    /// Accepts connections and answers their requests, until `stop` is cancelled.
    pub async fn serve(self: Arc<Self>, listener: Listener, stop: CancellationToken) {
        listeners::accept(listener, stop.clone(), |stream, peer| {
            let admin = Arc::clone(&self);
            let stop = stop.clone();
            self.context.node.spawn(async move {
                match Arc::clone(&admin.places).take().await {
                    Some(place) => admin.connection(stream, peer, place, stop).await,
                    None => admin.turn_away(stream, peer).await,
                }
            });
        })
        .await;
    }

    async fn turn_away(&self, stream: TcpStream, peer: IpAddr) {
        let detail = "the admin listener has reached its maximum number of connections";
        let problem = Problem::over_limit(CONNECTIONS, detail);
        self.answers.problem(&problem, peer);
        self.porter
            .turn_away(stream, None, problem, self.bounds())
            .await;
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        peer: IpAddr,
        place: Arc<Place>,
        stop: CancellationToken,
    ) {
        let asking = Arc::clone(&place);
        let answer = |request| {
            let admin = Arc::clone(&self);
            let place = Arc::clone(&asking);
            Box::pin(async move {
                place.serve();
                let response = admin.answer(request, peer).await;
                place.wait();
                response
            }) as _
        };
        let bounds = self.bounds();
        let serving = exchange::serve(
            Timely::new(stream, ANSWER_TIMEOUT),
            Bytes::new(),
            DeferSwitch::default(),
            bounds,
            HEAD_TIMEOUT,
            answer,
            (stop, || true),
        );
        let Ended {
            stream,
            read,
            result,
        } = tokio::select! {
            ended = serving => ended,
            () = place.given_up() => {
                // Only a connection that waits for a request is displaced, so no request is left
                // without an answer.
                self.answers.over_limit(CONNECTIONS, StatusCode::SERVICE_UNAVAILABLE, peer);
                debug!(peer = %peer, "idle admin connection closed to make room for a new connection");
                return;
            }
        };
        let mut stream = stream.into_inner();
        let Err(error) = result else {
            return exchange::part(&mut stream).await;
        };
        match HeadFault::of(&error, &read, bounds) {
            Some(fault) => {
                let problem = fault.problem(bounds);
                let reason = AnswerReason::of(problem.status, Some(problem.code));
                self.answers.refused(reason, problem.status(), peer);
                exchange::answer_and_part(&mut stream, &problem).await;
            }
            None => debug!(peer = %peer, error = %error, "admin connection lost"),
        }
    }

    /// The limits for the head of a request, from the current settings.
    fn bounds(&self) -> Bounds {
        Bounds::from(&self.context.settings.load().limits)
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>, peer: IpAddr) -> Response {
        let answered = Arc::clone(&self).handle(request).await;
        let response = answered.unwrap_or_else(Problem::into_response);
        self.answers.note(&response, peer);
        response
    }

    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Result<Response, Problem> {
        handshake::check_host(&request).map_err(|error| Problem::bad_request(error.to_string()))?;
        let (parts, body) = request.into_parts();
        let (operation, params) = match self.api.find(&parts.method, parts.uri.path()) {
            Ok(found) => found,
            Err(api::NotFound::Path) => {
                let detail = "no such path; GET /openapi.json lists them";
                return Err(Problem::new(StatusCode::NOT_FOUND, "not_found", detail));
            }
            Err(api::NotFound::Method(allowed)) => {
                let detail = format!("this path accepts only {allowed}");
                let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "bad_request", detail);
                let mut response = problem.into_response();
                if let Ok(value) = HeaderValue::from_str(&allowed) {
                    response.headers_mut().insert(ALLOW, value);
                }
                return Ok(response);
            }
        };
        let settings = Snapshot::take(&self.context);
        let caller = match operation.access {
            Access::Open => None,
            Access::Key(power) => match self.key.check(&settings.admin_keys, &parts.headers) {
                Ok(caller) => Some(Caller::with(caller, power)?),
                Err(response) => return Ok(*response),
            },
        };
        let most = settings.sessions.limits.message_bytes + BODY_OVERHEAD_BYTES;
        let body = body::read(body, most, REQUEST_TIMEOUT).await?;
        let tracer = self.context.node.metrics().tracer();
        if operation.access == Access::Open || !tracer.is_on() {
            let call = Call::new(settings, params, &parts.uri, body, caller, None);
            return operation
                .in_time((operation.handler)(Arc::clone(&self), call))
                .await;
        }
        let origin = Origin::operator(trace::origin(operation, &parts.headers, &body));
        let began = tracer.now();
        let name = format!("{} {}", operation.method, operation.path);
        let mut span = match operation.always_traced {
            true => tracer.always(name.clone(), origin.clone()),
            false => tracer.request(name.clone(), origin.clone()),
        };
        let named = caller.clone();
        let call = Call::new(settings, params, &parts.uri, body, caller, span.context());
        let handler = (operation.handler)(Arc::clone(&self), call).instrument(span.scope());
        let handled = operation.in_time(handler).await;
        let (status, code) = match &handled {
            Ok(response) => (response.status().as_u16(), None),
            Err(problem) => (problem.status, Some(problem.code)),
        };
        // If the call failed and was not sampled, a span is recorded now. The number of such spans
        // per second is limited.
        if !span.is_recorded() && status >= 400 {
            span = tracer.fault(status >= 500, name, origin, began, Whose::OURS);
        }
        trace::describe(&mut span, operation, status, code);
        if let Some(caller) = named {
            span.set("curfew.admin.key", caller.name().to_owned());
        }
        let mut response = handled.unwrap_or_else(Problem::into_response);
        let named = operation.changes() || !response.status().is_success();
        name_span(response.headers_mut(), &span);
        if let Some(trace) = span.trace().filter(|_| named) {
            add_trace(&mut response, trace, tracer.link(trace));
        }
        Ok(response)
    }
}

/// Returns the result of `work`, or a problem if `work` takes longer than [`REQUEST_TIMEOUT`].
async fn in_time<T>(work: impl Future<Output = T>) -> Result<T, Problem> {
    let late = |_| Problem::unavailable("the request took too long");
    time::timeout(REQUEST_TIMEOUT, work).await.map_err(late)
}

impl Operation {
    /// Returns the result of `work`, or a problem if `work` takes longer than [`REQUEST_TIMEOUT`].
    /// If the operation publishes, the code of the problem is `unknown_outcome`, because the
    /// publication may already have been accepted.
    async fn in_time(
        &self,
        work: impl Future<Output = Result<Response, Problem>>,
    ) -> Result<Response, Problem> {
        match in_time(work).await {
            Err(_) if self.publishes => Err(Problem::unknown_outcome(
                "the request took too long; the publication may or may not have been delivered",
            )),
            handled => handled.and_then(|handled| handled),
        }
    }
}

impl From<BackendError> for Problem {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Unavailable(_) => {
                Self::unavailable("the backend is unavailable, try again")
            }
            BackendError::UnknownOutcome(_) => {
                Self::unknown_outcome("the publication may or may not have been delivered")
            }
            BackendError::Unusable(cause) => {
                warn!(cause = %cause, "the backend gave an unusable answer");
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                Self::new(
                    status,
                    "internal",
                    "the backend gave an unusable answer; see the log",
                )
            }
        }
    }
}
