//! The record for the checker: the bytes written to each client and when, the commands that Redis executed,
//! who was told what, and when something was wrong.

mod presence;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use curfew_model::SessionId;
use serde_json::Value;

use crate::redis::Effect;
use crate::world::ConnectionId;

pub use presence::{Entry, Listing, Presence, Visit};

/// Everything that the checker looks at. Times are since the beginning of the run.
#[derive(Debug, Default)]
pub struct Record {
    /// Bytes that nodes wrote to clients.
    pub wires: BTreeMap<ConnectionId, Wire>,
    /// The effects of Redis' commands, and for which process.
    pub effects: Vec<(Duration, Option<usize>, Effect)>,
    /// Revocations that operators wrote.
    pub bans: Vec<Ban>,
    /// Revocations that nodes' API was asked for and that are not written yet: keys, and whom they name.
    pub asked: Vec<(Vec<u8>, Target)>,
    /// Publications of clients.
    pub publications: BTreeMap<u64, Published>,
    /// One of the channels has a stream.
    pub streams: bool,
    /// The publications that have a place in it, in the order in which Redis took them: when, where, and
    /// their numbers.
    pub placed: Vec<(Duration, Place, u64)>,
    /// The presence in the lobby.
    pub presence: Presence,
    /// There is a vault.
    pub vault: bool,
    /// Periods of trouble.
    pub troubles: Vec<Trouble>,
    /// Redis came back, with the data of the time that is named second.
    pub losses: Vec<(Duration, Duration)>,
    /// Answers to revocations through a node.
    pub receipts: Vec<Receipt>,
    /// Times at which a process began to use other settings, whether sessions are revocable by
    /// tenant in them, and when it said that this is done.
    pub reloads: Vec<Reload>,
    /// The number of the process that has a node's id.
    pub ids: BTreeMap<String, usize>,
    /// Times of crashes, by process.
    pub crashed: BTreeMap<usize, Duration>,
    /// Wall clocks that were set: process, when, and by how much they are ahead from then on.
    pub clocks: Vec<(usize, Duration, i64)>,
    /// End of the run.
    pub ended_at: Duration,
    /// The keys that Redis has at the end.
    pub left: BTreeSet<Vec<u8>>,
    /// A story for people.
    pub story: Vec<(Duration, String)>,
}

/// A place in a stream: its epoch and offset.
pub type Place = (String, u64);

/// All that was written to one client.
#[derive(Debug, Default)]
pub struct Wire {
    /// The process that wrote it.
    pub node: usize,
    /// The client.
    pub client: usize,
    /// All of it.
    pub bytes: Vec<u8>,
    /// Up to which byte, and when the call began.
    pub writes: Vec<(usize, Duration)>,
    /// Time at which either end let go of it.
    pub ended_at: Option<Duration>,
    /// Tokens that the client showed, in order.
    pub tokens: Vec<Token>,
    /// The place with which it subscribed to the channel that has a stream.
    pub since: Option<Place>,
    /// The client's commands about the lobby by their numbers, and when they were sent.
    pub visits: BTreeMap<u64, (Duration, Visit)>,
    /// The tokens of subscriptions to the vault, by the numbers of the commands.
    pub vault_tokens: BTreeMap<u64, Token>,
}

/// A token that a client showed.
#[derive(Debug, Clone)]
pub struct Token {
    /// Time at which the client sent it.
    pub sent_at: Duration,
    /// The user it names.
    pub user: String,
    /// The tenant.
    pub tenant: String,
    /// Its `jti`.
    pub id: String,
    /// Its `iat`, since 1970.
    pub issued_at: u64,
    /// Its `exp`, since 1970.
    pub expires_at: u64,
}

/// The target of a ban.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A user.
    User(String),
    /// A tenant, where nodes are configured for it.
    Tenant(String),
    /// One token.
    Token(String),
    /// One session.
    Session(SessionId),
    /// Everyone.
    All,
}

/// A revocation that was written.
#[derive(Debug, Clone)]
pub struct Ban {
    /// Time at which Redis had it.
    pub at: Duration,
    /// The key.
    pub key: Vec<u8>,
    /// The target it names.
    pub target: Target,
    /// Tokens issued until then, since 1970; `None`: all.
    pub before: Option<u64>,
    /// Time at which an operator deleted the key.
    pub lifted_at: Option<Duration>,
}

/// A publication of a client.
#[derive(Debug)]
pub struct Published {
    /// Over which connection.
    pub connection: ConnectionId,
    /// Into which channel.
    pub channel: usize,
    /// Time at which it was sent.
    pub sent_at: Duration,
    /// `ok` or the code of the error.
    pub answer: Option<String>,
    /// Times at which Redis executed it.
    pub executed: Vec<Duration>,
    /// The number of times that it was sent: again, with its key, where it is not known to be taken.
    pub attempts: u32,
}

/// Something was wrong.
#[derive(Debug, Clone, Copy)]
pub struct Trouble {
    /// The process; `None`: all of them.
    pub node: Option<usize>,
    /// Since when.
    pub from: Duration,
    /// Until when.
    pub until: Duration,
    /// Its code did not run; otherwise it did not reach Redis as it should.
    pub stopped: bool,
}

/// The answer to a revocation through a node.
#[derive(Debug)]
pub struct Receipt {
    /// Time at which it was there.
    pub at: Duration,
    /// The target it names.
    pub target: Target,
    /// Processes that have not confirmed.
    pub missing: Vec<usize>,
    /// Time at which it was asked for.
    pub asked_at: Duration,
}

/// Other settings.
#[derive(Debug)]
pub struct Reload {
    /// The process.
    pub node: usize,
    /// Time at which they came.
    pub at: Duration,
    /// Sessions are revocable by tenant.
    pub tenants: bool,
    /// Time by which every session was compared with them.
    pub settled_at: Option<Duration>,
}

impl Record {
    /// A node has written to a client.
    pub fn wrote(&mut self, connection: ConnectionId, bytes: &[u8], began: Duration) {
        let wire = self.wires.entry(connection).or_default();
        wire.bytes.extend_from_slice(bytes);
        wire.writes.push((wire.bytes.len(), began));
    }

    /// An end of a connection has let go of it.
    pub fn wire_ended(&mut self, connection: ConnectionId, at: Duration) {
        if let Some(wire) = self.wires.get_mut(&connection) {
            wire.ended_at.get_or_insert(at);
        }
    }

    /// Redis has executed something.
    pub fn executed(&mut self, at: Duration, node: Option<usize>, effect: Effect) {
        if let Effect::Published { payload, .. } = &effect
            && let Some(number) = marker(payload)
            && let Some(published) = self.publications.get_mut(&number)
        {
            published.executed.push(at);
            if let Some(place) = place_of(payload) {
                self.placed.push((at, place, number));
            }
        }
        match &effect {
            Effect::Hash { key, fields } => self.presence.changed(at, key, fields),
            Effect::Removed { key } => self.presence.changed(at, key, &[]),
            _ => {}
        }
        // A revocation that is written back has no id.
        if let Effect::Set { key, value } = &effect
            && value.windows(4).any(|part| part == b"\"id\"")
            && let Some(asked) = self.asked.iter().position(|(asked, _)| asked == key)
        {
            let (key, target) = self.asked.swap_remove(asked);
            self.banned(Ban {
                at,
                key,
                target,
                before: None,
                lifted_at: None,
            });
        }
        if let Effect::Set { key, .. } | Effect::Removed { key } | Effect::Other { key, .. } =
            &effect
            && key.starts_with(b"curfew:{revoked}:")
        {
            let by = node.map_or("Redis or an operator".to_owned(), |node| {
                format!("process {node}")
            });
            let what = match &effect {
                Effect::Set { .. } => "sets",
                Effect::Removed { .. } => "removes",
                _ => "changes",
            };
            self.tell(at, format!("{by} {what} {}", String::from_utf8_lossy(key)));
        }
        self.effects.push((at, node, effect));
    }

    /// Code did not run.
    pub fn stopped(&mut self, node: usize, from: Duration, until: Duration) {
        self.trouble(Some(node), from, until, true);
    }

    /// Everyone's code stood still, one's in the middle.
    pub fn held_up(&mut self, from: Duration, until: Duration) {
        self.trouble(None, from, until, true);
    }

    /// True if sessions of a process are revocable by tenant.
    pub fn tenants_of(&self, node: usize) -> bool {
        let mut reloads = self.reloads.iter().filter(|reload| reload.node == node);
        reloads.next_back().is_some_and(|reload| reload.tenants)
    }

    /// A process has begun, with these settings.
    pub fn began(&mut self, node: usize, at: Duration, tenants: bool) {
        self.reloads.push(Reload {
            node,
            at,
            tenants,
            settled_at: Some(at),
        });
    }

    /// An operator has written a key. What it said before is no more.
    pub fn banned(&mut self, ban: Ban) {
        self.lifted(&ban.key, ban.at);
        self.bans.push(ban);
    }

    /// An operator has deleted a key.
    pub fn lifted(&mut self, key: &[u8], at: Duration) {
        for ban in &mut self.bans {
            if ban.key == key && ban.lifted_at.is_none() {
                ban.lifted_at = Some(at);
            }
        }
    }

    /// Something was wrong.
    pub fn trouble(&mut self, node: Option<usize>, from: Duration, until: Duration, stopped: bool) {
        self.troubles.push(Trouble {
            node,
            from,
            until,
            stopped,
        });
    }

    /// A process has ended.
    pub fn ended(&mut self, node: usize, at: Duration) {
        self.crashed.insert(node, at);
    }

    /// Redis came back with the data of an earlier time.
    pub fn lost_data(&mut self, at: Duration, data_of: Duration) {
        self.losses.push((at, data_of));
    }

    /// Something that a person wants to read.
    pub fn tell(&mut self, at: Duration, what: String) {
        self.story.push((at, what));
    }
}

/// The place in an envelope of a publication, if it has one.
fn place_of(envelope: &[u8]) -> Option<Place> {
    let envelope: Value = serde_json::from_slice(envelope).ok()?;
    place(&envelope)
}

/// The place that a frame or an envelope tells of.
pub fn place(told: &Value) -> Option<Place> {
    let epoch = told["epoch"].as_str()?.to_owned();
    Some((epoch, told["offset"].as_u64()?))
}

/// The number in the data of a publication: `"#17"`.
pub fn marker(payload: &[u8]) -> Option<u64> {
    let at = payload.windows(2).position(|pair| pair == b"\"#")? + 2;
    let digits = payload[at..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit());
    let number = |number: u64, digit: &u8| number * 10 + u64::from(digit - b'0');
    Some(digits.fold(0, number))
}
