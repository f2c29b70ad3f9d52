//! The public listener: `GET /ws`, tickets, reports of identity providers, and what a caller adds.
//!
//! `accept` brings a connection to its request, and `routes` the request to the endpoint that answers it.

mod accept;
mod routes;

use std::sync::Arc;

use arc_swap::ArcSwap;
use curfew_session::Context;

use crate::config::PublicSettings;
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
    settings: Arc<ArcSwap<PublicSettings>>,
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
    /// A public listener over the context of sessions. `extra` answers requests for no other endpoint.
    pub fn new(
        context: Arc<Context>,
        metrics: Arc<ServerMetrics>,
        settings: PublicSettings,
        tls: Option<Arc<Tls>>,
        extra: Option<Extra>,
    ) -> Arc<Self> {
        let connections = context.node.metrics().connections.clone();
        let permits = Permits::new(Arc::clone(&metrics), connections);
        let settings = Arc::new(ArcSwap::from_pointee(settings));
        let tickets = Arc::new(TicketEndpoint::new(
            Arc::clone(&context),
            Arc::clone(&metrics),
            Arc::clone(&settings),
            Arc::clone(&permits),
        ));
        let upgrades = Upgrades::new(
            Arc::clone(&context),
            Arc::clone(&metrics),
            Arc::clone(&settings),
            Arc::clone(&permits),
            Arc::clone(&tickets),
        );
        let reports = Reports::new(
            Arc::clone(&context),
            Arc::clone(&metrics),
            Arc::clone(&settings),
        );
        let public = Self {
            answers: Answers::new(ListenerKind::Public, Arc::clone(&metrics)),
            context,
            metrics,
            settings,
            permits,
            upgrades,
            tickets,
            reports,
            porter: Porter::new(),
            tls,
            extra,
        };
        public.set_limits();
        Arc::new(public)
    }

    /// Logs the refusals and reports that no line has told, where the interval of the last one is over. The
    /// caller does this about once a second.
    pub fn tell_rest(&self) {
        self.answers.tell_rest();
        self.reports.tell_rest();
    }

    /// Puts other settings in force, for requests that come from now on. The limits are those of
    /// the sessions' context, which the caller has replaced before.
    pub fn set_settings(&self, settings: PublicSettings) {
        self.settings.store(Arc::new(settings));
        self.set_limits();
    }

    fn set_limits(&self) {
        let limits = &self.context.settings.load().limits;
        self.permits.set_limits(limits);
        self.reports
            .set_unverified_per_second(limits.unverified_reports_per_second);
    }
}
