//! The presence in the lobby, as Redis lists it, and the commands of clients about it.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;

/// The beginning of the key of the listed sessions.
const SESSIONS: &[u8] = b"curfew:presence:";

/// The beginning of the key that counts the sessions of each user.
const USERS: &[u8] = b"curfew:presence-users:";

/// A command about the lobby.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visit {
    /// The client subscribes. The flag is true if it requests joins and leaves.
    Enter(bool),
    /// The client unsubscribes.
    Leave,
    /// The client requests the list.
    List,
}

/// An entry of the lobby.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// The whole value of the entry in Redis.
    value: Vec<u8>,
    /// The session's user.
    pub user: String,
}

/// The entries by their sessions.
pub type Listing = BTreeMap<String, Rc<Entry>>;

/// The presence in the lobby over time.
#[derive(Debug, Default)]
pub struct Presence {
    /// True if there is a lobby.
    pub is_on: bool,
    /// The entries after each change, with the time of the change.
    pub listed: Vec<(Duration, Listing)>,
    /// The number of sessions of each user, as Redis counts them now.
    users: BTreeMap<String, String>,
    /// Times at which the counts differed from the entries, each with a description of the two.
    pub miscounted: Vec<(Duration, String)>,
}

impl Presence {
    /// Records that a hash of Redis now has these fields.
    pub fn changed(&mut self, at: Duration, key: &[u8], fields: &[(Vec<u8>, Vec<u8>)]) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if key.starts_with(SESSIONS) {
            let before = self.now();
            let entries = fields.iter().map(|(session, value)| {
                let session = text(session);
                let known = before.and_then(|before| before.get(&session));
                let known = known.filter(|known| known.value == *value);
                let entry = known
                    .cloned()
                    .unwrap_or_else(|| Rc::new(Entry::read(value)));
                (session, entry)
            });
            let listing = entries.collect();
            self.listed.push((at, listing));
        } else if key.starts_with(USERS) {
            let counts = fields.iter();
            self.users = counts
                .map(|(user, count)| (text(user), text(count)))
                .collect();
        }
    }

    /// Records that Redis now has other data. `hashes` are its hashes of presence.
    pub fn replaced(
        &mut self,
        at: Duration,
        hashes: impl Iterator<Item = (Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>)>,
    ) {
        self.changed(at, SESSIONS, &[]);
        self.changed(at, USERS, &[]);
        for (key, fields) in hashes {
            self.changed(at, &key, &fields);
        }
        self.settled(at);
    }

    /// Checks that the counts agree with the entries. Called after all commands that arrived
    /// together were executed.
    pub fn settled(&mut self, at: Duration) {
        let mut counted: BTreeMap<&str, usize> = BTreeMap::new();
        for entry in self.now().into_iter().flat_map(BTreeMap::values) {
            *counted.entry(&entry.user).or_default() += 1;
        }
        let counted = counted
            .iter()
            .map(|(user, count)| ((*user).to_owned(), count.to_string()));
        let counted: BTreeMap<String, String> = counted.collect();
        if counted != self.users {
            let what = format!("{counted:?} are listed, {:?} are counted", self.users);
            self.miscounted.push((at, what));
        }
    }

    /// The present entries.
    pub fn now(&self) -> Option<&Listing> {
        self.listed.last().map(|(_, listing)| listing)
    }
}

impl Entry {
    fn read(value: &[u8]) -> Self {
        let stored: Value = serde_json::from_slice(value).unwrap_or_default();
        Self {
            value: value.to_vec(),
            user: stored["user"].as_str().unwrap_or_default().to_owned(),
        }
    }
}
