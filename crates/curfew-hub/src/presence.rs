//! Presence of this node's sessions in channels, and the sessions that are notified of joins and
//! leaves.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use curfew_model::{Channel, PresenceChange, PresenceEntry, Present, Push, SessionId};
use parking_lot::Mutex;

use crate::channels::Channels;
use crate::metrics::DropReason;
use crate::wire::Frames;
use crate::{Hub, Member};

/// Maximum number of sessions whose entries are read under one hold of the lock. Subscriptions wait
/// for the same lock.
const READ_AT_ONCE: usize = 512;

/// The entries of this node's sessions.
#[derive(Debug)]
pub(crate) struct Presence {
    /// The entries by session. A session without entries has no key.
    by_session: Mutex<HashMap<SessionId, Vec<PresenceEntry>>>,
    /// The number of entries. While it is 0, lookups are skipped.
    count: AtomicUsize,
    /// For each session, the number of entries that were taken from the hub but that the backend
    /// has not removed yet. A session without such entries has no key.
    departing: Mutex<HashMap<SessionId, usize>>,
    /// The sessions that are sent the joins and leaves of a channel.
    told: Channels,
}

impl Presence {
    pub(crate) fn new() -> Self {
        Self {
            by_session: Mutex::default(),
            count: AtomicUsize::new(0),
            departing: Mutex::default(),
            told: Channels::new(),
        }
    }
}

impl Hub {
    /// Adds an entry of a session that has no entry in the channel yet.
    pub fn note_presence(&self, entry: PresenceEntry) {
        let mut by_session = self.presence.by_session.lock();
        self.presence.count.fetch_add(1, Ordering::Relaxed);
        let entries = by_session.entry(entry.present.session).or_default();
        entries.push(entry);
    }

    /// Applies `change` to every entry of a session. Returns the changed entries.
    pub fn change_presence(
        &self,
        session: SessionId,
        change: impl Fn(&mut PresenceEntry),
    ) -> Vec<PresenceEntry> {
        if self.presence_count() == 0 {
            return Vec::new();
        }
        let mut by_session = self.presence.by_session.lock();
        let Some(entries) = by_session.get_mut(&session) else {
            return Vec::new();
        };
        entries.iter_mut().for_each(change);
        entries.clone()
    }

    /// Removes the entry of a session in a channel from the hub, and returns it; `None` if the
    /// session has no entry in the channel. The session [is departing](Hub::is_departing) until
    /// [`Hub::note_departed`].
    pub fn take_presence(&self, session: SessionId, channel: &Channel) -> Option<PresenceEntry> {
        if self.presence_count() == 0 {
            return None;
        }
        let mut by_session = self.presence.by_session.lock();
        let entries = by_session.get_mut(&session)?;
        let at = entries.iter().position(|entry| entry.channel == *channel)?;
        let entry = entries.swap_remove(at);
        if entries.is_empty() {
            by_session.remove(&session);
        }
        self.presence.count.fetch_sub(1, Ordering::Relaxed);
        drop(by_session);
        self.begin_departure(session, 1);
        Some(entry)
    }

    /// Does the same as [`Hub::take_presence`] for every channel. The session also stops receiving
    /// joins and leaves.
    pub fn take_all_presence(&self, member: &Member) -> Vec<PresenceEntry> {
        if self.presence_count() == 0 {
            return Vec::new();
        }
        let taken = self.presence.by_session.lock().remove(&member.session());
        let taken = taken.unwrap_or_default();
        for entry in &taken {
            self.presence.told.remove(&entry.channel, member);
        }
        self.presence
            .count
            .fetch_sub(taken.len(), Ordering::Relaxed);
        self.begin_departure(member.session(), taken.len());
        taken
    }

    fn begin_departure(&self, session: SessionId, entries: usize) {
        if entries > 0 {
            *self.presence.departing.lock().entry(session).or_default() += entries;
        }
    }

    /// Records that the backend has removed an entry that was taken, or that its removal is left to
    /// the backend's comparison of entries.
    pub fn note_departed(&self, session: SessionId) {
        let mut departing = self.presence.departing.lock();
        let left = departing.get_mut(&session);
        if left.is_some_and(|left| {
            *left -= 1;
            *left == 0
        }) {
            departing.remove(&session);
        }
    }

    /// True while the removal of one of the session's entries from the backend is in progress.
    pub fn is_departing(&self, session: SessionId) -> bool {
        self.presence.departing.lock().contains_key(&session)
    }

    /// True if the entry's session still has an entry with the same number.
    pub fn is_present(&self, entry: &PresenceEntry) -> bool {
        let by_session = self.presence.by_session.lock();
        let entries = by_session.get(&entry.present.session);
        entries.is_some_and(|entries| entries.iter().any(|known| known.number == entry.number))
    }

    /// The entries of these sessions. The entries of many sessions are read in batches, so the
    /// result is not a snapshot of a single moment.
    pub fn presence_of(&self, sessions: &[SessionId]) -> Vec<PresenceEntry> {
        if self.presence_count() == 0 {
            return Vec::new();
        }
        let mut all = Vec::new();
        for sessions in sessions.chunks(READ_AT_ONCE) {
            let by_session = self.presence.by_session.lock();
            let entries = sessions
                .iter()
                .filter_map(|session| by_session.get(session));
            all.extend(entries.flatten().cloned());
        }
        all
    }

    /// The number of entries of this node's sessions.
    pub fn presence_count(&self) -> usize {
        self.presence.count.load(Ordering::Relaxed)
    }

    /// Begins to send the joins and leaves of a channel to a subscribed session.
    pub fn begin_telling(&self, channel: &Channel, member: &Arc<Member>) {
        self.presence.told.add(channel, member);
    }

    /// Stops sending the joins and leaves of a channel to a session.
    pub fn end_telling(&self, channel: &Channel, member: &Member) {
        if self.presence_count() > 0 {
            self.presence.told.remove(channel, member);
        }
    }

    /// Sends a join or leave to the sessions of this node that asked for joins and leaves. The
    /// session that has joined or left is skipped: it receives its own join when it subscribes.
    pub fn tell_presence(&self, channel: &Channel, change: PresenceChange, present: &Present) {
        if !self.may_broadcast() {
            let dropped = self.presence.told.count_of(channel);
            self.metrics()
                .messages_dropped
                .inc_by(DropReason::NoLease, dropped as u64);
            return;
        }
        let push = Push::Presence {
            channel,
            change,
            present,
        };
        let mut frames = Frames::new(self, |wire| wire.push(&push));
        self.presence.told.with(channel, |listeners| {
            listeners.each(|member| {
                if member.session() != present.session
                    && let Some(frame) = frames.of(member.wire())
                {
                    self.send(member, frame);
                }
            });
        });
    }
}
