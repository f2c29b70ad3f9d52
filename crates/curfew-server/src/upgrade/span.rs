//! The span of an upgrade. It describes the request, its user and its outcome.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use curfew_model::Principal;
use curfew_session::{Failure, Opening};
use curfew_telemetry::{Span, Tracer, Whose};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use tracing::debug;

use super::Accepted;
use super::refused::UpgradeRefusal;
use crate::http::Response;
use crate::http::span::{Asked, describe, name_span, name_trace};

/// The span of an upgrade. It begins when the connection is accepted and ends when the session is
/// open or the request is refused.
pub(super) struct UpgradeSpan<'a> {
    tracer: &'a Tracer,
    /// The method and the endpoint.
    name: &'static str,
    asked: Asked,
    path: String,
    began: SystemTime,
    /// The principal; `None` until the client is authenticated.
    principal: Option<Arc<Principal>>,
    span: Span,
}

impl<'a> UpgradeSpan<'a> {
    /// Begins the span of this request.
    pub(super) fn begin(
        tracer: &'a Tracer,
        request: &Request<Incoming>,
        name: &'static str,
        accepted: &Accepted,
    ) -> Self {
        let asked = Asked::of(tracer, request);
        let now = tracer.now();
        let began = now.checked_sub(accepted.at.elapsed()).unwrap_or(now);
        let mut span = tracer.request(name, asked.origin.clone());
        span.began(began);
        Self {
            tracer,
            name,
            asked,
            path: request.uri().path().to_owned(),
            began,
            principal: None,
            span,
        }
    }

    /// Returns the span of the whole upgrade. It is the parent of the spans of single steps.
    pub(super) fn whole(&self) -> &Span {
        &self.span
    }

    /// Sets the principal after the client was authenticated.
    pub(super) fn is_of(&mut self, principal: &Arc<Principal>) {
        self.principal = Some(Arc::clone(principal));
    }

    /// Returns the span, for the session that takes over the connection. Also names the span in the
    /// headers of `response`.
    pub(super) fn opened<B>(
        &mut self,
        opening: &Opening,
        response: &mut http::Response<B>,
    ) -> Span {
        match opening {
            Opening::Refused(refusal) => {
                let failure = Failure::from(refusal);
                self.record(failure.is_ours);
                self.span.failed(failure.error_type);
            }
            Opening::Admitted(attachment) => {
                self.span.of_session(attachment.member().session());
            }
            Opening::Awaiting(_) => {}
        }
        self.describe(response.status());
        name_span(response.headers_mut(), &self.span);
        std::mem::take(&mut self.span)
    }

    /// Records the refusal of the request, and returns the answer. `peer` is the client's address.
    pub(super) fn refuse(mut self, refused: UpgradeRefusal, peer: IpAddr) -> Response {
        let UpgradeRefusal {
            reason,
            error_type,
            mut response,
        } = refused;
        let status = response.status();
        let is_ours = status.is_server_error();
        self.record(is_ours);
        self.describe(status);
        match is_ours {
            true => self.span.failed(error_type),
            false => self.span.refused(error_type),
        }
        let _entered = self.span.scope().entered();
        debug!(%peer, status = status.as_u16(), ?reason, "upgrade refused");
        name_trace(&mut response, &self.span);
        *response
    }

    /// If the span is not recorded, because it was not sampled, replaces it by a recorded span. The
    /// number of such spans per second is limited for each client. `is_ours` is true for a fault of
    /// the node.
    fn record(&mut self, is_ours: bool) {
        if self.span.is_recorded() {
            return;
        }
        let whose = Whose {
            user: self.principal.as_deref().map(Principal::user),
            ..self.asked.whose()
        };
        let origin = self.asked.origin.clone();
        self.span = self
            .tracer
            .fault(is_ours, self.name, origin, self.began, whose);
    }

    fn describe(&mut self, status: StatusCode) {
        if let Some(principal) = &self.principal {
            self.tracer.name_user(&mut self.span, principal.user());
        }
        self.asked.describe(&mut self.span);
        let method = self.name.split(' ').next().unwrap_or("GET");
        describe(&mut self.span, method, &self.path, status);
    }
}
