//! Presence in the lobby, as Redis lists it, and the clients' commands about it.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;

/// The prefix of the key that lists a channel's sessions.
const SESSIONS: &[u8] = b"curfew:presence:";

/// The prefix of the key that counts each user's sessions.
const USERS: &[u8] = b"curfew:presence-users:";

/// A client's command about the lobby.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visit {
    /// Subscribe. True if the client asks for joins and leaves.
    Enter(bool),
    /// Unsubscribe.
    Leave,
    /// Ask for the list.
    List,
}

/// A presence entry in Redis.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// The complete value.
    value: Vec<u8>,
    /// The session's user.
    pub user: String,
}

/// The entries of the lobby, by session.
pub type Listing = BTreeMap<String, Rc<Entry>>;

/// Presence in the lobby over time.
#[derive(Debug, Default)]
pub struct Presence {
    /// True if there is a lobby.
    pub is_on: bool,
    /// The lists of entries, each with the time from which on Redis had the list.
    pub listed: Vec<(Duration, Listing)>,
    /// The number of sessions of each user, as Redis counts them now.
    users: BTreeMap<String, String>,
    /// The times at which Redis did not count exactly the users of the entries, each with a
    /// description.
    pub miscounted: Vec<(Duration, String)>,
}

impl Presence {
    /// Records that a hash of Redis has these fields now.
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

    /// Records that Redis has other data now. `hashes` are the hashes of presence in that data.
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

    /// Checks that Redis counts exactly the users of the entries, after it has executed all
    /// commands of a batch.
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
            let what = format!(
                "the list has the users {counted:?}, but Redis counts {:?}",
                self.users
            );
            self.miscounted.push((at, what));
        }
    }

    /// The entries that Redis lists now; `None` before the first change.
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
