//! Passes the requests of the public listener to their endpoints.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use curfew_ws::{HandshakeError, handshake};
use http::{Request, StatusCode};
use hyper::body::Incoming;

use super::Public;
use super::client::ClientFile;
use crate::config::{Snapshot, paths};
use crate::http::span::ClientInfo;
use crate::http::{Problem, Response, close};
use crate::listeners::UNIX_PEER;
use crate::metrics::RejectReason;
use crate::upgrade::{Accepted, Endpoint};

type ExtraAnswer = Pin<Box<dyn Future<Output = Option<Response>> + Send>>;

/// Answers requests that no endpoint of this crate answers, such as requests for the demo page of
/// `curfew dev`.
#[derive(Clone)]
pub struct Extra(Arc<dyn Fn(Request<Incoming>) -> ExtraAnswer + Send + Sync>);

impl Extra {
    /// Wraps `answer`, which returns `None` for a path that it does not serve.
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

impl Public {
    /// Answers a request. Every answer except an upgrade is the last of its connection, so that
    /// bytes after a refused upgrade are never read as another request.
    pub(super) async fn route(
        &self,
        mut request: Request<Incoming>,
        accepted: &Accepted,
        settings: Snapshot,
    ) -> Response {
        let address = accepted.client();
        request.extensions_mut().insert(ClientInfo {
            address: (address != UNIX_PEER).then_some(address),
            is_secure: self.tls.is_some(),
        });
        let endpoint = Endpoint::at(request.uri().path(), &settings);
        // If an endpoint is not configured, its path is answered like an unknown path.
        let response = match request.uri().path() {
            _ if let Some(endpoint) = endpoint => {
                let upgrade = self.upgrades.answer(request, endpoint, accepted, &settings);
                upgrade.await
            }
            _ if handshake::check_host(&request).is_err() => {
                self.rejected(RejectReason::BadRequest);
                Problem::bad_request(HandshakeError::Host.to_string()).into_response()
            }
            _ if let Some(file) = ClientFile::at(request.uri().path()) => {
                file.answer(request.method(), request.headers())
            }
            paths::CENTRIFUGE_EMULATION if settings.centrifuge.takes_commands() => {
                self.upgrades.take_commands(request, &settings).await
            }
            paths::TICKETS if settings.auth.tickets => {
                self.tickets.answer(request, &settings).await
            }
            path => match self.reports.endpoint(path, &settings) {
                Some(endpoint) => {
                    let report = self.reports.answer(endpoint, request, address, settings);
                    report.await
                }
                None => self.other(request, &settings).await,
            },
        };
        close(response)
    }

    async fn other(&self, request: Request<Incoming>, settings: &Snapshot) -> Response {
        let answer = match &self.extra {
            Some(Extra(answer)) => answer(request).await,
            None => None,
        };
        answer.unwrap_or_else(|| {
            self.rejected(RejectReason::NotFound);
            let paths = settings.server.path.join(", ");
            let detail = format!("the WebSocket endpoint is {paths}");
            Problem::new(StatusCode::NOT_FOUND, "not_found", detail).into_response()
        })
    }
}
