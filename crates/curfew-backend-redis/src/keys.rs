//! The names of keys and pub/sub channels (CONTRACT §7).

use curfew_model::{Channel, NodeId, PublicationKey, RevocationKey, SessionId, Spelling, TicketId};

use crate::slots::{slot_of, tag_in_slot};

/// The hash tag of all revocation state. It places the state in one slot of a cluster, so that one
/// tracking connection and one `EXISTS` are enough.
const TAG: &str = "{revoked}";

/// Makes names with one prefix (`backend.redis.prefix`).
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    /// The prefix of every name.
    prefix: Box<str>,
}

impl Keys {
    pub(crate) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.into(),
        }
    }

    /// The record of a session: a hash.
    pub(crate) fn session(&self, session: SessionId) -> String {
        format!("{}session:{session}", self.prefix)
    }

    /// The ids of all sessions, listed in order: a sorted set with equal scores.
    pub(crate) fn sessions(&self) -> String {
        format!("{}sessions", self.prefix)
    }

    /// A user's sessions, scored by the second in which they end: a sorted set. A long user name,
    /// or a user name with special characters, is written as its digest.
    pub(crate) fn user_sessions(&self, user: &str) -> String {
        let user = RevocationKey::user(user);
        format!("{}user:{}:sessions", self.prefix, user.value())
    }

    /// The data of a ticket: encrypted bytes that only a holder of the ticket can decrypt.
    pub(crate) fn ticket(&self, id: &TicketId) -> String {
        format!("{}ticket:{id}", self.prefix)
    }

    /// The record of a node: a hash.
    pub(crate) fn node(&self, node: NodeId) -> String {
        format!("{}node:{node}", self.prefix)
    }

    /// The sessions of a node: a set. Other nodes use it to clean up after the node crashed.
    pub(crate) fn node_sessions(&self, node: NodeId) -> String {
        format!("{}node:{node}:sessions", self.prefix)
    }

    /// Every registered node, including dead nodes whose records were not removed yet: a set.
    pub(crate) fn nodes(&self) -> String {
        format!("{}nodes", self.prefix)
    }

    /// The key that a node sets to claim the clean-up after the dead node `node`.
    pub(crate) fn reaping(&self, node: NodeId) -> String {
        format!("{}reap:{node}", self.prefix)
    }

    /// The heartbeat of a node, which is also its lease in the cluster. It is in the slot of the
    /// revocations, but its name does not begin with the tracked prefix, because Redis would
    /// otherwise push every heartbeat to every node.
    pub(crate) fn heartbeat(&self, node: NodeId) -> String {
        format!("{}hb:{TAG}:{node}", self.prefix)
    }

    /// The prefix of every revocation's key. Redis tracks it.
    pub(crate) fn revoked_prefix(&self) -> String {
        format!("{}{TAG}:", self.prefix)
    }

    /// The prefix of a revocation's key if a client has left out the braces. Redis tracks this
    /// prefix too, so that nodes notice the mistake.
    pub(crate) fn unbraced_prefix(&self) -> String {
        format!("{}revoked:", self.prefix)
    }

    /// The key under which this node writes a revocation. Another Redis client may write the same
    /// revocation under a key in another [`Spelling`].
    pub(crate) fn revoked(&self, key: &RevocationKey) -> String {
        key.redis_key(&self.prefix)
    }

    /// The key of a revocation in the given [`Spelling`].
    pub(crate) fn spelled(&self, key: &RevocationKey, spelling: Spelling) -> String {
        format!("{}{TAG}:{}", self.prefix, key.written(spelling))
    }

    /// The epoch: an id that changes when the data is lost. Its key has the tracked prefix, so
    /// every node receives a push when it changes.
    pub(crate) fn epoch(&self) -> String {
        format!("{}{TAG}:epoch", self.prefix)
    }

    /// The index of the revocations that some node has written or read. The index is a sorted set
    /// of key names without the prefix, scored by expiry in milliseconds. Without the index, the
    /// keys with a prefix could be found only by a scan of all keys.
    pub(crate) fn revoked_index(&self) -> String {
        format!("{}index:{TAG}", self.prefix)
    }

    /// Keys that look like the key of a revocation but can match no session: a sorted set of whole
    /// names, scored by expiry in milliseconds.
    pub(crate) fn ineffective(&self) -> String {
        format!("{}ineffective:{TAG}", self.prefix)
    }

    /// The pub/sub channel for publications of `channel`.
    pub(crate) fn channel(&self, channel: &Channel) -> String {
        format!("{}channel:{channel}", self.prefix)
    }

    /// The channel whose publications arrive under `name`; `None` for any other name.
    pub(crate) fn parse_channel(&self, name: &str) -> Option<Channel> {
        let name = name.strip_prefix(&*self.prefix)?.strip_prefix("channel:")?;
        Channel::parse(name).ok()
    }

    /// The keys of a channel's stream. They are in the slot of the pub/sub channel's name, so that
    /// one script can append and publish. Their hash tag ends with letters chosen for that slot.
    /// The tag begins with a hash of the channel's name, because otherwise the stream of channel
    /// `a:meta` could share a key with channel `a`.
    pub(crate) fn stream(&self, channel: &Channel) -> StreamKeys {
        let slot = slot_of(self.channel(channel).as_bytes());
        let tag = tag_in_slot(&format!("{:016x}", channel.digest()), slot);
        let stream = format!("{}stream:{{{tag}}}:{channel}", self.prefix);
        let meta = format!("{stream}:meta");
        StreamKeys { stream, meta }
    }

    /// The keys of a channel's presence. They share a slot: the keys `users` and `left` have a hash
    /// tag that is chosen for the slot of the key `sessions`. The channel's name cannot be the tag
    /// of all three keys. For a name that begins with `}`, the tag would be empty, and Redis would
    /// hash each whole key.
    pub(crate) fn presence(&self, channel: &Channel) -> PresenceKeys {
        let sessions = format!("{}presence:{{{channel}}}", self.prefix);
        let slot = slot_of(sessions.as_bytes());
        let tag = tag_in_slot(&format!("{:016x}", channel.digest()), slot);
        let users = format!("{}presence-users:{{{tag}}}:{channel}", self.prefix);
        let left = format!("{}presence-left:{{{tag}}}:{channel}", self.prefix);
        PresenceKeys {
            sessions,
            users,
            left,
        }
    }

    /// The pattern that matches the presence key of every channel.
    pub(crate) fn presence_pattern(&self) -> String {
        format!("{}presence:{{*", self.prefix)
    }

    /// The channel whose presence this key stores; `None` for any other key.
    pub(crate) fn parse_presence(&self, key: &str) -> Option<Channel> {
        let name = key.strip_prefix(&*self.prefix)?;
        let name = name.strip_prefix("presence:{")?.strip_suffix('}')?;
        Channel::parse(name).ok()
    }

    /// The presence entries of a node: a set with one item, the note, for each entry. The node
    /// finds its entries by the notes, and so do the nodes that clean up after the node crashed.
    pub(crate) fn node_presence(&self, node: NodeId) -> String {
        format!("{}node:{node}:presence", self.prefix)
    }

    /// The pub/sub channel for messages between nodes.
    pub(crate) fn control(&self) -> String {
        format!("{}control", self.prefix)
    }

    /// The pub/sub channel for messages to one node.
    pub(crate) fn relay(&self, node: NodeId) -> String {
        format!("{}relay:{node}", self.prefix)
    }

    /// A pub/sub channel on which a node receives its own test messages. The slot depends on
    /// `number`, so a node finds a name in one of a server's slots by trying several numbers.
    pub(crate) fn probe(&self, node: NodeId, number: u32) -> String {
        format!("{}probe:{node}:{number}", self.prefix)
    }
}

/// The names of the keys of a channel's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamKeys {
    /// The publications: a stream.
    pub(crate) stream: String,
    /// The epoch, the top offset and the id of the server that wrote them: a hash.
    pub(crate) meta: String,
}

/// The names of the keys of a channel's presence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PresenceKeys {
    /// The sessions with their entries: a hash.
    pub(crate) sessions: String,
    /// The users with the number of their sessions: a hash.
    pub(crate) users: String,
    /// In a cluster, the removed entries whose leave message is not published yet: a hash. The name
    /// of each field is the first part of the entry's JSON, which has the entry's node and number.
    pub(crate) left: String,
}

impl StreamKeys {
    /// The position of the publication with this idempotency key: a string.
    pub(crate) fn publication(&self, key: &PublicationKey) -> String {
        let mut name = format!("{}:key:", self.stream);
        let digits = key
            .as_bytes()
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 15]);
        name.extend(digits.filter_map(|digit| char::from_digit(digit.into(), 16)));
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slots::Slot;

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
        // Redis refuses to track two prefixes if one begins with the other.
        let unbraced = keys.unbraced_prefix();
        assert!(!tracked.starts_with(&unbraced) && !unbraced.starts_with(&tracked));
        assert!(!keys.ineffective().starts_with(&unbraced));
    }

    #[test]
    fn keys_of_a_channel_share_slots() {
        for prefix in ["curfew:", "c{x}:"] {
            let keys = Keys::new(prefix);
            for name in ["a", "room:ä", "}", "}{", "{x}:a", "{}", "a:meta", "*"] {
                let channel = Channel::parse(name).unwrap();
                let of_channel = slot_of(keys.channel(&channel).as_bytes());
                let StreamKeys { stream, meta } = keys.stream(&channel);
                let PresenceKeys {
                    sessions,
                    users,
                    left,
                } = keys.presence(&channel);
                assert_eq!(keys.parse_presence(&sessions), Some(channel));
                if prefix == "curfew:" {
                    let slot = slot_of(sessions.as_bytes());
                    assert_eq!(slot_of(users.as_bytes()), slot, "{users}");
                    assert_eq!(slot_of(left.as_bytes()), slot, "{left}");
                    assert_eq!(slot_of(stream.as_bytes()), of_channel, "{stream}");
                    assert_eq!(slot_of(meta.as_bytes()), of_channel, "{meta}");
                }
            }
        }
        let keys = Keys::new("curfew:");
        let [a, meta] = ["a", "a:meta"].map(|name| keys.stream(&Channel::parse(name).unwrap()));
        assert_ne!(a.meta, meta.stream);
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
