//! What every session of a node shares.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use curfew_auth::Authenticator;
use curfew_node::Node;
use curfew_policy::Policy;
use curfew_telemetry::Metrics;

use crate::{Config, LimitsConfig};

/// What of the configuration sessions go by; replaced as a whole by a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `[session]`.
    pub session: Config,
    /// `[limits]`.
    pub limits: LimitsConfig,
    /// `auth.timeout`: how long a connection may stay without a token.
    pub auth_timeout: Duration,
    /// `auth.login_claim`: what names the login that a token is of.
    pub login_claim: String,
}

/// What every session of a node shares.
#[derive(Debug)]
pub struct Context {
    /// The node: admission, subscriptions, publishing.
    pub node: Arc<Node>,
    /// Verifies tokens.
    pub authenticator: Arc<Authenticator>,
    /// Authorizes.
    pub policy: Arc<Policy>,
    /// The settings in force.
    pub settings: ArcSwap<Settings>,
}

impl Context {
    /// Closes the sessions that rest upon keys which their issuers took back, where that is
    /// configured. To be called when keys have changed.
    pub fn close_withdrawn(&self) {
        if !self.authenticator.closes_withdrawn() {
            return;
        }
        self.node
            .close_withdrawn(|principal| self.authenticator.is_withdrawn(principal));
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        self.node.metrics()
    }
}
