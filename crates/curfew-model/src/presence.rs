//! Presence: the sessions that are subscribed to a channel.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Channel, NodeId, SessionId};

/// Maximum number of sessions in a presence list. The counts that come with the list include all
/// sessions.
pub const MAX_PRESENCE_SESSIONS: usize = 1_000;

/// A session that is present in a channel, as other sessions see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// The session's id.
    pub session: SessionId,
    /// The session's user.
    pub user: Arc<str>,
    /// The value of the claim `session.info_claim`, as JSON; `None` if the token has none.
    pub info: Option<Arc<str>>,
    /// The `info` of the subscription's token, as JSON. Only the Centrifuge protocol has
    /// subscription tokens.
    pub channel_info: Option<Arc<str>>,
}

/// The entry of a session in the presence of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceEntry {
    /// The channel.
    pub channel: Channel,
    /// The session.
    pub present: Present,
    /// The session's node.
    pub node: NodeId,
    /// A number that the node gives each entry. A removal states the number, so a late removal of
    /// an earlier entry of the same session does not remove this entry.
    pub number: u64,
    /// True if the addition and the removal of the entry are reported to the sessions that ask for
    /// notices.
    pub is_told: bool,
    /// The time at which the session's access ends, since the Unix epoch.
    pub ends_at: Duration,
}

/// A change of a channel's presence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PresenceChange {
    /// A session has entered the channel.
    Join,
    /// A session has left the channel.
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
