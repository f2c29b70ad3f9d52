//! The public listener's routes.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use curfew_ws::{HandshakeError, handshake};
use http::header::{CONNECTION, HeaderValue};
use http::{Request, StatusCode};
use hyper::body::Incoming;

use crate::accept::Accepted;
use crate::asked::Client;
use crate::listen::UNIX_PEER;
use crate::metrics::RejectReason;
use crate::respond::{Problem, Response};
use crate::{Public, identity, tickets};

/// The path of the WebSocket endpoint, where `server.path` has no other.
pub(crate) const WEBSOCKET: &str = "/ws";

/// Checks one of `server.path`. Fails with what is wrong.
pub(crate) fn check_path(path: &str) -> Result<(), &'static str> {
    if !path.starts_with('/') {
        return Err("must begin with /");
    }
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) || path.contains(['?', '#', '%', '*']) {
        return Err("must be a path of visible ASCII without ?, #, % and *");
    }
    if path == tickets::PATH || identity::owns(path) {
        return Err("is the path of something else of this listener");
    }
    Ok(())
}

type Answer = Pin<Box<dyn Future<Output = Option<Response>> + Send>>;

/// Answers requests that are not for the WebSocket endpoint: the demo page of `curfew dev`.
#[derive(Clone)]
pub struct Extra(Arc<dyn Fn(Request<Incoming>) -> Answer + Send + Sync>);

impl Extra {
    /// `answer` gives `None` for what it does not know.
    pub fn new<F>(answer: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Option<Response>> + Send + 'static,
    {
        Self(Arc::new(move |request| Box::pin(answer(request))))
    }
}

impl fmt::Debug for Extra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Extra")
    }
}

/// Ends the connection with this answer, unless it is an upgrade.
pub(crate) fn close(mut response: Response) -> Response {
    let close = match response.status() {
        StatusCode::SWITCHING_PROTOCOLS => return response,
        // RFC 9110 §7.8: Upgrade is named there as well.
        StatusCode::UPGRADE_REQUIRED => "upgrade, close",
        _ => "close",
    };
    let close = HeaderValue::from_static(close);
    response.headers_mut().insert(CONNECTION, close);
    response
}

impl Public {
    /// Answers a request. Whatever is not an upgrade ends the connection, so that nothing that
    /// follows a refused upgrade is ever read as another request.
    pub(crate) async fn route(
        self: &Arc<Self>,
        mut request: Request<Incoming>,
        accepted: &Accepted,
    ) -> Response {
        let address = accepted.client();
        request.extensions_mut().insert(Client {
            address: (address != UNIX_PEER).then_some(address),
            is_secure: self.tls.is_some(),
        });
        let settings = self.settings.load();
        let is_websocket = settings
            .server
            .path
            .iter()
            .any(|path| path == request.uri().path());
        drop(settings);
        // What is not configured does not exist.
        let response = match request.uri().path() {
            _ if is_websocket => self.websocket(request, accepted).await,
            _ if handshake::check_host(&request).is_err() => {
                self.rejected(RejectReason::BadRequest);
                Problem::bad_request(HandshakeError::Host.to_string()).into_response()
            }
            tickets::PATH if self.settings.load().auth.tickets => self.tickets(request).await,
            path => match self.reports.endpoint(path) {
                Some(endpoint) => self.reports.answer(endpoint, request, address).await,
                None => self.other(request).await,
            },
        };
        close(response)
    }

    async fn other(&self, request: Request<Incoming>) -> Response {
        let answer = match &self.extra {
            Some(Extra(answer)) => answer(request).await,
            None => None,
        };
        answer.unwrap_or_else(|| {
            self.rejected(RejectReason::NotFound);
            let paths = self.settings.load().server.path.join(", ");
            let detail = format!("the WebSocket endpoint is {paths}");
            Problem::new(StatusCode::NOT_FOUND, "not_found", detail).into_response()
        })
    }
}
