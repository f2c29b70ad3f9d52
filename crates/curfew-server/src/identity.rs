//! The endpoints for reports of identity providers, and the endpoint by which the holder of a token
//! revokes it.
//!
//! Each endpoint has a file: `logout`, `events`, `global_revocation` and `revoke`. `report` defines
//! the steps that all reports go through. They use `unverified` (limits addresses that send reports
//! which cannot be verified), `form` (reads the body), `kept` (stores reports until the issuer's
//! keys arrive), `end_access` (writes the revocations) and `refusal` (answers reports without
//! effect).

mod end_access;
mod events;
mod form;
mod global_revocation;
mod kept;
mod logout;
mod refusal;
mod report;
mod revoke;
mod unverified;

use std::net::IpAddr;
use std::sync::Arc;

use curfew_auth::EventStream;
use curfew_session::Context;
use http::Request;
use hyper::body::Incoming;

use crate::config::{Snapshot, paths};
use crate::http::Response;
use crate::metrics::ServerMetrics;
use kept::Kept;
use unverified::Unverified;

/// A configured endpoint of this module.
pub(crate) enum Endpoint {
    /// OpenID Connect Back-Channel Logout.
    Logout,
    /// Global Token Revocation.
    GlobalRevocation,
    /// Revocation of a token by its holder (RFC 7009).
    TokenRevocation,
    /// Security events that an issuer pushes (RFC 8935).
    Events {
        /// The issuer's configured name.
        issuer: String,
        stream: EventStream,
    },
}

/// Answers reports and token revocations, and ends access as they request.
#[derive(Debug)]
pub(crate) struct Reports {
    context: Arc<Context>,
    metrics: Arc<ServerMetrics>,
    unverified: Unverified,
    kept: Kept,
}

impl Reports {
    pub(crate) fn new(context: Arc<Context>, metrics: Arc<ServerMetrics>) -> Arc<Self> {
        Arc::new(Self {
            context,
            metrics,
            unverified: Unverified::default(),
            kept: Kept::default(),
        })
    }

    /// Logs the refused, stored and lost reports that no log line has counted yet. A line is logged
    /// only if the last line of its cause is at least a minute old.
    pub(crate) fn tell_rest(&self) {
        self.unverified.tell_rest();
        self.kept.tell_rest();
    }

    /// Returns the endpoint at `path`, if it is configured.
    pub(crate) fn endpoint(&self, path: &str, settings: &Snapshot) -> Option<Endpoint> {
        let authenticator = &self.context.authenticator;
        match path {
            paths::LOGOUT => authenticator.accepts_logout().then_some(Endpoint::Logout),
            paths::GLOBAL_REVOCATION => {
                let accepts = authenticator.accepts_global_revocation();
                accepts.then_some(Endpoint::GlobalRevocation)
            }
            paths::TOKEN_REVOCATION => {
                let accepts = settings.auth.token_revocation;
                accepts.then_some(Endpoint::TokenRevocation)
            }
            _ => {
                let issuer = path.strip_prefix(paths::EVENTS)?;
                let stream = authenticator.event_stream(issuer)?;
                Some(Endpoint::Events {
                    issuer: issuer.to_owned(),
                    stream,
                })
            }
        }
    }

    /// Answers a request from `address` to `endpoint`.
    pub(crate) async fn answer(
        self: &Arc<Self>,
        endpoint: Endpoint,
        request: Request<Incoming>,
        address: IpAddr,
        settings: Snapshot,
    ) -> Response {
        let delivery = self.delivery(&request, address, settings);
        match endpoint {
            Endpoint::Logout => self.backchannel_logout(request, &delivery).await,
            Endpoint::GlobalRevocation => self.global_revocation(request, &delivery).await,
            Endpoint::TokenRevocation => self.token_revocation(request, &delivery).await,
            Endpoint::Events { issuer, stream } => {
                let event = self.security_event(issuer, stream, request, &delivery);
                event.await
            }
        }
    }
}
