//! `POST /emulation`: commands of clients that receive from their session in a streamed answer.
//!
//! A client may send its commands to any node. If the session is on another node, this node
//! encrypts the commands with the session's key and relays them to the node that the request names.

mod familiar;
mod replays;
mod sessions;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use curfew_auth::SessionKey;
use curfew_backend::Relayed;
use curfew_model::NodeId;
use curfew_node::Node;
use curfew_protocol_centrifuge::{Emulation, Encoding};
use curfew_session::LimitsConfig;
use curfew_ws::{Closed, handshake};
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderMap, Method, Request, StatusCode};
use hyper::body::Incoming;
use tokio::time;
use tracing::debug;

use crate::config::Snapshot;
use crate::http::refusal::{NOT_ALLOWED, forbidden_origin};
use crate::http::{Problem, Response, body, cors};
use crate::metrics::{EmulationOutcome, ServerMetrics};
use crate::permits::{self, Permits};
use familiar::Familiar;
pub(super) use sessions::frame as message;
pub(crate) use sessions::{Emulated, Entry};

/// The content type of Protobuf.
const PROTOBUF: &[u8] = b"application/octet-stream";

/// Number of bytes that the body of a request may have in addition to its commands.
const OVERHEAD_BYTES: usize = 1024;

/// The endpoint for commands.
#[derive(Debug)]
pub(super) struct Emulations {
    node: Arc<Node>,
    permits: Arc<Permits>,
    metrics: Arc<ServerMetrics>,
    emulated: Arc<Emulated>,
    familiar: Familiar,
    /// The number of the next message that this node relays.
    next: AtomicU64,
}

impl Emulations {
    pub(super) fn new(
        node: Arc<Node>,
        permits: Arc<Permits>,
        metrics: Arc<ServerMetrics>,
        emulated: Arc<Emulated>,
    ) -> Self {
        Self {
            node,
            permits,
            metrics,
            emulated,
            familiar: Familiar::default(),
            next: AtomicU64::new(1),
        }
    }

    /// Answers a request with commands, or the preflight of such a request.
    pub(super) async fn answer(&self, request: Request<Incoming>, settings: &Snapshot) -> Response {
        let headers = request.headers().clone();
        let taken = match *request.method() {
            Method::OPTIONS => Ok(cors::preflight(&headers, &Method::POST)),
            Method::POST => self.take(request, settings).await,
            _ => {
                let status = StatusCode::METHOD_NOT_ALLOWED;
                let problem = Problem::new(
                    status,
                    "bad_request",
                    "a request with commands must use the method POST",
                );
                let mut response = problem.into_response();
                response.headers_mut().insert(ALLOW, cors::METHODS);
                Ok(response)
            }
        };
        let mut response = taken.unwrap_or_else(Problem::into_response);
        cors::share_with_credentials(&headers, &settings.origins, response.headers_mut());
        response
    }

    /// Passes the commands of a request to their session. The answer for an unknown session is the
    /// same as for a known one: the session may have just ended, and the end of the stream then
    /// tells the client.
    async fn take(
        &self,
        request: Request<Incoming>,
        settings: &Snapshot,
    ) -> Result<Response, Problem> {
        let (head, body) = request.into_parts();
        let origin = handshake::origin(&head.headers)
            .map_err(|error| Problem::bad_request(error.to_string()))?;
        if !settings.origins.allows(origin.as_deref(), false) {
            return Err(forbidden_origin(NOT_ALLOWED));
        }
        let limits = &settings.sessions.limits;
        let encoding = encoding(&head.headers);
        let body = body::read(body, most_bytes(encoding, limits), body::PUBLIC_TIMEOUT).await?;
        let emulation = Emulation::decode(encoding, &body).map_err(|fault| {
            Problem::bad_request(format!("the body is not a valid request: {fault}"))
        })?;
        if emulation.data.len() > limits.message_bytes {
            return Err(body::BodyError::TooLarge(limits.message_bytes).into());
        }
        let outcome = self.hand_over(encoding, &emulation, limits).await;
        self.metrics.emulation_requests.inc(outcome);
        let problem = match outcome {
            EmulationOutcome::Local | EmulationOutcome::Relayed | EmulationOutcome::Unknown => {
                let mut response = Response::default();
                *response.status_mut() = StatusCode::NO_CONTENT;
                return Ok(response);
            }
            EmulationOutcome::NoNode => {
                let detail = "the session's node is not running, connect again";
                Problem::new(StatusCode::NOT_FOUND, "not_found", detail)
            }
            EmulationOutcome::Behind => Problem::unavailable(
                "the session has not accepted its earlier commands in time, connect again",
            ),
            EmulationOutcome::Rate => Problem::over_limit(
                permits::HANDSHAKES,
                "too many requests for sessions of other nodes at the moment, try again",
            ),
            EmulationOutcome::Unavailable => Problem::unavailable(
                "the session's node cannot be reached: the commands may have been executed",
            ),
        };
        Err(problem)
    }

    /// Passes commands to their session, on this node or on another node.
    async fn hand_over(
        &self,
        encoding: Encoding,
        emulation: &Emulation<'_>,
        limits: &LimitsConfig,
    ) -> EmulationOutcome {
        let Ok(node) = emulation.node.parse() else {
            return EmulationOutcome::NoNode;
        };
        let key = SessionKey::parse(&emulation.session);
        match key {
            Some(key) if node == self.node.id() => {
                self.take_here(&key, encoding, &emulation.data).await
            }
            Some(key) => {
                let content = sessions::written(encoding, &emulation.data);
                self.relay(node, &key, &content, limits).await
            }
            None => EmulationOutcome::Unknown,
        }
    }

    async fn take_here(
        &self,
        key: &SessionKey,
        encoding: Encoding,
        data: &[u8],
    ) -> EmulationOutcome {
        let Some(session) = self.emulated.get(key.id()) else {
            return EmulationOutcome::Unknown;
        };
        let sent = session.send(message(encoding, data));
        match time::timeout(body::PUBLIC_TIMEOUT, sent).await {
            Ok(Ok(())) => EmulationOutcome::Local,
            Ok(Err(Closed)) => EmulationOutcome::Unknown,
            Err(_) => EmulationOutcome::Behind,
        }
    }

    /// Relays commands to the node of their session.
    async fn relay(
        &self,
        node: NodeId,
        key: &SessionKey,
        content: &[u8],
        limits: &LimitsConfig,
    ) -> EmulationOutcome {
        let id = key.id();
        if !self.familiar.has(id) && !self.permits.first_commands(limits) {
            return EmulationOutcome::Rate;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let sealed = key.seal(self.node.id(), number, content);
        // This node's lease is not checked, because the session's node executes the commands under
        // its own lease.
        let relay = &self.node.backends().relay;
        match relay.relay(node, sealed.into()).await {
            Ok(Some(Relayed::Taken)) => {
                self.familiar.add(id);
                EmulationOutcome::Relayed
            }
            Ok(Some(Relayed::Unknown)) => {
                self.familiar.remove(id);
                EmulationOutcome::Unknown
            }
            Ok(Some(Relayed::Refused)) => EmulationOutcome::Behind,
            Ok(None) => EmulationOutcome::NoNode,
            Err(error) => {
                debug!(error = %error, node = %node, "commands not relayed to their session's node");
                EmulationOutcome::Unavailable
            }
        }
    }
}

/// Returns the encoding of a body by its content type. JSON is the default.
pub(super) fn encoding(headers: &HeaderMap) -> Encoding {
    let sent = headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
    let name = sent.and_then(|sent| sent.split(|byte| *byte == b';').next());
    match name.map(<[u8]>::trim_ascii) {
        Some(name) if name.eq_ignore_ascii_case(PROTOBUF) => Encoding::Protobuf,
        _ => Encoding::Json,
    }
}

/// Returns the maximum size of the body of a request with commands, in bytes. In the JSON encoding,
/// the commands are a JSON string, in which each quotation mark takes two bytes.
fn most_bytes(encoding: Encoding, limits: &LimitsConfig) -> usize {
    let message = match encoding {
        Encoding::Json => limits.message_bytes.saturating_mul(2),
        Encoding::Protobuf => limits.message_bytes,
    };
    message.saturating_add(OVERHEAD_BYTES)
}
