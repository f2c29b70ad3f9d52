//! The names of keys and pub/sub channels (CONTRACT §7).

use curfew_model::{Channel, NodeId, RevocationKey, SessionId, Spelling, TicketId};

/// The hash tag that all revocation state shares, so that in a cluster one tracking connection and
/// one `EXISTS` suffice.
const TAG: &str = "{revoked}";

/// Makes names with one prefix (`backend.redis.prefix`).
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    prefix: Box<str>,
}

impl Keys {
    pub(crate) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.into(),
        }
    }

    /// A session's record: a hash.
    pub(crate) fn session(&self, session: SessionId) -> String {
        format!("{}session:{session}", self.prefix)
    }

    /// Every session's id, for listing in order: a sorted set with equal scores.
    pub(crate) fn sessions(&self) -> String {
        format!("{}sessions", self.prefix)
    }

    /// A user's sessions by the second in which they end: a sorted set. Long and odd names are written as their digest.
    pub(crate) fn user_sessions(&self, user: &str) -> String {
        let user = RevocationKey::user(user);
        format!("{}user:{}:sessions", self.prefix, user.value())
    }

    /// What is kept for a ticket: sealed bytes that only the ticket opens.
    pub(crate) fn ticket(&self, id: &TicketId) -> String {
        format!("{}ticket:{id}", self.prefix)
    }

    /// What is known of a node: a hash.
    pub(crate) fn node(&self, node: NodeId) -> String {
        format!("{}node:{node}", self.prefix)
    }

    /// A node's sessions, for whoever cleans up after it: a set.
    pub(crate) fn node_sessions(&self, node: NodeId) -> String {
        format!("{}node:{node}:sessions", self.prefix)
    }

    /// Every node that ever registered and was not cleaned up after: a set.
    pub(crate) fn nodes(&self) -> String {
        format!("{}nodes", self.prefix)
    }

    /// Held by whoever cleans up after a node.
    pub(crate) fn reaping(&self, node: NodeId) -> String {
        format!("{}reap:{node}", self.prefix)
    }

    /// A node's heartbeat, which is its lease as well. In the revocations' slot but not below their
    /// prefix, or every heartbeat would be pushed to every node.
    pub(crate) fn heartbeat(&self, node: NodeId) -> String {
        format!("{}hb:{TAG}:{node}", self.prefix)
    }

    /// What every revocation's key starts with: the tracked prefix.
    pub(crate) fn revoked_prefix(&self) -> String {
        format!("{}{TAG}:", self.prefix)
    }

    /// What revocations' keys start with where the braces were forgotten: tracked as well, so that it
    /// is noticed.
    pub(crate) fn unbraced_prefix(&self) -> String {
        format!("{}revoked:", self.prefix)
    }

    /// A revocation's key as this node writes it.
    pub(crate) fn revoked(&self, key: &RevocationKey) -> String {
        key.redis_key(&self.prefix)
    }

    /// A revocation's key as it is written in this way.
    pub(crate) fn spelled(&self, key: &RevocationKey, spelling: Spelling) -> String {
        format!("{}{TAG}:{}", self.prefix, key.written(spelling))
    }

    /// Says which life of the data this is; below the tracked prefix, so that nobody misses it.
    pub(crate) fn epoch(&self) -> String {
        format!("{}{TAG}:epoch", self.prefix)
    }

    /// The revocations known to nodes, by what follows the prefix, with their expiry in
    /// milliseconds: a sorted set. Redis cannot be asked for the keys below a prefix otherwise than
    /// by looking at all keys.
    pub(crate) fn revoked_index(&self) -> String {
        format!("{}index:{TAG}", self.prefix)
    }

    /// Keys that were written like a revocation's and can match nobody, by their whole name, with
    /// their expiry in milliseconds: a sorted set.
    pub(crate) fn ineffective(&self) -> String {
        format!("{}ineffective:{TAG}", self.prefix)
    }

    /// Where publications of a channel go.
    pub(crate) fn channel(&self, channel: &Channel) -> String {
        format!("{}channel:{channel}", self.prefix)
    }

    /// The channel that publications of `name` belong to.
    pub(crate) fn parse_channel(&self, name: &str) -> Option<Channel> {
        let name = name.strip_prefix(&*self.prefix)?.strip_prefix("channel:")?;
        Channel::parse(name).ok()
    }

    /// Where nodes talk to each other.
    pub(crate) fn control(&self) -> String {
        format!("{}control", self.prefix)
    }

    /// Where a node hears itself. The numbers lie in different slots.
    pub(crate) fn probe(&self, node: NodeId, number: u32) -> String {
        format!("{}probe:{node}:{number}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slots::{Slot, slot_of};

    #[test]
    fn revocation_state_is_in_one_slot() {
        let keys = Keys::new("curfew:");
        let node = NodeId::new();
        for key in [
            keys.heartbeat(node),
            keys.epoch(),
            keys.revoked_index(),
            keys.ineffective(),
            keys.revoked(&RevocationKey::All),
            keys.revoked(&RevocationKey::user("a{b}")),
        ] {
            assert_eq!(slot_of(key.as_bytes()), Slot::REVOKED, "{key}");
        }
        let tracked = keys.revoked_prefix();
        assert!(keys.epoch().starts_with(&tracked));
        assert!(!keys.heartbeat(node).starts_with(&tracked));
        assert!(!keys.revoked_index().starts_with(&tracked));
        // Redis refuses prefixes of which one begins with the other.
        let unbraced = keys.unbraced_prefix();
        assert!(!tracked.starts_with(&unbraced) && !unbraced.starts_with(&tracked));
        assert!(!keys.ineffective().starts_with(&unbraced));
    }

    #[test]
    fn a_channel_is_read_back() {
        let keys = Keys::new("c:");
        let channel = Channel::parse("room:ä:{x}").unwrap();
        assert_eq!(keys.parse_channel(&keys.channel(&channel)), Some(channel));
        for other in ["c:control", "c:channel:", "c:channel:a b", "d:channel:a"] {
            assert_eq!(keys.parse_channel(other), None, "{other}");
        }
    }

    #[test]
    fn long_users_have_short_keys() {
        let keys = Keys::new("c:");
        assert_eq!(keys.user_sessions("alice"), "c:user:alice:sessions");
        assert!(keys.user_sessions(&"x".repeat(10_000)).len() < 100);
        assert!(keys.user_sessions("a\nb").starts_with("c:user:~"));
    }
}
