//! The public listener: upgrades, the JavaScript client, tickets, reports of identity providers,
//! and the further endpoints of [`Extra`].
//!
//! `accept` accepts connections and reads their requests, and `routes` passes each request to its
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
    /// Creates a public listener. Its settings are read from `context`. `extra` answers requests
    /// whose path belongs to no other endpoint.
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

    /// Returns the receiver of messages that other nodes send to this node. The caller must
    /// register it for the backend's events.
    pub fn relay_receiver(&self) -> RelayReceiver {
        self.upgrades.relay_receiver()
    }

    /// Logs the refusals and reports that no log line has counted yet. At most one line a minute is
    /// logged for each cause. Call this method about once a second.
    pub fn tell_rest(&self) {
        self.answers.tell_rest();
        self.reports.tell_rest();
    }

    /// Copies `limits.connections` from the settings to the metric `connections_limit`. Call this
    /// method after the settings were replaced.
    pub fn show_limits(&self) {
        let most = self.context.settings.load().limits.connections;
        self.metrics.connections_limit.set(most as i64);
    }
}
