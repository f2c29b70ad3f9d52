//! Presence in memory.

use std::collections::{BTreeMap, HashMap};
use std::future::ready;
use std::sync::Arc;

use curfew_model::{Channel, PresenceChange, PresenceEntry, SessionId};
use parking_lot::Mutex;

use super::{Done, Memory};
use crate::{BackendError, BoxFuture, Presence, PresenceList};

/// The entries of each channel. A channel without entries is not in the map.
#[derive(Debug, Default)]
pub(super) struct PresenceStore(Mutex<HashMap<Channel, Entries>>);

/// The entries of one channel.
#[derive(Debug, Default)]
struct Entries {
    sessions: BTreeMap<SessionId, PresenceEntry>,
    /// The number of sessions of each user.
    users: HashMap<Arc<str>, usize>,
}

impl Entries {
    /// Adds or replaces the entry of a session. Returns true if the session had no entry in the
    /// channel.
    fn insert(&mut self, entry: PresenceEntry) -> bool {
        let user = Arc::clone(&entry.present.user);
        let is_new = self.sessions.insert(entry.present.session, entry).is_none();
        if is_new {
            *self.users.entry(user).or_default() += 1;
        }
        is_new
    }

    /// Removes an entry. Returns false if the entry was already removed or replaced.
    fn remove(&mut self, entry: &PresenceEntry) -> bool {
        let session = entry.present.session;
        let known = self.sessions.get(&session).map(|known| known.number);
        if known != Some(entry.number) {
            return false;
        }
        self.sessions.remove(&session);
        let user = &entry.present.user;
        if let Some(count) = self.users.get_mut(user) {
            *count -= 1;
            if *count == 0 {
                self.users.remove(user);
            }
        }
        true
    }
}

impl Memory {
    fn tell(&self, change: PresenceChange, entry: &PresenceEntry) {
        if entry.is_told {
            self.events
                .presence_changed(&entry.channel, change, &entry.present);
        }
    }
}

impl Presence for Memory {
    /// Notifies the node before the call returns. The lock is held meanwhile, so that the node
    /// never receives the leave of an entry before its join.
    fn enter<'a>(
        &'a self,
        entries: &'a [PresenceEntry],
    ) -> BoxFuture<'a, Result<(), BackendError>> {
        let mut channels = self.presence.0.lock();
        for entry in entries {
            let present = channels.entry(entry.channel.clone()).or_default();
            if present.insert(entry.clone()) {
                self.tell(PresenceChange::Join, entry);
            }
        }
        Box::pin(Done)
    }

    fn leave<'a>(
        &'a self,
        entries: &'a [PresenceEntry],
    ) -> BoxFuture<'a, Result<(), BackendError>> {
        let mut channels = self.presence.0.lock();
        for entry in entries {
            let Some(present) = channels.get_mut(&entry.channel) else {
                continue;
            };
            if present.remove(entry) {
                self.tell(PresenceChange::Leave, entry);
            }
            if present.sessions.is_empty() {
                channels.remove(&entry.channel);
            }
        }
        Box::pin(Done)
    }

    fn list<'a>(
        &'a self,
        channel: &'a Channel,
        limit: usize,
    ) -> BoxFuture<'a, Result<PresenceList, BackendError>> {
        let channels = self.presence.0.lock();
        let list = channels.get(channel).map(|entries| {
            let sessions = entries.sessions.values().take(limit);
            PresenceList {
                sessions: sessions.map(|entry| entry.present.clone()).collect(),
                count: entries.sessions.len() as u64,
                users: entries.users.len() as u64,
            }
        });
        Box::pin(ready(Ok(list.unwrap_or_default())))
    }
}
