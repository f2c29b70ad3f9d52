//! Listeners, routes, the upgrade, health and the admin API.
//!
//! Owns: everything that speaks HTTP: accepting connections under caps and deadlines, TLS, the
//! upgrade with its checks, the admin listener.
//! Knows nothing of: what happens on a connection after its upgrade, how tokens are verified.
//! Start at [`Public::serve`] and [`Admin::serve`]; the files in order: `listen`, `accept`,
//! `routes`, `upgrade`, `identity/*`, and `admin/*`.

mod accept;
mod admin;
mod answers;
mod asked;
mod body;
mod config;
mod cors;
mod exchange;
mod head;
mod identity;
mod listen;
mod metrics;
pub mod parsers;
mod permits;
mod proxies;
mod rate;
mod receipt;
mod refusal;
mod respond;
mod routes;
mod tickets;
mod tls;
mod tracestate;
mod upgrade;

use std::sync::Arc;

use arc_swap::ArcSwap;
use curfew_auth::AuthConfig;
use curfew_session::Context;
use curfew_ws::OriginPolicy;

pub use admin::{Admin, openapi};
pub use config::{AdminConfig, AdminKey, AdminKeyConfig, Power, ServerConfig};
pub use curfew_session::LimitsConfig;
pub use listen::{Listen, ListenError, ListenSyntaxError, Listener, UnixPath, listen};
pub use metrics::ServerMetrics;
pub use proxies::Proxies;
pub use respond::{Body, Problem, Response};
pub use routes::Extra;
pub use tls::{Tls, TlsError};

use answers::Answers;
use exchange::Porter;
use identity::Reports;
use metrics::Listener as ListenerLabel;
use permits::Permits;

/// What of the configuration the public listener goes by; replaced as a whole by a reload.
#[derive(Debug, Clone)]
pub struct PublicSettings {
    /// `[server]`.
    pub server: ServerConfig,
    /// `[auth]`: where tokens may come from and how bad ones are refused.
    pub auth: AuthConfig,
    /// From `server.allowed_origins`.
    pub origins: OriginPolicy,
    /// From `server.trusted_proxies` and `server.proxy_protocol`.
    pub proxies: Proxies,
}

/// The public listener: `GET /ws`, and what a caller adds.
#[derive(Debug)]
pub struct Public {
    context: Arc<Context>,
    metrics: Arc<ServerMetrics>,
    settings: Arc<ArcSwap<PublicSettings>>,
    permits: Arc<Permits>,
    reports: Arc<Reports>,
    answers: Answers,
    porter: Porter,
    tls: Option<Arc<Tls>>,
    extra: Option<Extra>,
}

impl Public {
    /// A public listener over what sessions share. `extra` answers what is not `/ws`.
    pub fn new(
        context: Arc<Context>,
        metrics: Arc<ServerMetrics>,
        settings: PublicSettings,
        tls: Option<Arc<Tls>>,
        extra: Option<Extra>,
    ) -> Arc<Self> {
        let connections = context.node.metrics().connections.clone();
        let permits = Permits::new(Arc::clone(&metrics), connections);
        let answers = Answers::new(ListenerLabel::Public, Arc::clone(&metrics));
        let limits = &context.settings.load().limits;
        permits.set_limits(limits);
        let settings = Arc::new(ArcSwap::from_pointee(settings));
        let reports = Reports::new(
            Arc::clone(&context),
            Arc::clone(&metrics),
            Arc::clone(&settings),
        );
        reports.set_unverified_per_second(limits.unverified_reports_per_second);
        Arc::new(Self {
            context,
            metrics,
            settings,
            permits,
            reports,
            answers,
            porter: Porter::new(),
            tls,
            extra,
        })
    }

    /// Tells what no line of the log has told, where the interval of the last one is over. To be called
    /// every second or so.
    pub fn tell_rest(&self) {
        self.answers.tell_rest();
        self.reports.tell_rest();
    }

    /// Puts other settings in force, for requests that come from now on. The limits are those of
    /// the sessions' context, which the caller has replaced before.
    pub fn set_settings(&self, settings: PublicSettings) {
        self.settings.store(Arc::new(settings));
        let limits = &self.context.settings.load().limits;
        self.permits.set_limits(limits);
        self.reports
            .set_unverified_per_second(limits.unverified_reports_per_second);
    }
}
