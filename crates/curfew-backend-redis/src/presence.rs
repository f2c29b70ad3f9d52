//! Presence in Redis. Each channel has a hash of its sessions and a hash of its users. Each node
//! has a set of notes: one note for each entry that the node has written.
//!
//! Nothing refreshes an entry. The node that wrote an entry removes it. If that node has crashed,
//! another node finds the entry by its note. The note is therefore written before the entry, and
//! removed after the entry.

mod entries;
mod sweep;

use std::sync::Arc;

use curfew_backend::{BackendError, BoxFuture, Presence, PresenceList};
use curfew_model::json::object_text;
use curfew_model::{Channel, NodeId, PresenceChange, PresenceEntry, Present, SessionId};
use redis::{Value, from_redis_value};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::Redis;
use crate::connections::Keyed;
use crate::fault::Fault;
use crate::nodes::BATCH;
pub(crate) use sweep::sweep;

/// The version of an envelope with a presence change. Publications have lower versions.
const VERSION: u32 = 3;

/// The value of an entry. The first two members identify the entry, and a removal compares these
/// members.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    node: NodeId,
    number: u64,
    told: bool,
    user: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel_info: Option<Box<RawValue>>,
}

/// The message about a change of presence. `leave.lua` writes messages of the same form.
#[derive(Debug, Serialize, Deserialize)]
struct News<E> {
    v: u32,
    change: PresenceChange,
    session: SessionId,
    entry: E,
}

impl Stored {
    fn new(entry: &PresenceEntry) -> Self {
        let raw = |info: &Option<Arc<str>>| {
            let info = info.as_deref()?.to_owned();
            RawValue::from_string(info).ok()
        };
        Self {
            node: entry.node,
            number: entry.number,
            told: entry.is_told,
            user: entry.present.user.to_string(),
            info: raw(&entry.present.info),
            channel_info: raw(&entry.present.channel_info),
        }
    }

    fn present(self, session: SessionId) -> Present {
        Present {
            session,
            user: self.user.into(),
            info: self.info.map(|info| info.get().into()),
            channel_info: self.channel_info.map(|info| info.get().into()),
        }
    }
}

/// Builds the message about a change. `entry` is the JSON of the entry.
fn news(change: PresenceChange, session: SessionId, entry: &str) -> String {
    let news = News {
        v: VERSION,
        change,
        session,
        entry: serde_json::from_str::<&RawValue>(entry).ok(),
    };
    json(&news)
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("strings, numbers and JSON are JSON")
}

/// Parses a message about a change; `None` if the payload is something else.
pub(crate) fn read_news(payload: &[u8]) -> Option<(PresenceChange, Present)> {
    let news: News<Stored> = serde_json::from_str(object_text(payload)?).ok()?;
    (news.v == VERSION).then(|| (news.change, news.entry.present(news.session)))
}

/// The note of a presence entry: the entry's item in the set `Keys::node_presence` of its node. The
/// note identifies the entry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Note {
    session: SessionId,
    /// See [`PresenceEntry::number`].
    number: u64,
    channel: Channel,
}

impl Note {
    pub(crate) fn of(entry: &PresenceEntry) -> Self {
        Self {
            session: entry.present.session,
            number: entry.number,
            channel: entry.channel.clone(),
        }
    }

    pub(crate) fn session(&self) -> SessionId {
        self.session
    }

    fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ':');
        Some(Self {
            session: parts.next()?.parse().ok()?,
            number: parts.next()?.parse().ok()?,
            channel: Channel::parse(parts.next()?).ok()?,
        })
    }

    fn written(&self) -> String {
        format!("{}:{}:{}", self.session, self.number, self.channel)
    }

    /// The beginning of the entry's value, up to the number. No other entry of the session has the
    /// same beginning.
    fn beginning(&self, node: NodeId) -> String {
        format!(r#"{{"node":"{node}","number":{},"#, self.number)
    }
}

impl Presence for Redis {
    /// Takes one round trip to Redis for each batch of entries. A cluster takes up to three,
    /// because the notes, the entries and the join messages are in different slots.
    fn enter<'a>(
        &'a self,
        entries: &'a [PresenceEntry],
    ) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async move {
            for batch in entries.chunks(BATCH) {
                self.connections.enter(batch).await?;
            }
            Ok(())
        })
    }

    fn leave<'a>(
        &'a self,
        entries: &'a [PresenceEntry],
    ) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(async move {
            let notes: Vec<Note> = entries.iter().map(Note::of).collect();
            self.connections
                .remove_noted(self.core.node, &notes)
                .await?;
            Ok(())
        })
    }

    fn list<'a>(
        &'a self,
        channel: &'a Channel,
        limit: usize,
    ) -> BoxFuture<'a, Result<PresenceList, BackendError>> {
        Box::pin(async move {
            let keys = self.core.keys.presence(channel);
            let commands = vec![
                Keyed::new("HRANDFIELD", &keys.sessions)
                    .arg(limit)
                    .arg("WITHVALUES"),
                Keyed::new("HLEN", &keys.sessions),
                Keyed::new("HLEN", &keys.users),
            ];
            // One transaction reads the list and the counts, so that they match.
            let replies = self.connections.transact(commands).await?;
            let list = read_list(replies).ok_or(Fault::Unexpected("HRANDFIELD"))?;
            Ok(list)
        })
    }
}

/// Parses the replies to the commands of `list`. An entry that Curfew did not write is skipped.
fn read_list(replies: Vec<Value>) -> Option<PresenceList> {
    let [fields, count, users] = <[Value; 3]>::try_from(replies).ok()?;
    let fields: Vec<(String, Vec<u8>)> = from_redis_value(fields).ok()?;
    let sessions = fields.into_iter().filter_map(|(session, value)| {
        let stored: Stored = serde_json::from_slice(&value).ok()?;
        Some(stored.present(session.parse().ok()?))
    });
    Some(PresenceList {
        sessions: sessions.collect(),
        count: from_redis_value(count).ok()?,
        users: from_redis_value(users).ok()?,
    })
}
