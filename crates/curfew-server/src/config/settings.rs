//! The settings of the listeners, and the snapshot of all settings that a request uses.

use std::any::Any;
use std::ops::Deref;
use std::sync::Arc;

use curfew_auth::AuthConfig;
use curfew_session::{Context, SessionSettings};
use curfew_ws::OriginPolicy;

use super::{AdminKey, CentrifugeConfig, ServerConfig};
use crate::listeners::proxies::Proxies;

/// The settings of both listeners. They are the value of [`SessionSettings::listeners`], so that
/// one reload replaces them together with all other settings.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// `[server]`.
    pub server: ServerConfig,
    /// `[centrifuge]`.
    pub centrifuge: CentrifugeConfig,
    /// `[auth]`.
    pub auth: AuthConfig,
    /// Parsed from `server.allowed_origins`.
    pub origins: OriginPolicy,
    /// Parsed from `server.trusted_proxies` and `server.proxy_protocol`.
    pub proxies: Proxies,
    /// The keys that the admin API accepts.
    pub admin_keys: Vec<Arc<AdminKey>>,
}

/// One snapshot of all settings. The handler of a request takes one snapshot and uses it for the
/// whole request, so a reload cannot mix two configurations within a request.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) sessions: Arc<SessionSettings>,
    listeners: Arc<ServerSettings>,
}

impl Snapshot {
    /// Returns the settings in force now.
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
