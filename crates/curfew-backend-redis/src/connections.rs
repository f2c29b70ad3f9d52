//! The two connections to each primary: one for commands, one for publications.
//!
//! Each connection is made again when it breaks, and is tested every second. The test of the
//! connection for commands reads Redis' clock for the [fence](crate::fence). The test of the
//! connection for publications sends a publication and waits for it. A third connection is the
//! control connection: see [`crate::control`].

mod commands;
mod keyed;
mod missed;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use curfew_model::{Channel, Position};
use futures_util::future::try_join_all;
use parking_lot::Mutex;
use redis::{FromRedisValue, RedisError, Value, from_redis_value, pipe};
use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::batcher::BatchSender;
use crate::config::{RedisAddress, RedisTarget};
use crate::connect::Connection;
use crate::core::Core;
use crate::fault::Fault;
use crate::fence::{FENCED, Fence};
use crate::inbox::Inbox;
use crate::layout::{Layout, Shard};
use crate::slots::{Slot, slot_of};
use crate::streams::NewEntry;
use crate::subscriber::Verbs;
use crate::{span, subscriber};
pub(crate) use keyed::Keyed;

/// Interval between two tests of a connection.
pub(crate) const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Interval between two lookups of the primaries, if the layout can change.
const LAYOUT_INTERVAL: Duration = Duration::from_secs(5);

/// Shortest pause between two lookups of the primaries.
const LAYOUT_PAUSE: Duration = Duration::from_millis(200);

/// The connections to every primary.
pub(crate) struct Connections {
    pub(crate) core: Arc<Core>,
    pub(crate) inbox: Arc<Inbox>,
    current: ArcSwap<Current>,
    /// Held while `current` is replaced, because two tasks may find a new layout at the same time.
    updating: Mutex<()>,
    /// Held while the connected state is computed and stored.
    noting: Mutex<()>,
    /// Held while presence entries are written again.
    pub(crate) rewriting_presence: AsyncMutex<()>,
    /// The channels that sessions of this node listen to.
    pub(crate) wanted: Mutex<HashSet<Channel>>,
    /// The channels whose publications were interrupted. Their listeners are notified of the gap
    /// once publications arrive again.
    pub(crate) missed: Mutex<HashSet<Channel>>,
    /// Notified when a server does not have the expected role or slots, so that the layout is
    /// looked up again.
    pub(crate) stale: Notify,
    /// Notifies the control connection that the layout has changed.
    pub(crate) changed: Notify,
}

#[derive(Debug, Default)]
struct Current {
    cluster: bool,
    servers: Vec<Arc<ServerConnections>>,
}

/// The connections to one primary.
#[derive(Debug)]
pub(crate) struct ServerConnections {
    pub(crate) address: RedisAddress,
    /// The slots of this primary.
    shard: ArcSwap<Shard>,
    /// The connection for commands; empty while there is none.
    commands: ArcSwapOption<Commands>,
    pub(crate) subscriber: ArcSwapOption<Connection>,
    /// The slots whose channels the connection for publications is subscribed to. Set before the
    /// first subscription, and cleared when the loss of the connection is recorded as an
    /// interruption.
    carries: ArcSwapOption<Shard>,
    /// Notified when a command failed in a way that a retry cannot fix, so that the connection for
    /// commands is replaced.
    broken: Notify,
    /// Notified when the server's slots have changed, and with them the channels to subscribe to.
    pub(crate) moved: Notify,
    /// Cancelled when the server is no longer a primary.
    stop: CancellationToken,
}

/// A connection for commands.
#[derive(Debug)]
struct Commands {
    connection: Connection,
    /// The queue that combines commands of many tasks into one write on this connection.
    batches: BatchSender,
    /// The fence of this connection, with the server's replication id.
    fence: Arc<Fence>,
}

impl Connections {
    pub(crate) fn new(core: Arc<Core>, inbox: Arc<Inbox>) -> Arc<Self> {
        Arc::new(Self {
            core,
            inbox,
            current: ArcSwap::default(),
            updating: Mutex::default(),
            noting: Mutex::default(),
            rewriting_presence: AsyncMutex::default(),
            wanted: Mutex::default(),
            missed: Mutex::default(),
            stale: Notify::new(),
            changed: Notify::new(),
        })
    }

    /// Keeps connections to exactly the primaries of `layout` from now on.
    pub(crate) fn update(self: &Arc<Self>, layout: &Layout) {
        // The lock is held until the end, because `current` is read here and replaced below.
        let _one_at_a_time = self.updating.lock();
        let before = self.current.load_full();
        // Interruptions are noted first: other servers carry the channels as soon as `update` gives
        // them the slots.
        for server in &before.servers {
            self.note_left(server, layout);
        }
        let mut servers = Vec::with_capacity(layout.shards.len());
        for shard in &layout.shards {
            let known = before
                .servers
                .iter()
                .find(|server| server.address == shard.address && before.cluster == layout.cluster);
            match known {
                // A server that stays a primary keeps its connections, even if its slots have
                // changed.
                Some(server) => {
                    if **server.shard.load() != *shard {
                        server.shard.store(Arc::new(shard.clone()));
                        server.moved.notify_one();
                    }
                    servers.push(Arc::clone(server));
                }
                None => servers.push(Arc::new(ServerConnections::new(shard.clone()))),
            }
        }
        let new: Vec<_> = servers
            .iter()
            .filter(|server| !before.servers.iter().any(|old| Arc::ptr_eq(old, server)))
            .cloned()
            .collect();
        for old in &before.servers {
            if !servers.iter().any(|server| Arc::ptr_eq(old, server)) {
                info!(redis = %old.address, "server is no longer a primary");
                old.stop.cancel();
            }
        }
        self.current.store(Arc::new(Current {
            cluster: layout.cluster,
            servers,
        }));
        for server in new {
            self.core.spawn(commands::keep(
                Arc::clone(self),
                Arc::clone(&server),
                layout.cluster,
            ));
            self.core
                .spawn(subscriber::keep(Arc::clone(self), server, layout.cluster));
        }
        self.note_connected();
        self.changed.notify_one();
    }

    /// Forgets a channel that no session of this node listens to.
    pub(crate) fn forget(&self, channel: &Channel) {
        let mut wanted = self.wanted.lock();
        // Both locks are held until the end. A new subscription to the channel waits meanwhile, so
        // an interruption that is noted for the new subscription is not removed here.
        wanted.remove(channel);
        self.missed.lock().remove(channel);
    }

    /// The last known address of a slot's primary.
    pub(crate) fn primary_of(&self, slot: Slot) -> Option<RedisAddress> {
        let server = self.of(slot).ok()?;
        Some(server.address.clone())
    }

    /// The last known addresses of the primaries.
    pub(crate) fn addresses(&self) -> Vec<RedisAddress> {
        let current = self.current.load();
        current
            .servers
            .iter()
            .map(|server| server.address.clone())
            .collect()
    }

    /// True for a Redis Cluster.
    pub(crate) fn is_cluster(&self) -> bool {
        self.current.load().cluster
    }

    /// The connections to the primary of a slot.
    pub(crate) fn of(&self, slot: Slot) -> Result<Arc<ServerConnections>, Fault> {
        let current = self.current.load();
        current
            .servers
            .iter()
            .find(|server| server.has(slot))
            .cloned()
            .ok_or(Fault::NotConnected)
    }

    /// Records whether every primary has a connection for commands, and whether every primary has a
    /// connection for publications.
    pub(crate) fn note_connected(&self) {
        // The lock covers both the read and the write of the state, so an earlier state never
        // replaces a later one.
        let _one_at_a_time = self.noting.lock();
        let current = self.current.load();
        let all = |has: fn(&ServerConnections) -> bool| {
            !current.servers.is_empty() && current.servers.iter().all(|server| has(server))
        };
        let listening = all(|server| server.subscriber.load().is_some());
        let commanding = all(|server| server.commands.load().is_some());
        self.core.status.set_connected(commanding, listening);
        let metrics = &self.core.metrics;
        metrics.broker_connected.set(i64::from(listening));
    }

    /// Executes one command.
    pub(crate) async fn call<T: FromRedisValue>(&self, command: Keyed) -> Result<T, Fault> {
        let server = self.of(command.slot)?;
        let mut span = span::begin(self.core.metrics.tracer(), command.name, 1, &server.address);
        let result = self.ask(&server, command).await;
        result.inspect_err(|fault| span::failed(&mut span, fault))
    }

    /// Executes one command at this server, and parses its reply.
    async fn ask<T: FromRedisValue>(
        &self,
        server: &ServerConnections,
        command: Keyed,
    ) -> Result<T, Fault> {
        let batches = server.batches()?;
        let began = Instant::now();
        let is_optional = command.is_optional();
        let replies = batches.run(vec![command.cmd]).await;
        let mut replies = replies.map_err(|fault| self.report_of(server, fault, is_optional))?;
        self.core.answered(command.name, began);
        let reply = replies.pop().unwrap_or_default();
        from_redis_value(reply).map_err(|error| RedisError::from(error).into())
    }

    /// Publishes into a channel, unless the time `until` ([`boottime`](curfew_model::boottime)) has
    /// passed. `channel` is the channel's name at Redis. With an `entry`, the publication is also
    /// appended to the channel's stream, and its position is returned. `payload` is then only the
    /// end of the publication's envelope.
    pub(crate) async fn publish(
        &self,
        channel: String,
        payload: Bytes,
        until: Duration,
        entry: Option<Box<NewEntry>>,
    ) -> Result<Option<Position>, Fault> {
        let server = self.of(slot_of(channel.as_bytes()))?;
        let batches = server.batches()?;
        let began = Instant::now();
        let published = batches.publish(channel, payload, until, entry).await;
        let position = published.map_err(|fault| self.report(&server, fault))?;
        let verb = Verbs::new(self.is_cluster()).publish;
        self.core.answered(verb, began);
        Ok(position)
    }

    /// The replication id of a slot's primary; empty if the connection for commands does not know
    /// it.
    pub(crate) fn server_id(&self, slot: Slot) -> String {
        let server = self.of(slot).ok();
        let commands = server.and_then(|server| server.commands.load_full());
        commands.map_or_else(String::new, |commands| commands.fence.server_id())
    }

    /// The deadline of a command that is sent now, by the clock of the slot's primary. The primary
    /// refuses the command after the deadline. See [`Fence::deadline_within`].
    pub(crate) fn deadline_within(&self, slot: Slot, longest: Duration) -> Result<i64, Fault> {
        let commands = self.of(slot)?.commands.load_full();
        let commands = commands.ok_or(Fault::NotConnected)?;
        let deadline = commands.fence.deadline_within(longest);
        deadline.ok_or(Fault::LeaseOver)
    }

    /// Executes the commands of each slot in one transaction. Without a cluster, one transaction
    /// contains all commands. Returns the replies in the order of the commands.
    pub(crate) async fn transact(&self, commands: Vec<Keyed>) -> Result<Vec<Value>, Fault> {
        if !self.is_cluster() {
            let slot = commands.first().map_or(Slot::REVOKED, |first| first.slot);
            return self.run(slot, commands, true).await;
        }
        self.scatter(commands, true).await
    }

    /// Executes the commands of each slot in one pipeline. Without a cluster, one pipeline contains
    /// all commands. Returns the replies in the order of the commands.
    pub(crate) async fn pipeline(&self, commands: Vec<Keyed>) -> Result<Vec<Value>, Fault> {
        if !self.is_cluster() {
            let slot = commands.first().map_or(Slot::REVOKED, |first| first.slot);
            return self.run(slot, commands, false).await;
        }
        self.scatter(commands, false).await
    }

    /// Groups commands by slot, executes each group, and returns the replies in the order of the
    /// commands.
    async fn scatter(&self, commands: Vec<Keyed>, atomic: bool) -> Result<Vec<Value>, Fault> {
        let count = commands.len();
        let mut by_slot: Vec<(Slot, Vec<usize>, Vec<Keyed>)> = Vec::new();
        for (at, command) in commands.into_iter().enumerate() {
            let slot = command.slot;
            match by_slot.iter_mut().find(|(known, ..)| *known == slot) {
                Some((_, places, commands)) => {
                    places.push(at);
                    commands.push(command);
                }
                None => by_slot.push((slot, vec![at], vec![command])),
            }
        }
        let parts = by_slot
            .into_iter()
            .map(|(slot, places, commands)| async move {
                let replies = self.run(slot, commands, atomic).await?;
                Ok::<_, Fault>((places, replies))
            });
        let mut replies = vec![Value::Nil; count];
        for (places, part) in try_join_all(parts).await? {
            for (place, reply) in places.into_iter().zip(part) {
                replies[place] = reply;
            }
        }
        Ok(replies)
    }

    /// Executes commands on the primary of `slot`, within one trace span.
    async fn run(
        &self,
        slot: Slot,
        commands: Vec<Keyed>,
        atomic: bool,
    ) -> Result<Vec<Value>, Fault> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let server = self.of(slot)?;
        let name = match &commands[..] {
            [command] => command.name,
            _ if atomic => span::TRANSACTION,
            _ => span::PIPELINE,
        };
        let tracer = self.core.metrics.tracer();
        let mut span = span::begin(tracer, name, commands.len(), &server.address);
        let began = Instant::now();
        let result = self.run_on(&server, commands, atomic).await;
        match &result {
            Ok(_) => self.core.answered(name, began),
            Err(fault) => span::failed(&mut span, fault),
        }
        result
    }

    /// Executes commands on this server's connection for commands.
    async fn run_on(
        &self,
        server: &ServerConnections,
        commands: Vec<Keyed>,
        atomic: bool,
    ) -> Result<Vec<Value>, Fault> {
        // One command needs no transaction.
        if !atomic || commands.len() == 1 {
            let has_optional = commands.iter().any(Keyed::is_optional);
            let commands = commands.into_iter().map(|command| command.cmd);
            let replies = server.batches()?.run(commands.collect()).await;
            return replies.map_err(|fault| self.report_of(server, fault, has_optional));
        }
        let mut pipeline = pipe();
        pipeline.atomic();
        for command in commands {
            pipeline.add_command(command.cmd);
        }
        let result = pipeline.query_async(&mut server.commands()?).await;
        result.map_err(|error| self.report(server, error.into()))
    }

    /// Reports a fault of commands. `has_optional` is true if the Redis user may lack the right to
    /// one of the commands. A missing right is then not reported, because the connection still
    /// works for all other commands.
    fn report_of(&self, server: &ServerConnections, fault: Fault, has_optional: bool) -> Fault {
        match fault.code() {
            Some("NOPERM") if has_optional => fault,
            Some(FENCED) => Fault::LeaseOver,
            _ => self.report(server, fault),
        }
    }

    /// Reports a fault. A fatal fault causes a new connection for commands. A misrouted command
    /// causes a new lookup of the layout.
    fn report(&self, server: &ServerConnections, fault: Fault) -> Fault {
        if fault.is_fatal() {
            server.broken.notify_one();
        }
        if fault.is_misrouted() {
            self.stale.notify_one();
        }
        debug!(redis = %server.address, error = %fault, "redis command failed");
        fault
    }
}

impl ServerConnections {
    fn new(shard: Shard) -> Self {
        Self {
            address: shard.address.clone(),
            shard: ArcSwap::from_pointee(shard),
            commands: ArcSwapOption::empty(),
            subscriber: ArcSwapOption::empty(),
            carries: ArcSwapOption::empty(),
            broken: Notify::new(),
            moved: Notify::new(),
            stop: CancellationToken::new(),
        }
    }

    /// True if the server holds the slot.
    pub(crate) fn has(&self, slot: Slot) -> bool {
        self.shard.load().has(slot)
    }

    /// Records that the connection for publications is about to carry the server's slots. Returns
    /// these slots.
    pub(crate) fn carry(&self) -> Arc<Shard> {
        let shard = self.shard.load_full();
        self.carries.store(Some(Arc::clone(&shard)));
        shard
    }

    /// The connection for commands.
    pub(crate) fn commands(&self) -> Result<Connection, Fault> {
        let commands = self.commands.load();
        let commands = commands.as_ref().ok_or(Fault::NotConnected)?;
        Ok(commands.connection.clone())
    }

    fn batches(&self) -> Result<BatchSender, Fault> {
        let commands = self.commands.load();
        let commands = commands.as_ref().ok_or(Fault::NotConnected)?;
        Ok(commands.batches.clone())
    }

    /// Resolves when the server is no longer a primary.
    pub(crate) async fn stopped(&self) {
        self.stop.cancelled().await;
    }
}

/// Looks up the primaries when a server does not have the expected role or slots. If the layout can
/// change, this task also looks up the primaries every few seconds, because a replaced primary that
/// is cut off from the new primary may keep answering.
pub(crate) async fn watch_layout(connections: Arc<Connections>) {
    let connector = &connections.core.connector;
    let can_change = !matches!(connector.server().target, RedisTarget::Standalone(_));
    loop {
        tokio::select! {
            () = connections.stale.notified() => {}
            () = time::sleep(LAYOUT_INTERVAL), if can_change => {}
        }
        match connector.layout(&connections.addresses()).await {
            Ok(layout) => connections.update(&layout),
            Err(fault) => debug!(error = %fault, "the primaries could not be found"),
        }
        // Many tasks may request a lookup at once. The pause lets one lookup serve all of them.
        time::sleep(LAYOUT_PAUSE).await;
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}
