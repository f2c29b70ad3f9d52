//! The node's `[[channels]]`: the digest of these settings, which other nodes compare with their
//! own digest, and the Redis rights that streams and presence need.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use curfew_model::NodeId;
use parking_lot::Mutex;
use redis::from_redis_value;
use tracing::{info, warn};

use crate::Redis;
use crate::config::RedisAddress;
use crate::connections::Keyed;
use crate::fault::Fault;

/// The number of searches for dead nodes after which digests are compared even if no node has
/// changed.
const COMPARE_LOOKS: u32 = 12;

/// The digest of `[[channels]]`, and the missing Redis rights.
#[derive(Debug, Default)]
pub(crate) struct ChannelSettings(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The digest of `[[channels]]`; `None` if there are no `[[channels]]`.
    digest: Option<String>,
    /// The commands of streams and presence that the Redis user may not send, by server.
    missing: BTreeMap<String, Vec<String>>,
    /// The missing rights that were logged last.
    told: BTreeMap<String, Vec<String>>,
}

impl ChannelSettings {
    pub(crate) fn digest(&self) -> Option<String> {
        self.0.lock().digest.clone()
    }

    pub(crate) fn set_digest(&self, digest: Option<String>) {
        let mut state = self.0.lock();
        state.digest = digest;
        state.tell();
    }

    /// Records the commands of streams and presence that the Redis user may not send to a server.
    pub(crate) fn set_missing(&self, address: &RedisAddress, commands: Vec<String>) {
        let mut state = self.0.lock();
        state.missing.insert(address.to_string(), commands);
        state.tell();
    }
}

impl State {
    /// Logs each server's missing rights once, and again when the missing rights change. Without
    /// `[[channels]]` the node needs none of these rights.
    fn tell(&mut self) {
        if self.digest.is_none() {
            return;
        }
        for (address, missing) in &self.missing {
            let told = self.told.insert(address.clone(), missing.clone());
            if !missing.is_empty() && told.as_ref() != Some(missing) {
                let missing = missing.join(", ");
                warn!(redis = %address, missing, "streams or presence do not work: the redis user may not run the commands in `missing`, grant them");
            }
        }
    }
}

/// The last comparison of this node's `[[channels]]` with the `[[channels]]` of other nodes.
#[derive(Debug, Default)]
pub(crate) struct ChannelComparison {
    /// The digest and the nodes that were compared; `None` before the first comparison, and if the
    /// record of a node was missing.
    compared: Option<(Option<String>, BTreeSet<NodeId>)>,
    /// The number of searches for dead nodes since the last comparison.
    looks: u32,
    /// The nodes whose `[[channels]]` differ from this node's.
    different: BTreeSet<NodeId>,
}

impl Redis {
    /// Compares this node's `[[channels]]` with the `[[channels]]` of other live nodes, and logs a
    /// change of the outcome. A node with different `[[channels]]` can publish without a position,
    /// and can lose publications.
    pub(crate) async fn compare_channels(
        &self,
        last: &mut ChannelComparison,
        others: BTreeSet<NodeId>,
    ) -> Result<(), Fault> {
        let digest = self.core.channels.digest();
        let is_same = last
            .compared
            .as_ref()
            .is_some_and(|(own, nodes)| *own == digest && *nodes == others);
        last.looks += 1;
        if is_same && last.looks < COMPARE_LOOKS {
            return Ok(());
        }
        let keys = &self.core.keys;
        let commands = others
            .iter()
            .map(|node| Keyed::new("HGETALL", &keys.node(*node)));
        let records = self.connections.pipeline(commands.collect()).await?;
        let mut different = BTreeSet::new();
        let mut is_whole = true;
        for (node, record) in others.iter().zip(records) {
            let mut record: HashMap<String, String> =
                from_redis_value(record).map_err(|_| Fault::Unexpected("HGETALL"))?;
            if record.is_empty() {
                // The node has just started and has no record yet.
                is_whole = false;
                continue;
            }
            let channels = record.remove("channels");
            if channels.filter(|channels| !channels.is_empty()) != digest {
                different.insert(*node);
            }
        }
        if different != last.different {
            match different.is_empty() {
                true => info!("every node has the same [[channels]] again"),
                false => {
                    let nodes: Vec<_> = different.iter().map(ToString::to_string).collect();
                    warn!(
                        nodes = nodes.join(" "),
                        "the [[channels]] of these nodes differ from this node's: configure the same [[channels]] on every node"
                    );
                }
            }
        }
        last.different = different;
        last.compared = is_whole.then_some((digest, others));
        last.looks = 0;
        Ok(())
    }
}
