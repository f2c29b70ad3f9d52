//! Presence: the sessions that are subscribed to channels, over all nodes.

use curfew_model::{Channel, PresenceEntry, Present};

use crate::{BackendError, BoxFuture};

/// A list of a channel's presence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PresenceList {
    /// The sessions, in no particular order, at most `limit` of them.
    pub sessions: Vec<Present>,
    /// The number of all sessions in the channel.
    pub count: u64,
    /// The number of all users in the channel.
    pub users: u64,
}

/// The presence of sessions in channels.
///
/// Guarantees:
/// - Every node lists an entry from the moment `enter` has returned until `leave` is called or the
///   session's access has ended.
/// - A session has one entry in a channel. A later entry replaces the earlier entry, and a removal
///   of the earlier entry leaves the later one.
/// - Nodes that listen to the channel are notified once when a session's first entry is added and
///   once when its last entry is removed
///   ([`Events::presence_changed`](crate::Events::presence_changed)), if the entry [is
///   announced](PresenceEntry::is_told). A crash or a failure during a removal may notify them of
///   the leave twice.
/// - If a node crashes, another node removes its entries.
pub trait Presence: Send + Sync + 'static {
    /// Adds entries. Each replaces the session's earlier entry in the channel.
    fn enter<'a>(&'a self, entries: &'a [PresenceEntry])
    -> BoxFuture<'a, Result<(), BackendError>>;

    /// Removes entries. An entry that is already removed or replaced is skipped.
    fn leave<'a>(&'a self, entries: &'a [PresenceEntry])
    -> BoxFuture<'a, Result<(), BackendError>>;

    /// Lists a channel's sessions, at most `limit` of them.
    fn list<'a>(
        &'a self,
        channel: &'a Channel,
        limit: usize,
    ) -> BoxFuture<'a, Result<PresenceList, BackendError>>;
}
