//! Presence: the sessions that are subscribed to channels, over all nodes.

use curfew_model::{Channel, PresenceEntry, Present};

use crate::{BackendError, BoxFuture};

/// A list of a channel's presence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PresenceList {
    /// The sessions, in no order: all of them, or as many as were asked for.
    pub sessions: Vec<Present>,
    /// The number of sessions.
    pub count: u64,
    /// The number of their users.
    pub users: u64,
}

/// The presence of sessions in channels.
///
/// Guarantees:
/// - An entry is in the list on every node from the moment `enter` returned until `leave` is called,
///   or the session's access has ended.
/// - A session has one entry in a channel. A later one takes the place of the earlier, and a removal
///   of the earlier leaves it.
/// - Nodes that listen to the channel are told of the entries that
///   [are told](PresenceEntry::is_told), once each
///   ([`Events::presence_changed`](crate::Events::presence_changed)): of a session that had no entry before, and of
///   one that has none any more. After a crash or a failure amid it they may be told of a leave twice.
/// - The entries of a node that crashed are removed by another.
pub trait Presence: Send + Sync + 'static {
    /// Adds entries, each of which takes the place of the session's earlier one in the channel.
    fn enter<'a>(&'a self, entries: &'a [PresenceEntry])
    -> BoxFuture<'a, Result<(), BackendError>>;

    /// Removes entries; one that is gone, or was replaced, is passed over.
    fn leave<'a>(&'a self, entries: &'a [PresenceEntry])
    -> BoxFuture<'a, Result<(), BackendError>>;

    /// Lists a channel's sessions, at most `limit` of them.
    fn list<'a>(
        &'a self,
        channel: &'a Channel,
        limit: usize,
    ) -> BoxFuture<'a, Result<PresenceList, BackendError>>;
}
