//! `[centrifuge]`: the endpoints for the SDKs of Centrifugo.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The Centrifuge client protocol, which the SDKs of Centrifugo speak, on the public listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CentrifugeConfig {
    /// Enables the endpoints of this section. Takes effect at start.
    pub enabled: bool,
    /// Answers at `/connection/websocket`, in JSON and in Protobuf.
    pub websocket: bool,
    /// Answers at `/connection/http_stream`, for clients whose network blocks WebSocket. These
    /// clients send their commands to `/emulation`, at any node.
    pub http_stream: bool,
    /// Answers at `/connection/sse`, also for clients whose network blocks WebSocket. The URL of
    /// such a request contains the token: keep the token out of the logs of proxies.
    pub sse: bool,
    /// A subscription token gives the right to subscribe to its channel, unless a rule denies it.
    /// `false`: such a token is verified, but gives no right.
    pub subscription_tokens: bool,
    /// Subscribes each session to the channel whose name is `#` followed by the user's name, if the
    /// policy allows the subscription.
    pub personal_channels: bool,
}

impl Default for CentrifugeConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            websocket: true,
            http_stream: true,
            sse: true,
            subscription_tokens: false,
            personal_channels: false,
        }
    }
}

impl CentrifugeConfig {
    /// True if clients may send commands to `/emulation`.
    pub(crate) fn takes_commands(&self) -> bool {
        self.enabled && (self.http_stream || self.sse)
    }
}
