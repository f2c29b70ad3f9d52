//! The layout of Redis: the primary of each slot, looked up for every new connection.

use crate::config::{RedisAddress, RedisTarget};
use futures_util::future::join_all;
use redis::{PushInfo, Value, cmd};

use crate::connect::{Connector, Login};
use crate::fault::Fault;
use crate::slots::Slot;

/// The push handler of connections that expect no pushes.
pub(crate) const NO_PUSHES: Option<fn(PushInfo) -> Result<(), ()>> = None;

/// The primaries and their slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    /// True for a Redis Cluster. In a cluster, publications are sharded, and a transaction stays in
    /// one slot.
    pub(crate) cluster: bool,
    /// The primaries, sorted by address.
    pub(crate) shards: Vec<Shard>,
}

/// One primary, with its slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shard {
    pub(crate) address: RedisAddress,
    /// The first and the last slot of each range.
    pub(crate) slots: Vec<(Slot, Slot)>,
}

impl Shard {
    /// True if the shard holds the slot.
    pub(crate) fn has(&self, slot: Slot) -> bool {
        self.slots
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&slot))
    }
}

impl Layout {
    /// The layout of a single primary with every slot.
    fn single(address: RedisAddress) -> Self {
        Self {
            cluster: false,
            shards: vec![Shard {
                address,
                slots: vec![Slot::ALL],
            }],
        }
    }

    /// The primary of a slot.
    pub(crate) fn primary_of(&self, slot: Slot) -> Option<&RedisAddress> {
        let shard = self.shards.iter().find(|shard| shard.has(slot))?;
        Some(&shard.address)
    }
}

impl Connector {
    /// Looks up the primaries. `known` are further nodes of a cluster, which are asked in addition
    /// to the nodes in the settings.
    pub(crate) async fn layout(&self, known: &[RedisAddress]) -> Result<Layout, Fault> {
        match &self.server().target {
            RedisTarget::Standalone(address) => Ok(Layout::single(address.clone())),
            RedisTarget::Sentinel { sentinels, primary } => {
                self.ask_sentinels(sentinels, primary).await
            }
            RedisTarget::Cluster(seeds) => {
                let mut nodes: Vec<_> = known.iter().chain(seeds).cloned().collect();
                nodes.sort();
                nodes.dedup();
                self.ask_cluster(&nodes).await
            }
        }
    }

    /// Asks all sentinels for the primary, and takes the most frequent answer.
    async fn ask_sentinels(
        &self,
        sentinels: &[RedisAddress],
        primary: &str,
    ) -> Result<Layout, Fault> {
        let answers = sentinels.iter().map(|sentinel| async move {
            match self.ask_sentinel(sentinel, primary).await {
                Ok(Some(address)) => Ok(Layout::single(address)),
                Ok(None) => Err(Fault::NoPrimary(format!(
                    "sentinel {sentinel} knows no primary named {primary}"
                ))),
                Err(fault) => Err(Fault::NoPrimary(format!("sentinel {sentinel}: {fault}"))),
            }
        });
        majority(join_all(answers).await)
    }

    /// Asks one sentinel for the primary.
    async fn ask_sentinel(
        &self,
        sentinel: &RedisAddress,
        primary: &str,
    ) -> Result<Option<RedisAddress>, Fault> {
        let mut connection = self.connect(sentinel, Login::Sentinel, NO_PUSHES).await?;
        let found: Option<(String, u16)> = cmd("SENTINEL")
            .arg("GET-MASTER-ADDR-BY-NAME")
            .arg(primary)
            .query_async(&mut connection)
            .await?;
        Ok(found.map(|(host, port)| RedisAddress { host, port }))
    }

    /// Asks all nodes for the layout of the cluster, and takes the most frequent answer.
    async fn ask_cluster(&self, nodes: &[RedisAddress]) -> Result<Layout, Fault> {
        let answers = nodes.iter().map(|node| async move {
            match self.ask_cluster_node(node).await {
                Ok(layout) if layout.primary_of(Slot::REVOKED).is_some() => Ok(layout),
                Ok(_) => Err(Fault::NoPrimary(format!(
                    "cluster node {node} knows no primary for the slot of the revocations"
                ))),
                Err(fault) => Err(Fault::NoPrimary(format!("cluster node {node}: {fault}"))),
            }
        });
        majority(join_all(answers).await)
    }

    /// Asks one node for the layout of the cluster.
    async fn ask_cluster_node(&self, node: &RedisAddress) -> Result<Layout, Fault> {
        let mut connection = self.connect(node, Login::Server, NO_PUSHES).await?;
        let ranges: Vec<Value> = cmd("CLUSTER")
            .arg("SLOTS")
            .query_async(&mut connection)
            .await?;
        let mut layout = Layout {
            cluster: true,
            shards: Vec::new(),
        };
        for range in ranges {
            let (slots, address) =
                parse_range(range, node).ok_or(Fault::Unexpected("CLUSTER SLOTS"))?;
            match layout
                .shards
                .iter_mut()
                .find(|shard| shard.address == address)
            {
                Some(shard) => shard.slots.push(slots),
                None => layout.shards.push(Shard {
                    address,
                    slots: vec![slots],
                }),
            }
        }
        layout.shards.sort_by(|a, b| a.address.cmp(&b.address));
        Ok(layout)
    }
}

/// The most frequent answer. A server that is cut off from the other servers keeps giving an
/// outdated answer, but the current answers outnumber the outdated answers.
fn majority(answers: Vec<Result<Layout, Fault>>) -> Result<Layout, Fault> {
    let mut counted: Vec<(Layout, usize)> = Vec::new();
    let mut last = Fault::NotConnected;
    for answer in answers {
        match answer {
            Ok(layout) => match counted.iter_mut().find(|(known, _)| *known == layout) {
                Some((_, count)) => *count += 1,
                None => counted.push((layout, 1)),
            },
            Err(fault) => last = fault,
        }
    }
    // Among answers with equal counts, the first one wins.
    let most = counted.iter().map(|(_, count)| *count).max();
    let found = counted.into_iter().find(|(_, count)| Some(*count) == most);
    found.map(|(layout, _)| layout).ok_or(last)
}

/// Fails unless the answer to `ROLE` shows a primary.
pub(crate) fn check_primary(role: &[Value]) -> Result<(), Fault> {
    let name: String = role
        .first()
        .cloned()
        .and_then(|name| redis::from_redis_value(name).ok())
        .unwrap_or_default();
    if name == "master" {
        return Ok(());
    }
    Err(Fault::NoPrimary(format!(
        "this redis is not a primary but a {name}"
    )))
}

/// Parses one element of `CLUSTER SLOTS`: first slot, last slot, primary, replicas.
fn parse_range(range: Value, asked: &RedisAddress) -> Option<((Slot, Slot), RedisAddress)> {
    let Value::Array(range) = range else {
        return None;
    };
    let [first, last, primary, ..] = range.as_slice() else {
        return None;
    };
    let Value::Array(primary) = primary else {
        return None;
    };
    let host: Option<String> = redis::from_redis_value(primary.first()?.clone()).ok()?;
    // A node that does not know its own address sends nothing or "?". The address by which it was
    // asked is then used.
    let host = host
        .filter(|host| !host.is_empty() && host != "?")
        .unwrap_or_else(|| asked.host.clone());
    let port = redis::from_redis_value(primary.get(1)?.clone()).ok()?;
    let slot = |value: &Value| redis::from_redis_value(value.clone()).ok().map(Slot);
    Some(((slot(first)?, slot(last)?), RedisAddress { host, port }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_majority_decides_and_who_is_silent_does_not() {
        let layout = |port| {
            Ok(Layout::single(RedisAddress {
                host: "a".to_owned(),
                port,
            }))
        };
        let port = |answers| majority(answers).map(|layout| layout.shards[0].address.port);
        assert_eq!(port(vec![layout(1), layout(2), layout(2)]).ok(), Some(2));
        assert_eq!(
            port(vec![layout(1), Err(Fault::NotConnected)]).ok(),
            Some(1)
        );
        assert_eq!(port(vec![layout(1), layout(2)]).ok(), Some(1));
        assert!(port(vec![Err(Fault::NotConnected)]).is_err());
        assert!(port(Vec::new()).is_err());
    }
}
