//! The public listener: `GET /ws`, the client, tickets, reports of identity providers, and the
//! paths that the caller adds by [`Extra`].
//!
//! `accept` handles a connection up to its request, and `routes` passes the request to its
//! endpoint.

mod accept;
mod client;
mod routes;

use std::sync::Arc;

use curfew_node::RelayReceiver;
use curfew_session::Context;

use crate::http::answers::Answers;
use crate::http::exchange::Porter;
use crate::identity::Reports;
use crate::listeners::tls::Tls;
use crate::metrics::{ListenerKind, ServerMetrics};
use crate::permits::Permits;
use crate::tickets::TicketEndpoint;
use crate::upgrade::Upgrades;

pub use routes::Extra;

/// The public listener.
#[derive(Debug)]
pub struct Public {
    context: Arc<Context>,
    metrics: Arc<ServerMetrics>,
    permits: Arc<Permits>,
    upgrades: Upgrades,
    tickets: Arc<TicketEndpoint>,
    reports: Arc<Reports>,
    answers: Answers,
    porter: Porter,
    tls: Option<Arc<Tls>>,
    extra: Option<Extra>,
}

impl Public {
    /// Creates a public listener. The listeners' settings are part of the settings in `context`.
    /// `extra` answers requests that are for no other endpoint.
    pub fn new(
        context: Arc<Context>,
        metrics: Arc<ServerMetrics>,
        tls: Option<Arc<Tls>>,
        extra: Option<Extra>,
    ) -> Arc<Self> {
        let connections = context.node.metrics().connections.clone();
        let permits = Permits::new(Arc::clone(&metrics), connections);
        let tickets = Arc::new(TicketEndpoint::new(
            Arc::clone(&context),
            Arc::clone(&metrics),
            Arc::clone(&permits),
        ));
        let upgrades = Upgrades::new(
            Arc::clone(&context),
            Arc::clone(&metrics),
            Arc::clone(&permits),
            Arc::clone(&tickets),
        );
        let reports = Reports::new(Arc::clone(&context), Arc::clone(&metrics));
        let public = Self {
            answers: Answers::new(ListenerKind::Public, Arc::clone(&metrics)),
            context,
            metrics,
            permits,
            upgrades,
            tickets,
            reports,
            porter: Porter::new(),
            tls,
            extra,
        };
        public.show_limits();
        Arc::new(public)
    }

    /// The receiver of messages that other nodes send to this one. The caller registers it for the
    /// backend's events.
    pub fn relay_receiver(&self) -> RelayReceiver {
        self.upgrades.relay_receiver()
    }

    /// Logs the refusals and reports that no log line has counted yet. A cause waits until the
    /// interval since its last line has passed. The caller calls this method about once a second.
    pub fn tell_rest(&self) {
        self.answers.tell_rest();
        self.reports.tell_rest();
    }

    /// Shows the limits in force in the metrics. The caller does this after it has replaced the
    /// settings.
    pub fn show_limits(&self) {
        let most = self.context.settings.load().limits.connections;
        self.metrics.connections_limit.set(most as i64);
    }
}
