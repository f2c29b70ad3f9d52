//! The nodes of the cluster: registration, liveness, and cleaning up after nodes that died.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use curfew_backend::{BackendError, BoxFuture, NodeInfo, Nodes, Standing};
use curfew_model::{NodeId, SessionId};
use redis::{Value, from_redis_value};
use tokio::time::{self, MissedTickBehavior};
use tracing::{debug, info};

use crate::Redis;
use crate::channels::ChannelComparison;
use crate::connections::Keyed;
use crate::fault::Fault;

/// Interval between two writes of a node's own record.
const REGISTER: Duration = Duration::from_secs(5);

/// Lifetime of a node's record, in milliseconds. Each write renews it.
const NODE_RECORD_MS: u64 = 15_000;

/// Interval between two searches for dead nodes. The records of a node are removed if the node's
/// lease is missing in two searches in a row.
const REAP: Duration = Duration::from_secs(5);

/// Lifetime of a node's claim to clean up after a dead node, in milliseconds. Each batch of removed
/// records renews the claim. If the claiming node crashes too, another node soon takes over.
const REAPING_MS: u64 = 5_000;

/// Maximum number of sessions whose records are removed in one pipeline.
pub(crate) const BATCH: usize = 500;

impl Nodes for Redis {
    fn list(&self) -> BoxFuture<'_, Result<Vec<NodeInfo>, BackendError>> {
        Box::pin(async move { Ok(self.list_nodes().await?) })
    }

    fn standing(&self) -> Standing {
        let status = &self.core.status;
        let why = match status.unready() {
            Some(why) => why,
            None if self.core.lease.is_held() => return Standing::InTouch,
            None => "sessions are being compared with redis".into(),
        };
        match status.was_ready() {
            true => Standing::OutOfTouch(why),
            false => Standing::Starting(why),
        }
    }

    fn clocks_agree(&self) -> bool {
        self.core.status.clocks_agree()
    }

    fn fencing(&self) -> Option<&'static str> {
        self.core.status.fencing()
    }

    fn note_channels(&self, digest: Option<String>) {
        self.core.channels.set_digest(digest);
        // This wakes the task that writes the node's record, because the record contains the
        // digest.
        self.core.status.unregistered.notify_one();
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // If the removal fails, another node removes the remaining records a little later.
            if let Err(fault) = self.unregister().await {
                debug!(error = %fault, "the node could not remove its registration from redis");
            }
            self.core.end_tasks().await;
        })
    }
}

impl Redis {
    /// The nodes that hold a lease.
    pub(crate) async fn live_nodes(&self) -> Result<Vec<NodeId>, Fault> {
        let known = self.known_nodes().await?;
        let leases = self.leases(&known).await?;
        let live = known.into_iter().zip(leases);
        Ok(live
            .filter_map(|(node, lives)| lives.then_some(node))
            .collect())
    }

    /// The registered nodes, including dead nodes that were not cleaned up yet.
    async fn known_nodes(&self) -> Result<Vec<NodeId>, Fault> {
        let nodes: Vec<String> = self
            .connections
            .call(Keyed::new("SMEMBERS", &self.core.keys.nodes()))
            .await?;
        let mut nodes: Vec<NodeId> = nodes.iter().filter_map(|node| node.parse().ok()).collect();
        nodes.sort_unstable();
        Ok(nodes)
    }

    /// For each node, true if the node holds a lease.
    pub(crate) async fn leases(&self, nodes: &[NodeId]) -> Result<Vec<bool>, Fault> {
        let Some((first, rest)) = nodes.split_first() else {
            return Ok(Vec::new());
        };
        let mut command = Keyed::new("MGET", &self.core.keys.heartbeat(*first));
        for node in rest {
            command = command.arg(self.core.keys.heartbeat(*node));
        }
        let leases: Vec<Option<String>> = self.connections.call(command).await?;
        Ok(leases.iter().map(Option::is_some).collect())
    }

    /// The nodes that hold a lease, with their records.
    async fn list_nodes(&self) -> Result<Vec<NodeInfo>, Fault> {
        let live = self.live_nodes().await?;
        let keys = &self.core.keys;
        let commands = live.iter().flat_map(|node| {
            [
                Keyed::new("HGETALL", &keys.node(*node)),
                Keyed::new("SCARD", &keys.node_sessions(*node)),
            ]
        });
        let replies = self.connections.pipeline(commands.collect()).await?;
        let nodes = live.iter().zip(replies.chunks(2));
        Ok(nodes
            .filter_map(|(node, replies)| {
                let [hash, sessions] = replies else {
                    return None;
                };
                read_node(*node, hash.clone(), sessions.clone())
            })
            .collect())
    }

    /// Writes this node's record, and adds it to the set of nodes.
    pub(crate) async fn register(&self) -> Result<(), Fault> {
        // `registration` is read before the write, so that the node registers again if its
        // registration is lost in between.
        let registration = self.core.status.registration();
        let keys = &self.core.keys;
        let node = keys.node(self.core.node);
        let sessions = self.core.local.sessions().len();
        let info = &self.info;
        let commands = vec![
            Keyed::new("SADD", &keys.nodes()).arg(self.core.node.to_string()),
            Keyed::new("HSET", &node)
                .arg(&[("name", &info.name), ("address", &info.address)])
                .arg(&[("version", &info.version)])
                .arg("started")
                .arg(info.started_at)
                .arg("sessions")
                .arg(sessions)
                .arg("channels")
                .arg(self.core.channels.digest().unwrap_or_default()),
            Keyed::new("PEXPIRE", &node).arg(NODE_RECORD_MS),
        ];
        self.connections.transact(commands).await?;
        self.core.status.set_registered(registration);
        Ok(())
    }

    /// Removes this node's record and heartbeat. The node's sessions must have ended before.
    async fn unregister(&self) -> Result<(), Fault> {
        let keys = &self.core.keys;
        let node = self.core.node;
        let left = vec![
            Keyed::new("SCARD", &keys.node_sessions(node)),
            Keyed::new("SCARD", &keys.node_presence(node)),
        ];
        let left = self.connections.pipeline(left).await?;
        let mut commands = vec![
            Keyed::new("DEL", &keys.node(node)),
            Keyed::new("DEL", &keys.heartbeat(node)),
        ];
        // If records of sessions are left, the node stays in the set of nodes, so that another node
        // finds and removes these records.
        if left.iter().all(|left| *left == Value::Int(0)) {
            commands.push(Keyed::new("SREM", &keys.nodes()).arg(node.to_string()));
        }
        self.connections.pipeline(commands).await?;
        Ok(())
    }

    /// Cleans up after the nodes that have no lease now and had none in the last search. `missing`
    /// holds the nodes without a lease in the last search.
    async fn reap_once(
        &self,
        missing: &mut HashSet<NodeId>,
        comparison: &mut ChannelComparison,
    ) -> Result<(), Fault> {
        let known = self.known_nodes().await?;
        let leases = self.leases(&known).await?;
        let (mut others, mut absent) = (BTreeSet::new(), HashSet::new());
        for (node, lives) in known.into_iter().zip(leases) {
            match lives {
                _ if node == self.core.node => {}
                true => drop(others.insert(node)),
                false => drop(absent.insert(node)),
            }
        }
        for node in absent.intersection(missing) {
            self.reap(*node).await?;
        }
        *missing = absent;
        self.compare_channels(comparison, others).await
    }

    /// Removes the records of a dead node, unless another node is doing so.
    async fn reap(&self, dead: NodeId) -> Result<(), Fault> {
        let keys = &self.core.keys;
        let claimed: Option<String> = self
            .connections
            .call(
                Keyed::new("SET", &keys.reaping(dead))
                    .arg(self.core.node.to_string())
                    .arg("NX")
                    .arg("PX")
                    .arg(REAPING_MS),
            )
            .await?;
        if claimed.is_none() {
            // Another node already cleans up after the dead node.
            return Ok(());
        }
        let removed = self.remove_traces_of(dead).await;
        // The claim is released even after a failure, so that the next search may try again at
        // once.
        self.connections
            .call::<i64>(Keyed::new("DEL", &keys.reaping(dead)))
            .await?;
        // `None` means that the node is back. It then keeps its entry in the set of nodes.
        let Some((sessions, presence)) = removed? else {
            return Ok(());
        };
        let commands = vec![
            Keyed::new("SREM", &keys.nodes()).arg(dead.to_string()),
            Keyed::new("DEL", &keys.node(dead)),
        ];
        self.connections.pipeline(commands).await?;
        // A presence note of the dead node may have been added after the last batch was read. The
        // node is then added to the set again, so that its records are cleaned up once more.
        let notes = Keyed::new("SCARD", &keys.node_presence(dead));
        if self.connections.call::<u64>(notes).await? > 0 {
            let again = Keyed::new("SADD", &keys.nodes()).arg(dead.to_string());
            self.connections.call::<u64>(again).await?;
        }
        self.core.metrics.sessions_reaped.inc_by(sessions);
        self.core.metrics.presence_reaped.inc_by(presence);
        info!(node = %dead, sessions, presence, "removed the records of a dead node");
        Ok(())
    }

    /// Removes the records of a dead node's sessions, and its presence entries. Returns the number
    /// of sessions and the number of entries, or `None` if the node is back.
    async fn remove_traces_of(&self, dead: NodeId) -> Result<Option<(u64, u64)>, Fault> {
        let Some(sessions) = self.remove_sessions_of(dead).await? else {
            return Ok(None);
        };
        let presence = self.remove_presence_of(dead).await?;
        Ok(presence.map(|presence| (sessions, presence)))
    }

    /// Renews the claim to clean up after a dead node. Returns true if the node is back, so that
    /// the clean-up must stop.
    pub(crate) async fn may_not_reap(&self, dead: NodeId) -> Result<bool, Fault> {
        let claim = Keyed::new("PEXPIRE", &self.core.keys.reaping(dead)).arg(REAPING_MS);
        self.connections.call::<i64>(claim).await?;
        Ok(self.leases(&[dead]).await? == [true])
    }

    /// Removes the records of a dead node's sessions. Returns their number, or `None` if the node
    /// is back.
    async fn remove_sessions_of(&self, dead: NodeId) -> Result<Option<u64>, Fault> {
        let key = self.core.keys.node_sessions(dead);
        let mut removed = 0;
        let mut cursor = 0;
        loop {
            let (next, ids) = self.scan_sessions(&key, cursor).await?;
            // The check is repeated before each batch, because a node that is back must keep its
            // records.
            if self.may_not_reap(dead).await? {
                return Ok(None);
            }
            let ids: Vec<SessionId> = ids.into_iter().collect();
            removed += self.remove_records(dead, &ids).await?;
            if next == 0 {
                return Ok(Some(removed));
            }
            cursor = next;
        }
    }

    /// Reads one batch of the session ids in a node's set. Returns the cursor of the next batch, or
    /// 0 after the last batch.
    pub(crate) async fn scan_sessions(
        &self,
        key: &str,
        cursor: u64,
    ) -> Result<(u64, HashSet<SessionId>), Fault> {
        let scan = Keyed::new("SSCAN", key).arg(cursor).arg("COUNT").arg(BATCH);
        let (next, ids): (u64, Vec<String>) = self.connections.call(scan).await?;
        let ids = ids.iter().filter_map(|id| id.parse().ok()).collect();
        Ok((next, ids))
    }

    /// Removes the records of these sessions, except sessions that are on another node now. Returns
    /// the number of sessions whose records were removed.
    pub(crate) async fn remove_records(
        &self,
        dead: NodeId,
        ids: &[SessionId],
    ) -> Result<u64, Fault> {
        let keys = &self.core.keys;
        let fields = ids
            .iter()
            .map(|id| {
                Keyed::new("HMGET", &keys.session(*id))
                    .arg("user")
                    .arg("node")
            })
            .collect();
        let fields = self.connections.pipeline(fields).await?;
        let mut users = Vec::new();
        for (id, fields) in ids.iter().zip(fields) {
            let (user, node): (Option<String>, Option<String>) =
                from_redis_value(fields).map_err(|_| Fault::Unexpected("HMGET"))?;
            if node.is_none_or(|node| node == dead.to_string()) {
                // The user of a session without a record is unknown. The entry in the user's index
                // expires by itself.
                users.push((*id, user.unwrap_or_default()));
            }
        }
        let sessions: Vec<_> = users
            .iter()
            .map(|(id, user)| (*id, user.as_str()))
            .collect();
        self.connections.remove_traces(dead, &sessions).await?;
        Ok(sessions.len() as u64)
    }
}

/// Parses a node's record. Returns `None` if the record is missing or malformed.
fn read_node(node: NodeId, hash: Value, sessions: Value) -> Option<NodeInfo> {
    let fields: HashMap<String, String> = from_redis_value(hash).ok()?;
    Some(NodeInfo {
        node,
        name: fields.get("name").cloned().unwrap_or_default(),
        address: fields.get("address")?.clone(),
        version: fields.get("version").cloned().unwrap_or_default(),
        started_at: fields
            .get("started")
            .and_then(|started| started.parse().ok())
            .unwrap_or_default(),
        sessions: from_redis_value(sessions).ok()?,
        channels: fields
            .get("channels")
            .filter(|channels| !channels.is_empty())
            .cloned(),
    })
}

/// Keeps this node registered for as long as the backend runs.
pub(crate) async fn keep_registered(redis: Arc<Redis>) {
    /// Delay after a failed attempt. It is short, because other nodes ignore an unregistered node.
    const FIRST: Duration = Duration::from_millis(50);
    loop {
        match redis.register().await {
            Ok(()) => {
                let unregistered = redis.core.status.unregistered.notified();
                time::timeout(REGISTER, unregistered).await.ok();
            }
            Err(fault) => {
                debug!(error = %fault, "the node could not register in redis");
                time::sleep(FIRST).await;
            }
        }
    }
}

/// Searches for dead nodes, and for nodes with different `[[channels]]`, for as long as the backend
/// runs.
pub(crate) async fn reap(redis: Arc<Redis>) {
    let mut missing = HashSet::new();
    let mut comparison = ChannelComparison::default();
    let mut looks = time::interval(REAP);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        // A node that is not ready, for example because it is disconnected from Redis, cannot know
        // which nodes are dead.
        if redis.core.status.unready().is_some() {
            missing.clear();
            continue;
        }
        if let Err(fault) = redis.reap_once(&mut missing, &mut comparison).await {
            debug!(error = %fault, "search for dead nodes failed");
        }
    }
}
