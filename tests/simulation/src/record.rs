//! The record of a run, for the checker: the bytes written to each client with their times, the
//! commands that Redis executed, the answers to requests, and the periods of trouble.

mod presence;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use curfew_model::SessionId;
use serde_json::Value;

use crate::redis::Effect;
use crate::world::ConnectionId;

pub use presence::{Entry, Listing, Presence, Visit};

/// Everything that the checker uses. Times count from the beginning of the run.
#[derive(Debug, Default)]
pub struct Record {
    /// Bytes that nodes wrote to clients.
    pub wires: BTreeMap<ConnectionId, Wire>,
    /// The effects of Redis' commands, each with the process that sent the command.
    pub effects: Vec<(Duration, Option<usize>, Effect)>,
    /// Revocations that operators wrote, directly or through a node's admin API.
    pub bans: Vec<Ban>,
    /// Revocations that were requested from a node's admin API and that are not written yet: their
    /// keys and targets.
    pub asked: Vec<(Vec<u8>, Target)>,
    /// Publications of clients.
    pub publications: BTreeMap<u64, Published>,
    /// True if one of the channels has a stream.
    pub streams: bool,
    /// The publications with a position in the stream, in the order in which Redis accepted them:
    /// time, position, and number.
    pub placed: Vec<(Duration, Place, u64)>,
    /// The presence in the lobby.
    pub presence: Presence,
    /// True if there is a vault.
    pub vault: bool,
    /// Periods of trouble.
    pub troubles: Vec<Trouble>,
    /// The losses of data: the time at which Redis returned, and the earlier time whose data it
    /// has.
    pub losses: Vec<(Duration, Duration)>,
    /// Answers to revocations through a node's admin API.
    pub receipts: Vec<Receipt>,
    /// Changes of settings, and starts of processes with their settings.
    pub reloads: Vec<Reload>,
    /// The process that has each node id.
    pub ids: BTreeMap<String, usize>,
    /// Times of crashes, by process.
    pub crashed: BTreeMap<usize, Duration>,
    /// Changes of wall clocks: process, time, and microseconds ahead from then on.
    pub clocks: Vec<(usize, Duration, i64)>,
    /// End of the run.
    pub ended_at: Duration,
    /// The keys that Redis has at the end.
    pub left: BTreeSet<Vec<u8>>,
    /// The story of the run, for people.
    pub story: Vec<(Duration, String)>,
}

/// A position in a stream: its epoch and offset.
pub type Place = (String, u64);

/// The bytes written to one client, and the facts about its connection.
#[derive(Debug, Default)]
pub struct Wire {
    /// The process that wrote the bytes.
    pub node: usize,
    /// The number of the client.
    pub client: usize,
    /// The written bytes.
    pub bytes: Vec<u8>,
    /// For each write, its end in `bytes` and the time at which its call began.
    pub writes: Vec<(usize, Duration)>,
    /// Time at which either end closed the connection.
    pub ended_at: Option<Duration>,
    /// The tokens that the client sent, in order.
    pub tokens: Vec<Token>,
    /// The position with which the client subscribed to the channel with a stream.
    pub since: Option<Place>,
    /// The client's commands about the lobby by their numbers, each with the time at which it was
    /// sent.
    pub visits: BTreeMap<u64, (Duration, Visit)>,
    /// The tokens of subscriptions to the vault, by the number of the command that subscribes.
    pub vault_tokens: BTreeMap<u64, Token>,
}

/// A token that a client sent.
#[derive(Debug, Clone)]
pub struct Token {
    /// Time at which the client sent the token.
    pub sent_at: Duration,
    /// The token's user.
    pub user: String,
    /// The tenant.
    pub tenant: String,
    /// The token's `jti`.
    pub id: String,
    /// The token's `iat`, in seconds since 1970.
    pub issued_at: u64,
    /// The token's `exp`, in seconds since 1970.
    pub expires_at: u64,
}

/// The target of a ban.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A user.
    User(String),
    /// A tenant, which counts only if nodes are configured for it.
    Tenant(String),
    /// One token.
    Token(String),
    /// One session.
    Session(SessionId),
    /// Everyone.
    All,
}

/// A written revocation.
#[derive(Debug, Clone)]
pub struct Ban {
    /// Time at which Redis executed the write.
    pub at: Duration,
    /// The key.
    pub key: Vec<u8>,
    /// The key's target.
    pub target: Target,
    /// Cutoff for the time of issue, in seconds since 1970; `None` covers all tokens.
    pub before: Option<u64>,
    /// Time at which an operator deleted the key, or wrote it again.
    pub lifted_at: Option<Duration>,
}

/// A publication of a client.
#[derive(Debug)]
pub struct Published {
    /// The channel's index.
    pub channel: usize,
    /// The answer: `ok`, or the code of the error; `None` if there is no answer yet.
    pub answer: Option<String>,
    /// Times at which Redis executed the publication.
    pub executed: Vec<Duration>,
    /// The attempts, in order: their times and connections. The client sends the publication again,
    /// with its key, if it may not have been accepted.
    pub attempts: Vec<(Duration, ConnectionId)>,
}

impl Published {
    /// The time of the first attempt.
    pub fn sent_at(&self) -> Duration {
        self.attempts[0].0
    }
}

/// A period of trouble.
#[derive(Debug, Clone, Copy)]
pub struct Trouble {
    /// The process that had the trouble; `None` if all processes had it.
    pub node: Option<usize>,
    /// Start of the period.
    pub from: Duration,
    /// End of the period.
    pub until: Duration,
    /// True if the process's code did not run; false if its link to Redis was faulty.
    pub stopped: bool,
}

/// The answer to a revocation through a node's admin API.
#[derive(Debug)]
pub struct Receipt {
    /// Time of the answer.
    pub at: Duration,
    /// The revocation's target.
    pub target: Target,
    /// Processes that have not confirmed.
    pub missing: Vec<usize>,
    /// Time of the request.
    pub asked_at: Duration,
}

/// A change of settings, or the start of a process with its settings.
#[derive(Debug)]
pub struct Reload {
    /// The process whose settings these are.
    pub node: usize,
    /// Time of the change.
    pub at: Duration,
    /// True if sessions are revocable by tenant from then on.
    pub tenants: bool,
    /// Time by which the node had compared every session under these settings.
    pub settled_at: Option<Duration>,
}

impl Record {
    /// Records a node's write to a client.
    pub fn wrote(&mut self, connection: ConnectionId, bytes: &[u8], began: Duration) {
        let wire = self.wires.entry(connection).or_default();
        wire.bytes.extend_from_slice(bytes);
        wire.writes.push((wire.bytes.len(), began));
    }

    /// Records that one end of a connection closed the connection.
    pub fn wire_ended(&mut self, connection: ConnectionId, at: Duration) {
        if let Some(wire) = self.wires.get_mut(&connection) {
            wire.ended_at.get_or_insert(at);
        }
    }

    /// Records an effect that Redis executed.
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
        // Only a revocation by a node's admin API has an id. A revocation that a node writes back
        // has none.
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

    /// Records a period in which a process's code did not run.
    pub fn stopped(&mut self, node: usize, from: Duration, until: Duration) {
        self.trouble(Some(node), from, until, true);
    }

    /// Records a period in which all code stood still, because the code of one process was stopped
    /// in the middle.
    pub fn held_up(&mut self, from: Duration, until: Duration) {
        self.trouble(None, from, until, true);
    }

    /// True if sessions of a process are revocable by tenant.
    pub fn tenants_of(&self, node: usize) -> bool {
        let mut reloads = self.reloads.iter().filter(|reload| reload.node == node);
        reloads.next_back().is_some_and(|reload| reload.tenants)
    }

    /// Records the start of a process, with its settings.
    pub fn began(&mut self, node: usize, at: Duration, tenants: bool) {
        self.reloads.push(Reload {
            node,
            at,
            tenants,
            settled_at: Some(at),
        });
    }

    /// Records a key that an operator wrote. The new value replaces an earlier ban of the same key.
    pub fn banned(&mut self, ban: Ban) {
        self.lifted(&ban.key, ban.at);
        self.bans.push(ban);
    }

    /// Records that an operator deleted a key.
    pub fn lifted(&mut self, key: &[u8], at: Duration) {
        for ban in &mut self.bans {
            if ban.key == key && ban.lifted_at.is_none() {
                ban.lifted_at = Some(at);
            }
        }
    }

    /// Records a period of trouble.
    pub fn trouble(&mut self, node: Option<usize>, from: Duration, until: Duration, stopped: bool) {
        self.troubles.push(Trouble {
            node,
            from,
            until,
            stopped,
        });
    }

    /// Records the end of a process.
    pub fn ended(&mut self, node: usize, at: Duration) {
        self.crashed.insert(node, at);
    }

    /// Records that Redis returned with the data of an earlier time.
    pub fn lost_data(&mut self, at: Duration, data_of: Duration) {
        self.losses.push((at, data_of));
    }

    /// Adds a line to the story.
    pub fn tell(&mut self, at: Duration, what: String) {
        self.story.push((at, what));
    }
}

/// The position in a publication's envelope, if it has one.
fn place_of(envelope: &[u8]) -> Option<Place> {
    let envelope: Value = serde_json::from_slice(envelope).ok()?;
    place(&envelope)
}

/// The position in a frame or an envelope.
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
