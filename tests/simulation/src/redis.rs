//! A Redis server as a pure state machine: bytes of clients in, replies and pushes out.
//!
//! Owns: the data, the connections, and the order in which replies and pushes are sent, which is that
//! of Redis 7.0. It has what the gateway uses, and what an operator would type.
//! Knows nothing of: sockets, clocks, threads. The caller says what time it is, and carries the bytes.
//! Start at [`Server::receive`].
//!
//! A turn of Redis' event loop is what happens between two calls of [`Server::take_output`]: several
//! connections' commands may run in it, and invalidations of keys that are tracked by prefix are told
//! at its end, after every reply.

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

/// The server's role.
const VERSION: &str = "7.0.15";

/// Names a connection; `CLIENT ID` answers with it.
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
    /// The connection of the running command.
    executing: Option<ConnectionId>,
    /// Pushes to the connection whose command runs, after its reply.
    deferred: Vec<u8>,
    /// Connections that have output, in the order in which they came to have it.
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
    /// The fields of a hash that is not there.
    nothing: data::Fields,
}

/// The data as they were at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot(Data);

/// Something that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    /// By Redis' clock.
    pub at: Duration,
    /// The connection that asked for it; none where an operator did, or time passed.
    pub by: Option<ConnectionId>,
    /// The effect.
    pub what: Effect,
}

/// The effect of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A message was published.
    Published {
        /// The channel of the publication.
        channel: Vec<u8>,
        /// The channel's name.
        payload: Vec<u8>,
        /// The number of connections that were told.
        receivers: usize,
    },
    /// A string has this value now.
    Set {
        /// Its key.
        key: Vec<u8>,
        /// All of it.
        value: Vec<u8>,
    },
    /// A key is gone.
    Removed {
        /// Its name.
        key: Vec<u8>,
    },
    /// A hash of presence has these fields now.
    Hash {
        /// Its key.
        key: Vec<u8>,
        /// All of them.
        fields: Vec<(Vec<u8>, Vec<u8>)>,
    },
    /// A key has changed otherwise.
    Other {
        /// By which command, in capitals.
        command: String,
        /// The key.
        key: Vec<u8>,
    },
}

impl Server {
    /// An empty one, with ids made of this seed.
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

    /// A connection is made. It speaks RESP2 until it says `HELLO 3`.
    pub fn connect(&mut self, id: ConnectionId) {
        self.disconnect(id);
        self.clients.insert(id, Client::default());
    }

    /// A connection is gone, and what it was to be sent with it.
    pub fn disconnect(&mut self, id: ConnectionId) {
        self.forget(id);
        self.clients.remove(&id);
    }

    /// Bytes from a client: each command that is complete is executed, in order, at this moment of
    /// Redis' clock, which counts since 1970.
    pub fn receive(&mut self, id: ConnectionId, bytes: &[u8], now: Duration) {
        self.take_input(id, bytes, now);
    }

    /// Runs one command over a connection of its own, in RESP3, as an operator would.
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

    /// Ends a turn of the event loop: what each connection is to be sent, in order.
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

    /// Connections that the server has closed, each after the output that was taken last.
    pub fn take_closed(&mut self) -> Vec<ConnectionId> {
        std::mem::take(&mut self.closed)
    }

    // Time.

    /// Expiry of the next key; it is gone by then for every reader.
    pub fn next_expiry(&self) -> Option<Duration> {
        if self.replica {
            return None;
        }
        let end = self.data.first_expiry()?;
        let next = u64::try_from(end.saturating_add(1)).unwrap_or_default();
        Some(Duration::from_millis(next))
    }

    /// Removes every key that is due, and tells those who track it.
    pub fn expire(&mut self, now: Duration) {
        while !self.replica
            && let Some(key) = self.data.first_due(milliseconds(now))
        {
            self.lapse(&key, now);
        }
    }

    // Faults.

    /// The data as they are, to come back with [`Server::restart`].
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.data.clone())
    }

    /// A new process: every connection is closed, its ids are new, scripts are forgotten, and the
    /// data are these, or none.
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

    /// From now on what takes memory is refused, or is not.
    pub fn set_out_of_memory(&mut self, out: bool) {
        self.out_of_memory = out;
    }

    /// From now on it is a replica, which takes no writes and expires nothing by itself; or it is a
    /// primary again, with a history of its own.
    pub fn set_replica(&mut self, replica: bool) {
        if self.replica && !replica {
            self.replication_id = self.random_id();
        }
        self.replica = replica;
    }

    // For those who check.

    /// The effects since the last call, as far as data changed or was published.
    pub fn take_log(&mut self) -> Vec<Executed> {
        std::mem::take(&mut self.log)
    }

    /// A string.
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

    /// Every key, in order.
    pub fn keys(&self, now: Duration) -> Vec<Vec<u8>> {
        let now = milliseconds(now);
        let all = self.data.iter().map(|(key, _)| key);
        all.filter(|key| !self.data.is_due(key, now))
            .map(<[u8]>::to_vec)
            .collect()
    }

    /// Forty hexadecimal digits (splitmix64).
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
