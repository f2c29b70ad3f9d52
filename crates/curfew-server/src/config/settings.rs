//! The listeners' part of a snapshot of settings.

use std::any::Any;
use std::ops::Deref;
use std::sync::Arc;

use curfew_auth::AuthConfig;
use curfew_session::{Context, SessionSettings};
use curfew_ws::OriginPolicy;

use super::{AdminKey, CentrifugeConfig, ServerConfig};
use crate::listeners::proxies::Proxies;

/// The settings of both listeners. Every snapshot that the listeners use has them in
/// [`SessionSettings::listeners`].
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// `[server]`.
    pub server: ServerConfig,
    /// `[centrifuge]`.
    pub centrifuge: CentrifugeConfig,
    /// `[auth]`: the sources of tokens, and the form in which bad tokens are refused.
    pub auth: AuthConfig,
    /// From `server.allowed_origins`.
    pub origins: OriginPolicy,
    /// From `server.trusted_proxies` and `server.proxy_protocol`.
    pub proxies: Proxies,
    /// The keys that the admin API accepts.
    pub admin_keys: Vec<Arc<AdminKey>>,
}

/// One snapshot of all settings. A request takes it once and passes it on, so that a reload cannot
/// mix two configurations within a request.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) sessions: Arc<SessionSettings>,
    listeners: Arc<ServerSettings>,
}

impl Snapshot {
    /// The settings in force.
    pub(crate) fn take(context: &Context) -> Self {
        let sessions = context.settings.load_full();
        let listeners: Arc<dyn Any + Send + Sync> = Arc::clone(&sessions.listeners);
        let listeners = listeners
            .downcast()
            .expect("`SessionSettings::listeners` holds a `ServerSettings`");
        Self {
            sessions,
            listeners,
        }
    }
}

impl Deref for Snapshot {
    type Target = ServerSettings;

    fn deref(&self) -> &ServerSettings {
        &self.listeners
    }
}
