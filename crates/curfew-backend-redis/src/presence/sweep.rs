//! The sweep over the presence entries of a Redis Cluster. It adds missing notes ([`Note`]) of
//! entries, and adds the node of each entry to the set of nodes.
//!
//! The notes and the set of nodes may be on another server than the entries, so a failover of that
//! server may lose them while the entries stay. The sweep removes no entry. If an entry should not
//! exist any more, its restored note leads the entry's node, or the node that cleans up after a
//! dead node, to the entry.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use curfew_model::{NodeId, SessionId};
use tokio::time;
use tracing::{debug, warn};

use super::{Note, Stored};
use crate::Redis;
use crate::connections::Keyed;
use crate::fault::Fault;

/// Pause between two sweeps.
const SWEEP: Duration = Duration::from_secs(20);

/// Pause between two reads of a sweep. Most reads take less than half a millisecond of Redis' time.
const PAUSE: Duration = Duration::from_millis(20);

/// Approximate number of key names that one read scans.
const KEYS: usize = 1_000;

/// Approximate number of entries that one read returns.
const ENTRIES: usize = 500;

/// The notes of each node's entries.
type Notes = HashMap<NodeId, Vec<String>>;

impl Redis {
    /// Reads every presence entry once, and adds missing notes. Returns the number of notes that
    /// were added.
    async fn sweep_presence(&self) -> Result<u64, Fault> {
        let mut restored = 0;
        for scan in self.connections.at_each("SCAN") {
            let pattern = self.core.keys.presence_pattern();
            let mut cursor: u64 = 0;
            loop {
                let scan = scan.clone().arg(cursor).arg("MATCH").arg(&pattern);
                let scan = scan.arg("COUNT").arg(KEYS);
                let (next, keys): (u64, Vec<Vec<u8>>) = self.connections.call(scan).await?;
                for key in keys {
                    restored += self.sweep_key(&key).await?;
                }
                if next == 0 {
                    break;
                }
                cursor = next;
                time::sleep(PAUSE).await;
            }
        }
        Ok(restored)
    }

    async fn sweep_key(&self, key: &[u8]) -> Result<u64, Fault> {
        let key = str::from_utf8(key).ok();
        let channel = key.and_then(|key| self.core.keys.parse_presence(key));
        let (Some(key), Some(channel)) = (key, channel) else {
            return Ok(0);
        };
        let (mut cursor, mut restored): (u64, u64) = (0, 0);
        loop {
            let scan = Keyed::new("HSCAN", key).arg(cursor).arg("COUNT");
            let read = self.connections.call(scan.arg(ENTRIES)).await;
            let (next, fields): (u64, Vec<(String, Vec<u8>)>) = match read {
                // A key of another type was not written by Curfew.
                Err(fault) if fault.code() == Some("WRONGTYPE") => return Ok(restored),
                read => read?,
            };
            let mut notes = Notes::new();
            for (session, value) in fields {
                let session: Option<SessionId> = session.parse().ok();
                let stored: Option<Stored> = serde_json::from_slice(&value).ok();
                let (Some(session), Some(stored)) = (session, stored) else {
                    continue;
                };
                let note = Note {
                    session,
                    number: stored.number,
                    channel: channel.clone(),
                };
                notes.entry(stored.node).or_default().push(note.written());
            }
            restored += self.add_notes(notes).await?;
            if next == 0 {
                return Ok(restored);
            }
            cursor = next;
            time::sleep(PAUSE).await;
        }
    }

    /// Adds these notes, and their nodes to the set of nodes. Returns the number of notes that were
    /// missing.
    async fn add_notes(&self, notes: Notes) -> Result<u64, Fault> {
        let keys = &self.core.keys;
        let mut restored = 0;
        for (node, notes) in notes {
            let note = Keyed::new("SADD", &keys.node_presence(node)).arg(notes);
            restored += self.connections.call::<u64>(note).await?;
            let known = Keyed::new("SADD", &keys.nodes()).arg(node.to_string());
            self.connections.call::<u64>(known).await?;
        }
        Ok(restored)
    }

    /// True if this node is the first of the live nodes. Only the first live node sweeps.
    async fn is_first(&self) -> Result<bool, Fault> {
        Ok(self.live_nodes().await?.first() == Some(&self.core.node))
    }
}

/// Sweeps at intervals for as long as the backend runs, if Redis is a cluster. One node sweeps at a
/// time.
pub(crate) async fn sweep(redis: Arc<Redis>) {
    loop {
        time::sleep(SWEEP).await;
        if !redis.connections.is_cluster() || redis.core.status.unready().is_some() {
            continue;
        }
        let swept = match redis.is_first().await {
            Ok(true) => redis.sweep_presence().await,
            Ok(false) => continue,
            Err(fault) => Err(fault),
        };
        match swept {
            Ok(0) => {}
            Ok(restored) => warn!(
                entries = restored,
                "presence entries lacked the notes by which they are cleaned up, and the notes were written again"
            ),
            Err(fault) => {
                debug!(error = %fault, "the search for presence entries without notes failed")
            }
        }
    }
}
