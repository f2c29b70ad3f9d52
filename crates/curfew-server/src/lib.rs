//! Listeners, routes, the upgrade, health and the admin API.
//!
//! Owns: everything that speaks HTTP: accepting connections under caps and deadlines, TLS, the
//! upgrade with its checks, the admin listener.
//! Knows nothing of: what happens on a connection after its upgrade, how tokens are verified.
//! Start at [`Public::serve`] and [`Admin::serve`]. The modules from the top down: `public` and
//! `admin`, the two listeners; `upgrade`, `tickets` and `identity`, the endpoints of the public
//! listener; `http`, `permits` and `listeners`, which both listeners use. A module uses only
//! modules further down.

mod admin;
mod config;
mod http;
mod identity;
mod listeners;
mod metrics;
pub mod parsers;
mod permits;
mod public;
mod tickets;
mod upgrade;

pub use crate::http::{Body, Problem, Response};
pub use admin::{Admin, openapi};
pub use config::{
    AdminConfig, AdminKey, AdminKeyConfig, CentrifugeConfig, Power, ServerConfig, ServerSettings,
};
pub use curfew_session::LimitsConfig;
pub use listeners::proxies::Proxies;
pub use listeners::tls::{Tls, TlsError};
pub use listeners::{Listen, ListenError, ListenSyntaxError, Listener, UnixPath, listen};
pub use metrics::ServerMetrics;
pub use public::{Extra, Public};
