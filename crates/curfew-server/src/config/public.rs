//! The part of the configuration that the public listener goes by.

use curfew_auth::AuthConfig;
use curfew_ws::OriginPolicy;

use super::ServerConfig;
use crate::listeners::proxies::Proxies;

/// The settings of the public listener; a reload replaces them as a whole.
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
