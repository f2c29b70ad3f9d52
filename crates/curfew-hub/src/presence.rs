//! Presence of this node's sessions in channels, and the sessions that are told of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use curfew_model::{Channel, PresenceChange, PresenceEntry, Present, Push, SessionId};
use parking_lot::Mutex;

use crate::broadcast::Frames;
use crate::channels::Channels;
use crate::metrics::DropReason;
use crate::{Hub, Member};

/// The entries of this node's sessions.
#[derive(Debug)]
pub(crate) struct Presence {
    /// A session without entries has none here.
    by_session: Mutex<HashMap<SessionId, Vec<PresenceEntry>>>,
    /// The number of entries. While it is 0, no session is told, and nothing is looked up.
    count: AtomicUsize,
    /// The sessions that are told who comes and goes.
    told: Channels,
}

impl Presence {
    pub(crate) fn new() -> Self {
        Self {
            by_session: Mutex::default(),
            count: AtomicUsize::new(0),
            told: Channels::new(),
        }
    }
}

impl Hub {
    /// Notes that a session is present in a channel. It has no entry there.
    pub fn note_presence(&self, entry: PresenceEntry) {
        let mut by_session = self.presence.by_session.lock();
        self.presence.count.fetch_add(1, Ordering::Relaxed);
        let entries = by_session.entry(entry.present.session).or_default();
        entries.push(entry);
    }

    /// Changes the entries of a session. Returns the changed ones.
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

    /// Takes the entry of a session in a channel; `None` if it has none.
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
        Some(entry)
    }

    /// True if a session has this very entry.
    pub fn is_present(&self, entry: &PresenceEntry) -> bool {
        let by_session = self.presence.by_session.lock();
        let entries = by_session.get(&entry.present.session);
        entries.is_some_and(|entries| entries.iter().any(|known| known.number == entry.number))
    }

    /// The entries of these sessions.
    pub fn presence_of(&self, sessions: &[SessionId]) -> Vec<PresenceEntry> {
        if self.presence_count() == 0 {
            return Vec::new();
        }
        let by_session = self.presence.by_session.lock();
        let entries = sessions
            .iter()
            .filter_map(|session| by_session.get(session));
        entries.flatten().cloned().collect()
    }

    /// The number of entries of this node's sessions.
    pub fn presence_count(&self) -> usize {
        self.presence.count.load(Ordering::Relaxed)
    }

    /// Begins to tell a subscribed session who comes to a channel and who goes.
    pub fn begin_telling(&self, channel: &Channel, member: &Arc<Member>) {
        self.presence.told.add(channel, member);
    }

    /// Ends that.
    pub fn end_telling(&self, channel: &Channel, member: &Member) {
        if self.presence_count() > 0 {
            self.presence.told.remove(channel, member);
        }
    }

    /// Tells the sessions of this node that asked for it of a session that has come or gone. That
    /// session itself is passed over: its own join is part of its subscription.
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
