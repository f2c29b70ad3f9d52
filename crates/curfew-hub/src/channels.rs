//! Who listens to which channel on this node.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher as _;
use std::sync::Arc;

use curfew_model::Channel;
use indexmap::IndexMap;
use parking_lot::RwLock;

use crate::Member;
use crate::index::SHARDS;

/// A channel's listeners: iterated in a row by broadcasts, removed from in constant time.
type Listeners = IndexMap<u64, Arc<Member>>;

/// A channel with listeners on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelInfo {
    /// The channel.
    pub channel: Channel,
    /// How many sessions listen.
    pub subscribers: usize,
}

#[derive(Debug)]
pub(crate) struct Channels {
    hasher: RandomState,
    shards: [RwLock<HashMap<Channel, Listeners>>; SHARDS],
}

impl Channels {
    pub(crate) fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| RwLock::default()),
        }
    }

    fn shard(&self, channel: &Channel) -> &RwLock<HashMap<Channel, Listeners>> {
        &self.shards[self.hasher.hash_one(channel) as usize % SHARDS]
    }

    /// Adds a listener; returns whether it is the channel's first here. Adding twice is adding once.
    pub(crate) fn add(&self, channel: &Channel, member: &Arc<Member>) -> bool {
        let mut shard = self.shard(channel).write();
        let listeners = shard.entry(channel.clone()).or_default();
        listeners.insert(member.slot, Arc::clone(member));
        listeners.len() == 1
    }

    /// Removes a listener; returns whether it was the channel's last here.
    pub(crate) fn remove(&self, channel: &Channel, member: &Member) -> bool {
        let mut shard = self.shard(channel).write();
        let Entry::Occupied(mut entry) = shard.entry(channel.clone()) else {
            return false;
        };
        entry.get_mut().swap_remove(&member.slot);
        let last = entry.get().is_empty();
        if last {
            entry.remove();
        }
        last
    }

    /// Calls `visit` for each listener, in no order.
    pub(crate) fn each(&self, channel: &Channel, visit: impl FnMut(&Arc<Member>)) {
        // The lock is held meanwhile: a listener removed afterwards has been visited before.
        if let Some(listeners) = self.shard(channel).read().get(channel) {
            listeners.values().for_each(visit);
        }
    }

    /// How many listen.
    pub(crate) fn count_of(&self, channel: &Channel) -> usize {
        let shard = self.shard(channel).read();
        shard.get(channel).map_or(0, Listeners::len)
    }

    pub(crate) fn has(&self, channel: &Channel) -> bool {
        self.shard(channel).read().contains_key(channel)
    }

    pub(crate) fn count(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    pub(crate) fn list(&self) -> Vec<ChannelInfo> {
        let mut list = Vec::new();
        for shard in &self.shards {
            list.extend(shard.read().iter().map(|(channel, listeners)| ChannelInfo {
                channel: channel.clone(),
                subscribers: listeners.len(),
            }));
        }
        list.sort_by(|a, b| a.channel.cmp(&b.channel));
        list
    }
}
