//! Presence: the sessions that are subscribed to channels, over all nodes.

use curfew_model::{Channel, PresenceEntry, Present};

use crate::{BackendError, BoxFuture};

/// The presence in one channel: some of the sessions, and the numbers of all sessions and users.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PresenceList {
    /// The sessions, in no particular order. Their number is bounded by the `limit` of
    /// [`Presence::list`].
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
/// - A session has one entry in a channel. A later entry replaces the earlier entry. A removal of
///   the earlier entry then has no effect on the later entry.
/// - If an entry [is announced](PresenceEntry::is_told),
///   [`Events::presence_changed`](crate::Events::presence_changed) is called on the nodes that
///   listen to the channel: once when a session's first entry is added, and once when its last
///   entry is removed. After a crash or a failure during a removal, a node may be notified of the
///   leave twice.
/// - If a node crashes, another node removes the entries of the crashed node.
pub trait Presence: Send + Sync + 'static {
    /// Adds entries. Each entry replaces the session's earlier entry in the channel.
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
