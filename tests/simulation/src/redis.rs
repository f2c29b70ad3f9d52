//! A Redis server as a pure state machine. Its input is the bytes of clients, its output is replies
//! and pushes.
//!
//! Owns: the data, the connections, and the order of replies and pushes, which is the same as in
//! Redis 7.0. It implements the commands that the gateway uses or that an operator would type.
//! Knows nothing of: sockets, clocks, threads. The caller passes the time and carries the bytes.
//! Start at [`Server::receive`].
//!
//! A turn is one iteration of Redis' event loop: the time between two calls of
//! [`Server::take_output`]. Commands of several connections may run in one turn. Connections that
//! track keys by prefix get their invalidations at the end of the turn, after every reply.

mod call;
mod client;
mod commands;
mod connection;
mod data;
mod dispatch;
mod glob;
mod hashes;
mod introspection;
mod keyspace;
mod number;
mod presence;
mod pubsub;
mod reply;
mod scripts;
mod sets;
mod sha1;
mod sorted;
mod sorted_set;
mod streams;
mod strings;
mod tracking;
mod transactions;
mod wire;

use std::collections::BTreeMap;
use std::time::Duration;

use call::milliseconds;
use client::Client;
use data::Data;
use pubsub::Listeners;
pub use reply::Reply;
use scripts::Scripts;
use tracking::Tracked;

/// The version in `INFO`.
const VERSION: &str = "7.0.15";

/// The id of a connection; `CLIENT ID` answers with it.
pub type ConnectionId = u64;

/// The connection of [`Server::run`].
const OPERATOR: ConnectionId = ConnectionId::MAX;

/// The server.
#[derive(Debug)]
pub struct Server {
    data: Data,
    clients: BTreeMap<ConnectionId, Client>,
    listeners: Listeners,
    tracked: Tracked,
    watchers: BTreeMap<Vec<u8>, Vec<ConnectionId>>,
    scripts: Scripts,
    /// The connection whose command runs.
    executing: Option<ConnectionId>,
    /// Pushes to the connection whose command runs. They are sent after the reply of the command.
    deferred: Vec<u8>,
    /// Connections with output, in the order of their first output.
    noted: Vec<ConnectionId>,
    /// The last output of connections that are closed.
    farewells: Vec<(ConnectionId, Vec<u8>)>,
    closed: Vec<ConnectionId>,
    log: Vec<Executed>,
    out_of_memory: bool,
    replica: bool,
    random: u64,
    run_id: String,
    replication_id: String,
    started_at: Duration,
    /// The empty fields that stand for a hash that does not exist.
    nothing: data::Fields,
}

/// The data at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot(Data);

/// An executed effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    /// Time of execution by Redis' clock.
    pub at: Duration,
    /// The connection whose command had the effect; `None` if an operator's command had it, or a
    /// key expired.
    pub by: Option<ConnectionId>,
    /// The effect.
    pub what: Effect,
}

/// The effect of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A message was published.
    Published {
        /// The channel's name.
        channel: Vec<u8>,
        /// The message.
        payload: Vec<u8>,
        /// The number of connections that received the message.
        receivers: usize,
    },
    /// A string has a new value.
    Set {
        /// The string's key.
        key: Vec<u8>,
        /// The whole value.
        value: Vec<u8>,
    },
    /// A key was removed.
    Removed {
        /// The key's name.
        key: Vec<u8>,
    },
    /// A hash of presence was changed.
    Hash {
        /// The key of the hash.
        key: Vec<u8>,
        /// All fields of the hash after the change.
        fields: Vec<(Vec<u8>, Vec<u8>)>,
    },
    /// A key has changed in another way.
    Other {
        /// Name of the command, in capitals.
        command: String,
        /// The key.
        key: Vec<u8>,
    },
}

impl Server {
    /// An empty server. Its ids are derived from this seed.
    pub fn new(run_id_seed: u64) -> Self {
        let mut server = Self {
            data: Data::default(),
            clients: BTreeMap::new(),
            listeners: Listeners::default(),
            tracked: Tracked::default(),
            watchers: BTreeMap::new(),
            scripts: Scripts::new(),
            executing: None,
            deferred: Vec::new(),
            noted: Vec::new(),
            farewells: Vec::new(),
            closed: Vec::new(),
            log: Vec::new(),
            out_of_memory: false,
            replica: false,
            random: run_id_seed,
            run_id: String::new(),
            replication_id: String::new(),
            started_at: Duration::ZERO,
            nothing: Vec::new(),
        };
        server.run_id = server.random_id();
        server.replication_id = server.random_id();
        server
    }

    // Connections.

    /// Opens a connection. It speaks RESP2 until it sends `HELLO 3`.
    pub fn connect(&mut self, id: ConnectionId) {
        self.disconnect(id);
        self.clients.insert(id, Client::default());
    }

    /// Closes a connection and drops its output.
    pub fn disconnect(&mut self, id: ConnectionId) {
        self.forget(id);
        self.clients.remove(&id);
    }

    /// Executes each complete command in a client's bytes, in order. `now` is the time of Redis'
    /// clock since 1970.
    pub fn receive(&mut self, id: ConnectionId, bytes: &[u8], now: Duration) {
        self.take_input(id, bytes, now);
    }

    /// Runs one command on a separate connection, in RESP3, as an operator would.
    pub fn run(&mut self, now: Duration, command: &[&[u8]]) -> Reply {
        let client = Client {
            resp3: true,
            ..Client::default()
        };
        self.clients.insert(OPERATOR, client);
        self.execute(OPERATOR, command, now);
        let output = self
            .clients
            .get_mut(&OPERATOR)
            .map(|client| std::mem::take(&mut client.output));
        self.disconnect(OPERATOR);
        self.noted.retain(|id| *id != OPERATOR);
        let reply = output.as_deref().and_then(Reply::parse);
        reply.map_or(Reply::Nil, |(reply, _)| reply)
    }

    /// Ends a turn of the event loop. Returns the output of each connection, in order.
    pub fn take_output(&mut self) -> Vec<(ConnectionId, Vec<u8>)> {
        self.broadcast();
        let mut all = std::mem::take(&mut self.farewells);
        for id in std::mem::take(&mut self.noted) {
            if let Some(client) = self.clients.get_mut(&id) {
                client.is_noted = false;
                let output = std::mem::take(&mut client.output);
                if !output.is_empty() {
                    all.push((id, output));
                }
            }
        }
        all
    }

    /// Returns the connections that the server has closed since the last call. Call it after
    /// [`Server::take_output`], which returns their last output.
    pub fn take_closed(&mut self) -> Vec<ConnectionId> {
        std::mem::take(&mut self.closed)
    }

    // Time.

    /// Time at which the next key expires. From this time on no reader sees the key.
    pub fn next_expiry(&self) -> Option<Duration> {
        if self.replica {
            return None;
        }
        let end = self.data.first_expiry()?;
        let next = u64::try_from(end.saturating_add(1)).unwrap_or_default();
        Some(Duration::from_millis(next))
    }

    /// Removes every due key, and notifies the connections that track it.
    pub fn expire(&mut self, now: Duration) {
        while !self.replica
            && let Some(key) = self.data.first_due(milliseconds(now))
        {
            self.lapse(&key, now);
        }
    }

    // Faults.

    /// A copy of the data, for [`Server::restart`].
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.data.clone())
    }

    /// Restarts the process. Every connection is closed, the server has new ids and no scripts, and
    /// its data is `data`, or no data if `data` is `None`.
    pub fn restart(&mut self, data: Option<Snapshot>, now: Duration) {
        self.farewells.clear();
        self.noted.clear();
        self.closed
            .extend(std::mem::take(&mut self.clients).into_keys());
        self.listeners = Listeners::default();
        self.tracked = Tracked::default();
        self.watchers.clear();
        self.scripts.forget();
        self.data = data.unwrap_or_default().0;
        self.run_id = self.random_id();
        self.replication_id = self.random_id();
        self.started_at = now;
    }

    /// If `out` is true, commands that take memory are refused from now on. If `out` is false, they
    /// are accepted again.
    pub fn set_out_of_memory(&mut self, out: bool) {
        self.out_of_memory = out;
    }

    /// Makes the server a replica, which accepts no writes and expires nothing by itself. `false`
    /// makes it a primary again, with a new replication history.
    pub fn set_replica(&mut self, replica: bool) {
        if self.replica && !replica {
            self.replication_id = self.random_id();
        }
        self.replica = replica;
    }

    // For checks.

    /// The effects since the last call: changes of data, and publications.
    pub fn take_log(&mut self) -> Vec<Executed> {
        std::mem::take(&mut self.log)
    }

    /// The value of a string.
    pub fn get(&self, key: &[u8], now: Duration) -> Option<Vec<u8>> {
        let entry = self.data.live(key, milliseconds(now));
        data::string(entry).ok().flatten().map(<[u8]>::to_vec)
    }

    /// The fields of a hash.
    pub fn hash(&self, key: &[u8], now: Duration) -> Vec<(Vec<u8>, Vec<u8>)> {
        let entry = self.data.live(key, milliseconds(now));
        data::hash(entry).cloned().unwrap_or_default()
    }

    /// The members of a set.
    pub fn members(&self, key: &[u8], now: Duration) -> Vec<Vec<u8>> {
        let entry = self.data.live(key, milliseconds(now));
        let set = data::set(entry).ok().flatten();
        let members = set.iter().flat_map(|set| &set.0);
        members.map(|(_, member)| member.clone()).collect()
    }

    /// Every key, sorted.
    pub fn keys(&self, now: Duration) -> Vec<Vec<u8>> {
        let now = milliseconds(now);
        let all = self.data.iter().map(|(key, _)| key);
        all.filter(|key| !self.data.is_due(key, now))
            .map(<[u8]>::to_vec)
            .collect()
    }

    /// A random id of forty hexadecimal digits (splitmix64).
    fn random_id(&mut self) -> String {
        let mut id = String::new();
        while id.len() < 40 {
            self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.random;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            id.push_str(&format!("{:016x}", mixed ^ (mixed >> 31)));
        }
        id.truncate(40);
        id
    }
}
