//! Presence: the sessions that are subscribed to a channel.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Channel, NodeId, SessionId};

/// Most sessions in a list of presence. The counts beside the list are of all.
pub const MAX_PRESENCE_SESSIONS: usize = 1_000;

/// A session that is present in a channel, as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// The session's id.
    pub session: SessionId,
    /// The session's user.
    pub user: Arc<str>,
    /// The value of the claim `session.info_claim`, as JSON; `None` if the token has none.
    pub info: Option<Arc<str>>,
    /// The `info` of its subscription's token, as JSON. Only the Centrifuge protocol has it.
    pub channel_info: Option<Arc<str>>,
}

/// The entry of a session in the presence of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceEntry {
    /// The channel.
    pub channel: Channel,
    /// The session.
    pub present: Present,
    /// The node it lives on.
    pub node: NodeId,
    /// A number that the node gives each entry, so that a late removal of an earlier entry of the
    /// same session leaves this one.
    pub number: u64,
    /// True if sessions that asked for it are told of the entry's coming and going.
    pub is_told: bool,
    /// The time at which the session's access ends, since 1970.
    pub ends_at: Duration,
}

/// A change of a channel's presence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PresenceChange {
    /// A session has come.
    Join,
    /// A session has gone.
    Leave,
}

impl PresenceChange {
    /// The name of the change in the protocol.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Leave => "leave",
        }
    }
}
