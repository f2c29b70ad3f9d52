//! Adds, removes and rewrites presence entries and the notes ([`Note`]) that lead to them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use curfew_model::{Channel, NodeId, PresenceChange, PresenceEntry, SessionId};
use redis::from_redis_value;

use super::{Note, Stored, json, news};
use crate::Redis;
use crate::connections::{Connections, Keyed};
use crate::control::NODE_LEASE;
use crate::core::MAX_CLOCK_SKEW;
use crate::fault::Fault;
use crate::nodes::BATCH;
use crate::streams::milliseconds;

/// The script that adds a presence entry.
const ENTER: &str = concat!(
    "#!lua\n",
    include_str!("keys.lua"),
    include_str!("enter.lua")
);

/// The script that removes a presence entry. It also runs when Redis has no memory left, because it
/// frees memory.
const LEAVE: &str = concat!(
    "#!lua flags=allow-oom\n",
    include_str!("keys.lua"),
    include_str!("leave.lua")
);

/// Longest time between the sending of an entry and its write in Redis. Other nodes remove the
/// entries of a node whose heartbeat has expired. A heartbeat lives longer than this time, so no
/// entry is written after that removal. No note would lead to an entry that is written later.
const ENTERED_WITHIN: Duration = NODE_LEASE.checked_div(2).expect("2 is not 0");

/// Time for which Redis stores a removed entry until its leave is published, in milliseconds. It is
/// longer than the usual outage of a server of the cluster.
const LEFT_MS: u64 = 3_600_000;

/// Number of sessions whose entries are written again before a check whether a session has left in
/// the meantime.
const REWRITTEN: usize = 64;

impl Connections {
    /// Adds entries of this node.
    pub(super) async fn enter(&self, entries: &[PresenceEntry]) -> Result<(), Fault> {
        let keys = &self.core.keys;
        let notes = entries.iter().map(|entry| {
            let key = keys.node_presence(entry.node);
            Keyed::new("SADD", &key).arg(Note::of(entry).written())
        });
        // The value of each entry, and the join message if the entry is announced to subscribers.
        let messages: Vec<(String, Option<String>)> = entries
            .iter()
            .map(|entry| {
                let stored = json(&Stored::new(entry));
                let session = entry.present.session;
                let message = entry
                    .is_told
                    .then(|| news(PresenceChange::Join, session, &stored));
                (stored, message)
            })
            .collect();
        let mut notes: Vec<Keyed> = notes.collect();
        // Another node cleans up only after nodes in the set of nodes. Redis may have lost this
        // node's member of the set together with other data.
        let nodes: BTreeSet<String> = entries.iter().map(|entry| entry.node.to_string()).collect();
        notes.push(Keyed::new("SADD", &keys.nodes()).arg(nodes));
        // The note is written before the entry, so that a crash in between leaves no entry without
        // a note. Without a cluster, one connection keeps this order.
        let replies = match self.is_cluster() {
            true => {
                self.pipeline(notes).await?;
                self.pipeline(self.writes(entries, &messages)?).await?
            }
            false => {
                let count = notes.len();
                let mut commands = notes;
                commands.extend(self.writes(entries, &messages)?);
                let replies = self.pipeline(commands).await?;
                replies.into_iter().skip(count).collect()
            }
        };
        let is_new = replies
            .into_iter()
            .map(|reply| from_redis_value::<u64>(reply).map_err(|_| Fault::Unexpected("EVAL")));
        let is_new = is_new.collect::<Result<Vec<_>, Fault>>()?;
        if self.is_cluster() {
            let told = entries.iter().zip(messages).zip(is_new);
            let messages = told.filter_map(|((entry, (_, message)), is_new)| {
                message
                    .filter(|_| is_new > 0)
                    .map(|message| (&entry.channel, message))
            });
            self.tell_of(messages).await?;
        }
        Ok(())
    }

    /// The calls that add entries, each with its value and its join message. Redis refuses a call
    /// that arrives when other nodes may already take this node for dead.
    fn writes(
        &self,
        entries: &[PresenceEntry],
        messages: &[(String, Option<String>)],
    ) -> Result<Vec<Keyed>, Fault> {
        let writes = entries.iter().zip(messages);
        let writes = writes.map(|(entry, (stored, message))| {
            let names = self.core.keys.presence(&entry.channel);
            let present = &entry.present;
            let command = Keyed::script(ENTER, &[&names.sessions, &names.users]);
            let deadline = self.deadline_within(command.slot, ENTERED_WITHIN)?;
            let command = command
                .arg(present.session.to_string())
                .arg(stored)
                .arg(&*present.user)
                // The clock of Redis may be ahead of this node's clock.
                .arg(milliseconds(entry.ends_at + MAX_CLOCK_SKEW))
                .arg(deadline);
            Ok(match message {
                Some(message) => self.telling(command, &entry.channel, &[message]),
                None => command,
            })
        });
        writes.collect()
    }

    /// Removes the entries that these notes of a node lead to, and then the notes. Returns the
    /// number of entries removed.
    pub(crate) async fn remove_noted(&self, node: NodeId, notes: &[Note]) -> Result<u64, Fault> {
        let mut removed = 0;
        for batch in notes.chunks(BATCH) {
            removed += self.remove_batch(node, batch).await?;
        }
        Ok(removed)
    }

    async fn remove_batch(&self, node: NodeId, notes: &[Note]) -> Result<u64, Fault> {
        let keys = &self.core.keys;
        let removals = notes.iter().map(|note| {
            let names = keys.presence(&note.channel);
            let mut of_entry = vec![&*names.sessions, &*names.users];
            if self.is_cluster() {
                of_entry.push(&names.left);
            }
            let command = Keyed::script(LEAVE, &of_entry)
                .arg(note.session.to_string())
                .arg(note.beginning(node));
            match self.is_cluster() {
                true => command.arg(LEFT_MS),
                false => self.telling(command, &note.channel, &[]),
            }
        });
        // The entries are removed first: a note stays as long as its entry may exist.
        let replies = self.pipeline(removals.collect()).await?;
        let entries = replies.into_iter().map(|reply| {
            from_redis_value::<Option<String>>(reply).map_err(|_| Fault::Unexpected("EVAL"))
        });
        let entries = entries.collect::<Result<Vec<_>, Fault>>()?;
        if self.is_cluster() {
            self.tell_of_left(node, notes, &entries).await?;
        }
        let key = keys.node_presence(node);
        let forget = notes
            .iter()
            .map(|note| Keyed::new("SREM", &key).arg(note.written()));
        self.pipeline(forget.collect()).await?;
        Ok(entries.iter().flatten().count() as u64)
    }

    /// In a cluster, publishes the leave message of each removed entry, and then deletes the copies
    /// of these entries in Redis. The notes still exist at this point: after a failure or a crash,
    /// a leave message is published again rather than lost.
    async fn tell_of_left(
        &self,
        node: NodeId,
        notes: &[Note],
        entries: &[Option<String>],
    ) -> Result<(), Fault> {
        // A note that occurs twice in `notes` leads to the same entry. The leave message of this
        // entry is published once.
        let mut known = HashSet::new();
        let told = notes.iter().zip(entries).filter_map(|(note, entry)| {
            let entry = entry.as_deref()?;
            let stored: Stored = serde_json::from_str(entry).ok()?;
            (stored.told && known.insert(note)).then_some((note, entry))
        });
        let (mut messages, mut forget) = (Vec::new(), Vec::new());
        for (note, entry) in told {
            let message = news(PresenceChange::Leave, note.session, entry);
            messages.push((&note.channel, message));
            let left = self.core.keys.presence(&note.channel).left;
            forget.push(Keyed::new("HDEL", &left).arg(note.beginning(node)));
        }
        self.tell_of(messages.into_iter()).await?;
        self.pipeline(forget).await?;
        Ok(())
    }

    /// Adds the arguments with which the script publishes the change. In a cluster the script
    /// cannot publish: the pub/sub channel is in another slot than the entry.
    fn telling(&self, command: Keyed, channel: &Channel, message: &[&str]) -> Keyed {
        if self.is_cluster() {
            return command;
        }
        let channel = self.core.keys.channel(channel);
        command.arg("PUBLISH").arg(channel).arg(message)
    }

    /// Publishes changes of presence in a cluster.
    async fn tell_of<'a>(
        &self,
        messages: impl Iterator<Item = (&'a Channel, String)>,
    ) -> Result<(), Fault> {
        let messages = messages.map(|(channel, message)| {
            let name = self.core.keys.channel(channel);
            Keyed::new("SPUBLISH", &name).arg(message)
        });
        self.pipeline(messages.collect()).await?;
        Ok(())
    }

    /// Writes the entries of these local sessions again.
    pub(crate) async fn rewrite_presence(&self, sessions: &[SessionId]) -> Result<(), Fault> {
        // Only one task at a time writes entries again: after a loss of data in Redis, many tasks
        // start at once.
        let _one_at_a_time = self.rewriting_presence.lock().await;
        for sessions in sessions.chunks(REWRITTEN) {
            let entries = self.core.local.presence(sessions);
            for batch in entries.chunks(BATCH) {
                self.enter(batch).await?;
            }
            self.correct(sessions, &entries).await?;
        }
        Ok(())
    }

    /// Corrects entries that were written again. A session may have left the channel or renewed its
    /// entry in the meantime, and this change may have reached Redis before the rewrite.
    async fn correct(
        &self,
        sessions: &[SessionId],
        written: &[PresenceEntry],
    ) -> Result<(), Fault> {
        let present = self.core.local.presence(sessions);
        let by_note: HashMap<Note, &PresenceEntry> = present
            .iter()
            .map(|entry| (Note::of(entry), entry))
            .collect();
        let (mut gone, mut renewed) = (Vec::new(), Vec::new());
        for entry in written {
            let note = Note::of(entry);
            match by_note.get(&note) {
                None => gone.push(note),
                Some(now) if **now != *entry => renewed.push((*now).clone()),
                Some(_) => {}
            }
        }
        self.remove_noted(self.core.node, &gone).await?;
        for batch in renewed.chunks(BATCH) {
            self.enter(batch).await?;
        }
        Ok(())
    }

    /// The notes of those entries in `entries` that Redis does not have.
    pub(crate) async fn missing_presence(
        &self,
        entries: &[&PresenceEntry],
    ) -> Result<Vec<Note>, Fault> {
        let mut missing = Vec::new();
        for batch in entries.chunks(BATCH) {
            let reads = batch.iter().map(|entry| {
                let key = self.core.keys.presence(&entry.channel).sessions;
                Keyed::new("HGET", &key).arg(entry.present.session.to_string())
            });
            let replies = self.pipeline(reads.collect()).await?;
            for (entry, reply) in batch.iter().zip(replies) {
                let note = Note::of(entry);
                let stored: Option<String> =
                    from_redis_value(reply).map_err(|_| Fault::Unexpected("HGET"))?;
                let beginning = note.beginning(entry.node);
                if !stored.is_some_and(|stored| stored.starts_with(&beginning)) {
                    missing.push(note);
                }
            }
        }
        Ok(missing)
    }
}

impl Redis {
    /// Reads one batch of a node's notes. Returns the notes and the cursor of the next batch, which
    /// is 0 after the last batch.
    async fn scan_notes(&self, node: NodeId, cursor: u64) -> Result<(u64, Vec<Note>), Fault> {
        let key = self.core.keys.node_presence(node);
        let scan = Keyed::new("SSCAN", &key)
            .arg(cursor)
            .arg("COUNT")
            .arg(BATCH);
        let (next, notes): (u64, Vec<String>) = self.connections.call(scan).await?;
        let notes = notes.iter().filter_map(|note| Note::read(note));
        Ok((next, notes.collect()))
    }

    /// Reads all notes of this node.
    pub(crate) async fn own_notes(&self) -> Result<HashSet<Note>, Fault> {
        let mut all = HashSet::new();
        let mut cursor = 0;
        loop {
            let (next, notes) = self.scan_notes(self.core.node, cursor).await?;
            all.extend(notes);
            if next == 0 {
                return Ok(all);
            }
            cursor = next;
        }
    }

    /// Removes the entries of a dead node. Returns their number, or `None` if the node is back.
    pub(crate) async fn remove_presence_of(&self, dead: NodeId) -> Result<Option<u64>, Fault> {
        let mut removed = 0;
        let mut cursor = 0;
        loop {
            let (next, notes) = self.scan_notes(dead, cursor).await?;
            // The node's lease is checked before each batch, because a node that is back must keep
            // its entries.
            if self.may_not_reap(dead).await? {
                return Ok(None);
            }
            removed += self.connections.remove_noted(dead, &notes).await?;
            if next == 0 {
                return Ok(Some(removed));
            }
            cursor = next;
        }
    }
}
