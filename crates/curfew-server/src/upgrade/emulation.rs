//! `POST /emulation`: commands of clients whose sessions have streamed answers.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use curfew_auth::SessionKey;
use curfew_model::NodeId;
use curfew_protocol_centrifuge::{Emulation, Encoding};
use curfew_session::LimitsConfig;
use curfew_ws::frame::{self, Opcode};
use curfew_ws::{Closed, Inlet, handshake};
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderMap, Method, Request, StatusCode};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::time;

use crate::config::Snapshot;
use crate::http::refusal::{NOT_ALLOWED, forbidden_origin};
use crate::http::{Problem, Response, body, cors};

/// The content type of Protobuf.
const PROTOBUF: &[u8] = b"application/octet-stream";

/// Bytes of a request besides the message, which JSON may write with escapes.
const OVERHEAD_BYTES: usize = 1024;

/// The sessions of this node that have streamed answers, by their keys.
#[derive(Default)]
pub(crate) struct Emulated {
    sessions: Mutex<HashMap<SessionKey, Arc<Inlet>>>,
}

/// A session's entry; removed when dropped.
#[derive(Debug)]
pub(crate) struct Entry {
    emulated: Arc<Emulated>,
    key: SessionKey,
}

impl fmt::Debug for Emulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emulated")
            .field("sessions", &self.sessions.lock().len())
            .finish()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut sessions = self.emulated.sessions.lock();
        sessions.remove(&self.key);
        if sessions.is_empty() {
            // The memory of a storm is given back.
            *sessions = HashMap::new();
        }
    }
}

impl Emulated {
    /// Lets commands with this key reach a session.
    pub(super) fn enter(self: &Arc<Self>, key: SessionKey, inlet: Inlet) -> Entry {
        self.sessions.lock().insert(key, Arc::new(inlet));
        Entry {
            emulated: Arc::clone(self),
            key,
        }
    }

    /// Answers a request with commands, or its preflight.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        node: NodeId,
        settings: &Snapshot,
    ) -> Response {
        let headers = request.headers().clone();
        let taken = match *request.method() {
            Method::OPTIONS => Ok(cors::preflight(&headers, &Method::POST)),
            Method::POST => self.take(request, node, settings).await,
            _ => {
                let status = StatusCode::METHOD_NOT_ALLOWED;
                let problem = Problem::new(status, "bad_request", "commands are sent by POST");
                let mut response = problem.into_response();
                response.headers_mut().insert(ALLOW, cors::METHODS);
                Ok(response)
            }
        };
        let mut response = taken.unwrap_or_else(Problem::into_response);
        cors::share_with_credentials(&headers, &settings.origins, response.headers_mut());
        response
    }

    /// Hands commands to their session. An unknown session is answered as a known one: it may have ended
    /// a moment ago, and its client learns of that on the stream.
    async fn take(
        &self,
        request: Request<Incoming>,
        node: NodeId,
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
        let emulation = Emulation::decode(encoding, &body)
            .map_err(|fault| Problem::bad_request(format!("the body is no request: {fault}")))?;
        if emulation.data.len() > limits.message_bytes {
            return Err(body::BodyError::TooLarge(limits.message_bytes).into());
        }
        if emulation.node.parse() != Ok(node) {
            let detail = "the session is on another node: let a load balancer send all requests of a client to one";
            return Err(Problem::new(StatusCode::NOT_FOUND, "not_found", detail));
        }
        let inlet = SessionKey::parse(&emulation.session)
            .and_then(|key| self.sessions.lock().get(&key).cloned());
        if let Some(inlet) = inlet {
            let sent = inlet.send(message(encoding, &emulation.data));
            match time::timeout(body::PUBLIC_TIMEOUT, sent).await {
                Ok(Ok(()) | Err(Closed)) => {}
                Err(_) => {
                    let detail = "the session is behind with the commands before, connect again";
                    return Err(Problem::unavailable(detail));
                }
            }
        }
        let mut response = Response::default();
        *response.status_mut() = StatusCode::NO_CONTENT;
        Ok(response)
    }
}

/// The encoding of a body, by its content type.
pub(super) fn encoding(headers: &HeaderMap) -> Encoding {
    let sent = headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
    let name = sent.and_then(|sent| sent.split(|byte| *byte == b';').next());
    match name.map(<[u8]>::trim_ascii) {
        Some(name) if name.eq_ignore_ascii_case(PROTOBUF) => Encoding::Protobuf,
        _ => Encoding::Json,
    }
}

/// A message as the session reads it.
pub(super) fn message(encoding: Encoding, data: &[u8]) -> bytes::Bytes {
    let opcode = match encoding {
        Encoding::Json => Opcode::Text,
        Encoding::Protobuf => Opcode::Binary,
    };
    frame::masked(opcode, data)
}

/// Largest body of a request with commands. In JSON they are a text, in which each quotation mark takes
/// two bytes.
fn most_bytes(encoding: Encoding, limits: &LimitsConfig) -> usize {
    let message = match encoding {
        Encoding::Json => limits.message_bytes.saturating_mul(2),
        Encoding::Protobuf => limits.message_bytes,
    };
    message.saturating_add(OVERHEAD_BYTES)
}
