//! The comparison of a node's sessions with their records, in both directions. Records without a
//! session are removed, and missing records of live sessions are written again.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use curfew_backend::SessionRecord;
use curfew_model::{PresenceEntry, SessionId};
use redis::{Value, from_redis_value};
use tokio::{task, time};
use tracing::{debug, warn};

use crate::Redis;
use crate::connections::Keyed;
use crate::core::MAX_CLOCK_SKEW;
use crate::fault::Fault;
use crate::nodes::BATCH;
use crate::presence::Note;

/// Interval between two comparisons. A record is removed or written again only if two comparisons
/// in a row find that the record is wrong. When the second comparison begins, every command that
/// was under way during the first comparison has ended, including the commands of a broken
/// connection.
const TIDY: Duration = Duration::from_secs(10);

/// Number of comparisons that together read the records of every session once. They take 30 s. On a
/// node with 19,000 sessions, one comparison sends 19,000 commands. These commands cost Redis 27 ms
/// in ten seconds, or 4.3 µs for each session whose records are read.
const LOOKS: usize = 3;

/// Maximum number of sessions whose records are read or written in one pipeline. The pipeline takes
/// about a millisecond of Redis' time.
const COMPARED: usize = 200;

/// Maximum number of sessions whose presence entries are read before the task yields to other
/// tasks.
const AT_ONCE: usize = 4096;

/// The findings of the last comparison.
#[derive(Debug, Default)]
struct Comparison {
    /// Sessions that Redis lists for this node, but that this node does not have.
    ghosts: HashSet<SessionId>,
    /// Sessions of this node whose records are missing or wrong.
    missing: HashSet<SessionId>,
    /// Notes of this node whose session is no longer in the note's channel.
    absent: HashSet<Note>,
    /// Presence entries of this node that have no note or are missing in Redis.
    unlisted: HashSet<Note>,
    /// The third of the presence entries that the last comparison read: 0, 1 or 2.
    look: u64,
    /// The last session whose records were read; `None` if the next comparison starts with the
    /// first session.
    read_to: Option<SessionId>,
}

impl Redis {
    /// Compares this node's sessions with their records, in both directions.
    async fn tidy(&self, comparison: &mut Comparison) -> Result<(), Fault> {
        // The live sessions are read before the sessions that Redis lists. In the other order, a
        // session that opens in between would seem to be missing from Redis.
        let mut live = self.core.local.sessions();
        live.sort_unstable();
        let noted = self.noted_sessions().await?;
        self.remove_ghosts(&noted, comparison).await?;
        let tidied = self.tidy_presence(comparison).await;
        self.restore_missing(live, &noted, comparison).await?;
        tidied
    }

    /// Compares this node's presence entries with their notes and with Redis, in both directions. A
    /// third of the entries is read in each comparison.
    async fn tidy_presence(&self, comparison: &mut Comparison) -> Result<(), Fault> {
        // The entries are read before the notes, because a local entry is created before its note
        // and removed after its note.
        let entries = self.local_presence().await;
        let present: HashSet<Note> = entries.iter().map(Note::of).collect();
        let noted = self.own_notes().await?;
        let absent: Vec<Note> = noted.difference(&present).cloned().collect();
        self.remove_absent(absent, comparison).await?;
        if !self.core.lease.is_held() {
            // Without a lease, nothing is written again, because other nodes may be removing this
            // node's entries.
            comparison.unlisted.clear();
            return Ok(());
        }
        comparison.look = (comparison.look + 1) % LOOKS as u64;
        let part: Vec<&PresenceEntry> = entries
            .iter()
            .filter(|entry| {
                entry.number % LOOKS as u64 == comparison.look
                    || comparison.unlisted.contains(&Note::of(entry))
            })
            .collect();
        let mut unlisted: HashSet<Note> = present.difference(&noted).cloned().collect();
        unlisted.extend(self.connections.missing_presence(&part).await?);
        let sure = unlisted.intersection(&comparison.unlisted);
        let sessions: HashSet<SessionId> = sure.map(Note::session).collect();
        comparison.unlisted = unlisted;
        if sessions.is_empty() {
            return Ok(());
        }
        let restored = sessions.len() as u64;
        let sessions: Vec<SessionId> = sessions.into_iter().collect();
        self.connections.rewrite_presence(&sessions).await?;
        self.core.metrics.presence_restored.inc_by(restored);
        warn!(
            sessions = restored,
            "missing presence entries were written again"
        );
        Ok(())
    }

    /// The presence entries of all local sessions. The loop yields to other tasks, because a node
    /// may have a hundred thousand sessions.
    async fn local_presence(&self) -> Vec<PresenceEntry> {
        let sessions = self.core.local.sessions();
        let mut entries = Vec::new();
        for (at, sessions) in sessions.chunks(AT_ONCE).enumerate() {
            if at > 0 {
                task::yield_now().await;
            }
            entries.extend(self.core.local.presence(sessions));
        }
        entries
    }

    /// Removes the notes of sessions that are no longer present, and the presence entries that
    /// these notes describe.
    async fn remove_absent(
        &self,
        mut absent: Vec<Note>,
        comparison: &mut Comparison,
    ) -> Result<(), Fault> {
        // The local presence is read again after the notes, because sessions may have entered a
        // channel meanwhile.
        let sessions: Vec<SessionId> = absent.iter().map(Note::session).collect();
        let present = self.core.local.presence(&sessions);
        let present: HashSet<Note> = present.iter().map(Note::of).collect();
        absent.retain(|note| !present.contains(note));
        let sure = absent
            .iter()
            .filter(|note| comparison.absent.contains(note));
        let sure: Vec<Note> = sure.cloned().collect();
        let removed = self.connections.remove_noted(self.core.node, &sure).await?;
        if removed > 0 {
            debug!(entries = removed, "left-over presence entries removed");
        }
        comparison.absent = absent.into_iter().collect();
        Ok(())
    }

    /// The sessions that Redis lists for this node.
    async fn noted_sessions(&self) -> Result<HashSet<SessionId>, Fault> {
        let key = self.core.keys.node_sessions(self.core.node);
        let mut noted = HashSet::new();
        let mut cursor = 0;
        loop {
            let (next, ids) = self.scan_sessions(&key, cursor).await?;
            noted.extend(ids);
            if next == 0 {
                // 0 is the cursor after the last batch.
                return Ok(noted);
            }
            cursor = next;
        }
    }

    /// Removes records of sessions that this node no longer has. A record is left over if Redis
    /// executed a write of a broken connection after the record's removal.
    async fn remove_ghosts(
        &self,
        noted: &HashSet<SessionId>,
        comparison: &mut Comparison,
    ) -> Result<(), Fault> {
        let mut ghosts = noted.clone();
        // The live sessions are read after the listed sessions, because a session is live before
        // Redis lists it.
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

    /// Writes missing records of this node's sessions. A record is missing if another node removed
    /// this node's records while this node was disconnected. Redis may execute the last command of
    /// the removal after this node has reconnected. `live` is sorted, and was read before `noted`.
    async fn restore_missing(
        &self,
        live: Vec<SessionId>,
        noted: &HashSet<SessionId>,
        comparison: &mut Comparison,
    ) -> Result<(), Fault> {
        // Without a lease, nothing is written again, because another node may be cleaning up after
        // this node and would remove the records again.
        if !self.core.lease.is_held() {
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
            // Sessions that closed meanwhile are left out.
            let records = self.core.local.records(batch);
            self.connections.rewrite(&records).await?;
            let restored = records.len() as u64;
            self.core.metrics.session_records_restored.inc_by(restored);
            warn!(
                sessions = restored,
                "missing records of live sessions were written again"
            );
        }
        Ok(())
    }

    /// The open sessions among `ids` whose hash is missing or wrong, or that are missing in the
    /// user's index or in the index of all sessions.
    async fn find_missing(&self, ids: &[SessionId]) -> Result<Vec<SessionId>, Fault> {
        let keys = &self.core.keys;
        let mut records = self.core.local.records(ids);
        // Sessions that end soon are skipped, because Redis' clock may be ahead and expire their
        // records earlier.
        let soon = self.core.clock.now() + MAX_CLOCK_SKEW;
        records.retain(|record| record.principal.ends_at() > soon);
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
        let replies = self.connections.pipeline(commands.collect()).await?;
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
}

impl Comparison {
    /// The sessions whose records are read in this comparison. `live` holds all sessions of this
    /// node and is sorted.
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

/// Compares this node's records with its sessions for as long as the backend runs.
pub(crate) async fn keep_tidy(redis: Arc<Redis>) {
    let mut comparison = Comparison::default();
    loop {
        time::sleep(TIDY).await;
        if let Err(fault) = redis.tidy(&mut comparison).await {
            debug!(error = %fault, "the records in redis could not be compared with this node's sessions");
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
                assert!(
                    looks <= LOOKS,
                    "{looks} comparisons are needed to read {count} sessions"
                );
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
        // The comparison goes on after the session that was read last, although that session has
        // closed.
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
