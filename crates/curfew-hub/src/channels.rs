//! The listeners of each channel on this node.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use curfew_model::{Channel, GapReason, Publication};
use indexmap::IndexMap;
use parking_lot::RwLock;

use crate::Member;
use crate::differences::DeltaListeners;
use crate::index::SHARDS;

/// Value of [`Listeners::gap`] while no gap is noted.
const NO_GAP: u8 = u8::MAX;

/// A channel's listeners. Broadcasts iterate over the listeners in memory order. A listener is
/// removed in constant time.
#[derive(Debug)]
pub(crate) struct Listeners {
    /// The members that take each publication whole, by their slot.
    members: IndexMap<u64, Arc<Member>>,
    /// The members that take differences; `None` if there are none.
    delta: Option<Box<DeltaListeners>>,
    /// The [index](GapReason::index) of the reason for a gap about which the listeners have not
    /// been notified, or [`NO_GAP`].
    gap: AtomicU8,
}

impl Default for Listeners {
    fn default() -> Self {
        Self {
            members: IndexMap::new(),
            delta: None,
            gap: AtomicU8::new(NO_GAP),
        }
    }
}

impl Listeners {
    /// Visits each listener, in no order.
    pub(crate) fn each(&self, mut visit: impl FnMut(&Arc<Member>)) {
        self.each_plain(&mut visit);
        if let Some(delta) = &self.delta {
            delta.each(visit);
        }
    }

    /// Visits each listener that takes each publication whole, in no order.
    pub(crate) fn each_plain(&self, visit: impl FnMut(&Arc<Member>)) {
        self.members.values().for_each(visit);
    }

    /// The listeners that take differences; `None` if there are none.
    pub(crate) fn delta(&self) -> Option<&DeltaListeners> {
        self.delta.as_deref()
    }

    fn len(&self) -> usize {
        self.members.len() + self.delta.as_ref().map_or(0, |delta| delta.len())
    }

    fn has(&self, member: &Member) -> bool {
        let delta = self.delta.as_ref();
        self.members.contains_key(&member.slot) || delta.is_some_and(|delta| delta.has(member))
    }

    fn remove(&mut self, member: &Member) {
        self.members.swap_remove(&member.slot);
        if let Some(delta) = &mut self.delta {
            delta.remove(member);
            if delta.len() == 0 {
                // The base has no use without a listener that takes differences.
                self.delta = None;
            }
        }
    }

    /// Notes a gap until the listeners are notified.
    fn note_gap(&self, reason: GapReason) {
        // The first reason stays: several gaps are sent as one.
        let noted = (Ordering::AcqRel, Ordering::Relaxed);
        self.gap
            .compare_exchange(NO_GAP, reason.index(), noted.0, noted.1)
            .ok();
    }

    /// Takes the noted gap. Only one caller gets the gap, and that caller notifies the listeners.
    pub(crate) fn take_gap(&self) -> Option<GapReason> {
        // The value is loaded first: nearly every broadcast finds no gap, and a swap would contend
        // for the cache line.
        match self.gap.load(Ordering::Acquire) {
            NO_GAP => None,
            _ => GapReason::at(self.gap.swap(NO_GAP, Ordering::AcqRel)),
        }
    }
}

/// A channel with listeners on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelInfo {
    /// The channel.
    pub channel: Channel,
    /// The number of sessions that listen to the channel.
    pub subscribers: usize,
}

/// All channels with listeners on this node.
#[derive(Debug)]
pub(crate) struct Channels {
    hasher: RandomState,
    /// The listeners of each channel. A channel without listeners has no entry.
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

    /// Adds a listener. Returns true if the channel has no other listener on this node. Adding the
    /// same listener again has no effect.
    pub(crate) fn add(&self, channel: &Channel, member: &Arc<Member>) -> bool {
        let mut shard = self.shard(channel).write();
        let listeners = shard.entry(channel.clone()).or_default();
        listeners.members.insert(member.slot, Arc::clone(member));
        listeners.len() == 1
    }

    /// Adds a listener that takes differences. The member must not be a listener yet. `base` is the
    /// channel's newest publication, if the member has received it. Without a base, the next
    /// publication is sent whole to this member. The caller holds the lock of the channel's feed.
    pub(crate) fn add_delta(
        &self,
        channel: &Channel,
        member: &Arc<Member>,
        base: Option<&Publication>,
    ) {
        let mut shard = self.shard(channel).write();
        let listeners = shard.entry(channel.clone()).or_default();
        let delta = listeners.delta.get_or_insert_default();
        delta.add(member, base);
    }

    /// Removes a listener. Returns true if the channel has no listener left on this node.
    pub(crate) fn remove(&self, channel: &Channel, member: &Member) -> bool {
        let mut shard = self.shard(channel).write();
        let Entry::Occupied(mut entry) = shard.entry(channel.clone()) else {
            // A gap may have removed the last listener already.
            return true;
        };
        entry.get_mut().remove(member);
        let last = entry.get().len() == 0;
        if last {
            // A channel without listeners costs no memory.
            entry.remove();
        }
        last
    }

    /// Calls `visit` with the channel's listeners, if there are any.
    pub(crate) fn with(&self, channel: &Channel, visit: impl FnOnce(&Listeners)) {
        // The lock is held during the visit: once `remove` returns, no broadcast delivers to the
        // removed listener.
        if let Some(listeners) = self.shard(channel).read().get(channel) {
            visit(listeners);
        }
    }

    /// Calls `visit` with every channel's listeners. One shard is locked at a time.
    pub(crate) fn with_all(&self, mut visit: impl FnMut(&Channel, &Listeners)) {
        for shard in &self.shards {
            for (channel, listeners) in &*shard.read() {
                visit(channel, listeners);
            }
        }
    }

    /// Notes a gap for a channel's listeners until they are notified.
    pub(crate) fn note_gap(&self, channel: &Channel, reason: GapReason) {
        self.with(channel, |listeners| listeners.note_gap(reason));
    }

    /// The number of listeners of a channel.
    pub(crate) fn count_of(&self, channel: &Channel) -> usize {
        let shard = self.shard(channel).read();
        shard.get(channel).map_or(0, Listeners::len)
    }

    /// True if the member is a listener of the channel.
    pub(crate) fn listens(&self, channel: &Channel, member: &Member) -> bool {
        let shard = self.shard(channel).read();
        let listeners = shard.get(channel);
        listeners.is_some_and(|listeners| listeners.has(member))
    }

    /// True if the channel has a listener on this node.
    pub(crate) fn has(&self, channel: &Channel) -> bool {
        self.shard(channel).read().contains_key(channel)
    }

    /// The number of channels with listeners.
    pub(crate) fn count(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    /// Every channel with listeners, sorted by name.
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
