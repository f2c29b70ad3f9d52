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
///   session's access ends.
/// - A session has one entry in a channel. A later entry replaces the earlier one, and a late
///   removal of the earlier entry does not remove the later one.
/// - Each entry with [`is_told`](PresenceEntry::is_told) is reported to the nodes that listen to
///   the channel ([`Events::presence_changed`](crate::Events::presence_changed)). They are notified
///   at most once of a session that had no entry in the channel before, and at most once of an
///   entry's removal.
/// - The entries of a node that crashed are removed by another node.
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
