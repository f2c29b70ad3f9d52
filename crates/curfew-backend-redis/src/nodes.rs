//! Which nodes live, what becomes of those that died, and that records and sessions agree.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use curfew_backend::{BackendError, BoxFuture, NodeInfo, Nodes, SessionRecord, Standing};
use curfew_model::{NodeId, SessionId};
use redis::{Value, from_redis_value};
use tokio::time::{self, MissedTickBehavior};
use tracing::{debug, info, warn};

use crate::Redis;
use crate::core::MAX_CLOCK_SKEW;
use crate::fault::Fault;
use crate::links::Keyed;

/// Between two writings of a node's own record.
const REGISTER: Duration = Duration::from_secs(5);

/// How long a node's record stays without being written again, in milliseconds.
const NODE_RECORD_MS: u64 = 15_000;

/// Between two looks at who is gone. A node is cleaned up after when its lease was missing twice.
const REAP: Duration = Duration::from_secs(5);

/// Longest time that one node cleans up after another alone, in milliseconds.
const REAPING_MS: u64 = 30_000;

/// Between two looks at a node's own records. One is removed when it was found to be of no session
/// twice, and written when a session was found to be without it twice: what is under way, or of a
/// connection that broke, is over by then.
const TIDY: Duration = Duration::from_secs(10);

/// Looks until the records of every session were read once: 30 s. A third of 19,000 sessions is as
/// many commands, some 20 ms of Redis' time in ten seconds.
const LOOKS: usize = 3;

/// Sessions cleaned up after in one go.
const BATCH: usize = 500;

/// Sessions whose records are read, or written again, in one go: half a millisecond of Redis' time.
const COMPARED: usize = 200;

impl Nodes for Redis {
    fn list(&self) -> BoxFuture<'_, Result<Vec<NodeInfo>, BackendError>> {
        Box::pin(async move { Ok(self.list_nodes().await?) })
    }

    fn standing(&self) -> Standing {
        let status = &self.core.status;
        let why = match status.unready() {
            Some(why) => why,
            None if self.core.gate.is_open() => return Standing::InTouch,
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

    fn leave(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // Whatever remains is found by the others, a little later.
            if let Err(fault) = self.unregister().await {
                debug!(error = %fault, "node not unregistered");
            }
            self.core.end_tasks().await;
        })
    }
}

impl Redis {
    /// Nodes whose lease is there.
    pub(crate) async fn live_nodes(&self) -> Result<Vec<NodeId>, Fault> {
        let known = self.known_nodes().await?;
        let leases = self.leases(&known).await?;
        let live = known.into_iter().zip(leases);
        Ok(live
            .filter_map(|(node, lives)| lives.then_some(node))
            .collect())
    }

    /// Nodes that have not been cleaned up after.
    async fn known_nodes(&self) -> Result<Vec<NodeId>, Fault> {
        let nodes: Vec<String> = self
            .links
            .call(Keyed::new("SMEMBERS", &self.core.keys.nodes()))
            .await?;
        let mut nodes: Vec<NodeId> = nodes.iter().filter_map(|node| node.parse().ok()).collect();
        nodes.sort_unstable();
        Ok(nodes)
    }

    async fn leases(&self, nodes: &[NodeId]) -> Result<Vec<bool>, Fault> {
        let Some((first, rest)) = nodes.split_first() else {
            return Ok(Vec::new());
        };
        let mut command = Keyed::new("MGET", &self.core.keys.heartbeat(*first));
        for node in rest {
            command = command.arg(self.core.keys.heartbeat(*node));
        }
        let leases: Vec<Option<String>> = self.links.call(command).await?;
        Ok(leases.iter().map(Option::is_some).collect())
    }

    async fn list_nodes(&self) -> Result<Vec<NodeInfo>, Fault> {
        let live = self.live_nodes().await?;
        let keys = &self.core.keys;
        let commands = live.iter().flat_map(|node| {
            [
                Keyed::new("HGETALL", &keys.node(*node)),
                Keyed::new("SCARD", &keys.node_sessions(*node)),
            ]
        });
        let replies = self.links.pipeline(commands.collect()).await?;
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

    async fn register(&self) -> Result<(), Fault> {
        let keys = &self.core.keys;
        let node = keys.node(self.core.node);
        let sessions = self.core.local.sessions().len();
        let info = &self.info;
        let commands = vec![
            Keyed::new("SADD", &keys.nodes()).arg(self.core.node.to_string()),
            Keyed::new("HSET", &node)
                .arg(&[("address", &info.address), ("version", &info.version)])
                .arg("started")
                .arg(info.started_at)
                .arg("sessions")
                .arg(sessions),
            Keyed::new("PEXPIRE", &node).arg(NODE_RECORD_MS),
        ];
        self.links.transact(commands).await?;
        Ok(())
    }

    /// Leaves nothing behind: called when every session is gone.
    async fn unregister(&self) -> Result<(), Fault> {
        let keys = &self.core.keys;
        let node = self.core.node;
        let left: u64 = self
            .links
            .call(Keyed::new("SCARD", &keys.node_sessions(node)))
            .await?;
        let mut commands = vec![
            Keyed::new("DEL", &keys.node(node)),
            Keyed::new("DEL", &keys.heartbeat(node)),
        ];
        if left == 0 {
            commands.push(Keyed::new("SREM", &keys.nodes()).arg(node.to_string()));
        }
        self.links.pipeline(commands).await?;
        Ok(())
    }

    /// Compares this node's sessions with what is recorded of them, both ways.
    async fn tidy(&self, comparison: &mut Comparison) -> Result<(), Fault> {
        // Before the reading: whatever is noted by then and stays is read.
        let mut live = self.core.local.sessions();
        live.sort_unstable();
        let noted = self.noted_sessions().await?;
        self.remove_ghosts(&noted, comparison).await?;
        self.restore_missing(live, &noted, comparison).await
    }

    /// The sessions that this node has noted.
    async fn noted_sessions(&self) -> Result<HashSet<SessionId>, Fault> {
        let key = self.core.keys.node_sessions(self.core.node);
        let mut noted = HashSet::new();
        let mut cursor = 0;
        loop {
            let (next, ids) = self.scan_sessions(&key, cursor).await?;
            noted.extend(ids);
            if next == 0 {
                return Ok(noted);
            }
            cursor = next;
        }
    }

    /// Removes records of sessions that do not live here any more: a write that was given up, over
    /// a connection that broke, may have been executed after the record was removed.
    async fn remove_ghosts(
        &self,
        noted: &HashSet<SessionId>,
        comparison: &mut Comparison,
    ) -> Result<(), Fault> {
        let mut ghosts = noted.clone();
        // Once, and after the reading: whatever was read and lives is among them.
        for live in self.core.local.sessions() {
            ghosts.remove(&live);
        }
        let sure: Vec<SessionId> = ghosts.intersection(&comparison.ghosts).copied().collect();
        for batch in sure.chunks(BATCH) {
            let removed = self.remove_records(self.core.node, batch).await?;
            debug!(sessions = removed, "left-over records removed");
        }
        comparison.ghosts = ghosts;
        Ok(())
    }

    /// Writes what is missing of the records of sessions that live here: another node may have
    /// cleaned up after this one while it was away, and its last command may have been executed
    /// after this one was back. `live`, in order, were here before `noted` was read.
    async fn restore_missing(
        &self,
        live: Vec<SessionId>,
        noted: &HashSet<SessionId>,
        comparison: &mut Comparison,
    ) -> Result<(), Fault> {
        // Others clean up after a node without a lease, again and again if need be.
        if !self.core.gate.is_open() {
            comparison.missing.clear();
            return Ok(());
        }
        let mut missing: HashSet<SessionId> = live
            .iter()
            .filter(|session| !noted.contains(session))
            .copied()
            .collect();
        let mut part = comparison.next_part(&live);
        part.extend(&comparison.missing);
        let part: Vec<SessionId> = part.into_iter().collect();
        for batch in part.chunks(COMPARED) {
            missing.extend(self.find_missing(batch).await?);
        }
        let sure: Vec<SessionId> = missing.intersection(&comparison.missing).copied().collect();
        comparison.missing = missing;
        for batch in sure.chunks(COMPARED) {
            // Those that closed meanwhile are none of these.
            let records = self.core.local.records(batch);
            self.links.rewrite(&records).await?;
            let restored = records.len() as u64;
            self.core.metrics.session_records_restored.inc_by(restored);
            warn!(
                sessions = restored,
                "records of live sessions were missing and are written again"
            );
        }
        Ok(())
    }

    /// Those of these sessions that are open here and not recorded as they are: their hash, their
    /// place among their user's sessions and among all.
    async fn find_missing(&self, ids: &[SessionId]) -> Result<Vec<SessionId>, Fault> {
        let keys = &self.core.keys;
        let mut records = self.core.local.records(ids);
        // A record ends before its session does, by the leeway, and by Redis' clock.
        let soon = self
            .core
            .clock
            .unix()
            .saturating_add(MAX_CLOCK_SKEW.as_secs());
        records.retain(|record| record.principal.expires_at() > soon);
        let commands = records.iter().flat_map(|record| {
            let id = record.session.to_string();
            let user = keys.user_sessions(record.principal.user());
            [
                Keyed::new("HMGET", &keys.session(record.session))
                    .arg("node")
                    .arg("expires_at"),
                Keyed::new("ZSCORE", &user).arg(&id),
                Keyed::new("ZSCORE", &keys.sessions()).arg(&id),
            ]
        });
        let replies = self.links.pipeline(commands.collect()).await?;
        let node = self.core.node.to_string();
        let is_recorded = |record: &SessionRecord, replies: &[Value]| {
            let [fields, of_user, of_all] = replies else {
                return false;
            };
            let fields: Result<(Option<String>, Option<u64>), _> = from_redis_value(fields.clone());
            fields.is_ok_and(|(its_node, expires_at)| {
                its_node.as_ref() == Some(&node)
                    && expires_at == Some(record.principal.expires_at())
            }) && [of_user, of_all].iter().all(|score| **score != Value::Nil)
        };
        let compared = records.iter().zip(replies.chunks(3));
        let missing = compared.filter(|(record, replies)| !is_recorded(record, replies));
        Ok(missing.map(|(record, _)| record.session).collect())
    }

    /// Cleans up after nodes that are gone for good. `missing` are those whose lease was not there
    /// at the last look.
    async fn reap_once(&self, missing: &mut HashSet<NodeId>) -> Result<(), Fault> {
        let known = self.known_nodes().await?;
        let leases = self.leases(&known).await?;
        let absent: HashSet<NodeId> = known
            .into_iter()
            .zip(leases)
            .filter_map(|(node, lives)| (!lives && node != self.core.node).then_some(node))
            .collect();
        for node in absent.intersection(missing) {
            self.reap(*node).await?;
        }
        *missing = absent;
        Ok(())
    }

    async fn reap(&self, dead: NodeId) -> Result<(), Fault> {
        let keys = &self.core.keys;
        let claimed: Option<String> = self
            .links
            .call(
                Keyed::new("SET", &keys.reaping(dead))
                    .arg(self.core.node.to_string())
                    .arg("NX")
                    .arg("PX")
                    .arg(REAPING_MS),
            )
            .await?;
        if claimed.is_none() {
            return Ok(());
        }
        let removed = self.remove_sessions_of(dead).await;
        // Whatever came of it: whoever looks next may try at once.
        self.links
            .call::<i64>(Keyed::new("DEL", &keys.reaping(dead)))
            .await?;
        let Some(sessions) = removed? else {
            return Ok(());
        };
        let commands = vec![
            Keyed::new("SREM", &keys.nodes()).arg(dead.to_string()),
            Keyed::new("DEL", &keys.node(dead)),
        ];
        self.links.pipeline(commands).await?;
        self.core.metrics.sessions_reaped.inc_by(sessions);
        info!(node = %dead, sessions, "cleaned up after a node that is gone");
        Ok(())
    }

    /// How many there were; `None` when the node is back.
    async fn remove_sessions_of(&self, dead: NodeId) -> Result<Option<u64>, Fault> {
        let key = self.core.keys.node_sessions(dead);
        let mut removed = 0;
        let mut cursor = 0;
        loop {
            let (next, ids) = self.scan_sessions(&key, cursor).await?;
            if self.leases(&[dead]).await? == [true] {
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

    /// Some of the sessions that a node has noted, and where to go on; 0 when that was all.
    async fn scan_sessions(
        &self,
        key: &str,
        cursor: u64,
    ) -> Result<(u64, HashSet<SessionId>), Fault> {
        let scan = Keyed::new("SSCAN", key).arg(cursor).arg("COUNT").arg(BATCH);
        let (next, ids): (u64, Vec<String>) = self.links.call(scan).await?;
        let ids = ids.iter().filter_map(|id| id.parse().ok()).collect();
        Ok((next, ids))
    }

    async fn remove_records(&self, dead: NodeId, ids: &[SessionId]) -> Result<u64, Fault> {
        let keys = &self.core.keys;
        let fields = ids
            .iter()
            .map(|id| {
                Keyed::new("HMGET", &keys.session(*id))
                    .arg("user")
                    .arg("node")
            })
            .collect();
        let fields = self.links.pipeline(fields).await?;
        let mut users = Vec::new();
        for (id, fields) in ids.iter().zip(fields) {
            let (user, node): (Option<String>, Option<String>) =
                from_redis_value(fields).map_err(|_| Fault::Unexpected("HMGET"))?;
            if node.is_none_or(|node| node == dead.to_string()) {
                // Without a record its user is unknown; the index of the user ends by itself.
                users.push((*id, user.unwrap_or_default()));
            }
        }
        let sessions: Vec<_> = users
            .iter()
            .map(|(id, user)| (*id, user.as_str()))
            .collect();
        self.links.remove_traces(dead, &sessions).await?;
        Ok(sessions.len() as u64)
    }
}

/// What the last looks at this node's records have found.
#[derive(Debug, Default)]
struct Comparison {
    /// Noted, and not living here.
    ghosts: HashSet<SessionId>,
    /// Living here, and not recorded as they are.
    missing: HashSet<SessionId>,
    /// The last session whose records were read; `None`: it goes on with the first.
    read_to: Option<SessionId>,
}

impl Comparison {
    /// The sessions whose records are read in this look, of all that live here, in order.
    fn next_part(&mut self, live: &[SessionId]) -> HashSet<SessionId> {
        let from = self
            .read_to
            .map_or(0, |last| live.partition_point(|session| *session <= last));
        let rest = &live[from..];
        let part = &rest[..live.len().div_ceil(LOOKS).min(rest.len())];
        self.read_to = part.last().copied().filter(|_| part.len() < rest.len());
        part.iter().copied().collect()
    }
}

fn read_node(node: NodeId, hash: Value, sessions: Value) -> Option<NodeInfo> {
    let fields: HashMap<String, String> = from_redis_value(hash).ok()?;
    Some(NodeInfo {
        node,
        address: fields.get("address")?.clone(),
        version: fields.get("version").cloned().unwrap_or_default(),
        started_at: fields
            .get("started")
            .and_then(|started| started.parse().ok())
            .unwrap_or_default(),
        sessions: from_redis_value(sessions).ok()?,
    })
}

/// Keeps this node's record for as long as the backend runs.
pub(crate) async fn keep_registered(redis: Arc<Redis>) {
    /// Until it is registered, others do not count on this node.
    const FIRST: Duration = Duration::from_millis(50);
    loop {
        match redis.register().await {
            Ok(()) => time::sleep(REGISTER).await,
            Err(fault) => {
                debug!(error = %fault, "node not registered");
                time::sleep(FIRST).await;
            }
        }
    }
}

/// Compares this node's records with its sessions for as long as the backend runs.
pub(crate) async fn keep_tidy(redis: Arc<Redis>) {
    let mut comparison = Comparison::default();
    loop {
        time::sleep(TIDY).await;
        if let Err(fault) = redis.tidy(&mut comparison).await {
            debug!(error = %fault, "records not compared with sessions");
        }
    }
}

/// Looks for nodes that are gone for as long as the backend runs.
pub(crate) async fn reap(redis: Arc<Redis>) {
    let mut missing = HashSet::new();
    let mut looks = time::interval(REAP);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        // Only a node that is in touch can tell who is not.
        if redis.core.status.unready().is_some() {
            missing.clear();
            continue;
        }
        if let Err(fault) = redis.reap_once(&mut missing).await {
            debug!(error = %fault, "nodes that are gone not looked for");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_session_is_looked_at_once_in_three_looks_and_then_again() {
        for count in [0, 1, 2, 3, 4, 10, 1000] {
            let mut live: Vec<SessionId> = (0..count).map(|_| SessionId::new()).collect();
            live.sort_unstable();
            let mut comparison = Comparison::default();
            for _ in 0..2 {
                let mut looks = 0;
                let mut seen = HashSet::new();
                loop {
                    let part = comparison.next_part(&live);
                    looks += 1;
                    assert!(part.iter().all(|session| seen.insert(*session)));
                    if comparison.read_to.is_none() {
                        break;
                    }
                }
                assert_eq!(seen.len(), count);
                assert!(looks <= LOOKS, "{looks} looks at {count}");
            }
        }
    }

    #[test]
    fn sessions_that_come_and_go_between_two_looks_do_not_stop_them() {
        let mut all: Vec<SessionId> = (0..9).map(|_| SessionId::new()).collect();
        all.sort_unstable();
        let mut comparison = Comparison::default();
        assert_eq!(
            comparison.next_part(&all[..6]),
            all[..2].iter().copied().collect()
        );
        // The one it had come to is gone, and others came.
        assert_eq!(
            comparison.next_part(&all[2..]),
            all[2..5].iter().copied().collect()
        );
        assert_eq!(comparison.next_part(&all[..3]), HashSet::new());
        assert_eq!(
            comparison.next_part(&all[..3]),
            all[..1].iter().copied().collect()
        );
    }
}
