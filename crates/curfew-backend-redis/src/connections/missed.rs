//! Interruptions: the channels whose publications may have been missed.

use std::collections::HashSet;
use std::sync::Arc;

use curfew_model::Channel;

use super::{Connections, ServerConnections};
use crate::layout::{Layout, Shard};
use crate::slots::slot_of;

impl Connections {
    /// Notes an interruption for every channel that the server's connection for publications
    /// carried.
    pub(crate) fn note_missed(&self, server: &ServerConnections) {
        // If `carries` is empty, no channel was subscribed to, or the interruption is noted
        // already.
        if let Some(carried) = server.carries.swap(None) {
            self.note(|name| carried.has(slot_of(name)));
        }
    }

    /// Notes an interruption for every channel that the server carried and that the new layout
    /// gives to another server.
    pub(super) fn note_left(&self, server: &ServerConnections, layout: &Layout) {
        let Some(carried) = server.carries.load_full() else {
            return;
        };
        let shards = &mut layout.shards.iter();
        let kept = shards.find(|shard| shard.address == server.address);
        let kept = kept.cloned().unwrap_or_else(|| Shard {
            address: server.address.clone(),
            slots: Vec::new(),
        });
        if *carried == kept {
            return;
        }
        self.note(|name| carried.has(slot_of(name)) && !kept.has(slot_of(name)));
        // `carries` is reduced to the kept slots, so that the same move is not noted again. If the
        // connection was lost in the meantime, the swap does nothing: `note_missed` has then noted
        // all channels of the connection.
        let kept = Some(Arc::new(kept));
        server.carries.compare_and_swap(&Some(carried), kept);
    }

    /// Notes an interruption for each wanted channel for whose name at Redis `is_missed` returns
    /// true.
    fn note(&self, is_missed: impl Fn(&[u8]) -> bool) {
        // Every task that holds both locks takes `wanted` first.
        let wanted = self.wanted.lock();
        let mut missed = self.missed.lock();
        let channels = wanted.iter().filter(|channel| {
            let name = self.core.keys.channel(channel);
            is_missed(name.as_bytes())
        });
        for channel in channels {
            self.interrupt(&mut missed, channel);
        }
    }

    /// Notes an interruption for one channel, and reports it. The caller holds the lock of
    /// `missed`. Otherwise another task could report the gap that ends the interruption before the
    /// interruption itself is reported.
    pub(crate) fn interrupt(&self, missed: &mut HashSet<Channel>, channel: &Channel) {
        missed.insert(channel.clone());
        self.core.events.interrupted(channel);
    }
}

#[cfg(test)]
mod tests;
