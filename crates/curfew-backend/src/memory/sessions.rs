//! Session records in memory.

use std::collections::{BTreeMap, HashMap};
use std::future::ready;
use std::ops::Bound;
use std::time::Duration;

use curfew_model::{Disconnect, SessionId};
use parking_lot::Mutex;

use super::{Done, Memory};
use crate::{
    BackendError, BoxFuture, ClosedSession, MAX_PROBED, OpenError, OverLimit, SessionFilter,
    SessionPage, SessionRecord, Sessions,
};

/// Minimum number of sessions that open between two sweeps for expired records. With more records
/// than this number, the interval is longer, so that sweeping costs a constant time per session on
/// average.
const MIN_SWEEP_INTERVAL: usize = 1024;

/// Every session record, under one lock. The lock is no bottleneck: sessions open and close rarely,
/// and messages do not take the lock.
#[derive(Debug, Default)]
pub(super) struct Inventory(Mutex<Records>);

#[derive(Debug, Default)]
struct Records {
    by_id: BTreeMap<SessionId, SessionRecord>,
    /// The session ids of each user, sorted. No list is empty.
    by_user: HashMap<Box<str>, Vec<SessionId>>,
    until_sweep: usize,
}

impl Sessions for Memory {
    fn open(
        &self,
        record: SessionRecord,
        max_per_user: u32,
    ) -> BoxFuture<'_, Result<(), OpenError>> {
        let now = self.clock.now();
        let mut records = self.inventory.0.lock();
        records.sweep_when_due(now);
        let user = record.principal.user();
        if max_per_user > 0 && records.count_of_user(user, now) >= max_per_user as usize {
            let limit = max_per_user;
            return Box::pin(ready(Err(OpenError::SessionLimit { limit })));
        }
        records.insert(record);
        Box::pin(ready(Ok(())))
    }

    fn make_room<'a>(
        &'a self,
        user: &'a str,
        over: OverLimit,
    ) -> BoxFuture<'a, Result<(), BackendError>> {
        let mut ids = self.inventory.0.lock().of_user(user).to_vec();
        ids.truncate(MAX_PROBED);
        Box::pin(async move {
            let gone = match over {
                OverLimit::Refuse => self.events.probe(ids).await,
                OverLimit::CloseOldest => {
                    let ended = |id: &SessionId| self.events.disconnect(*id, Disconnect::REPLACED);
                    ids.into_iter().find(ended).into_iter().collect()
                }
            };
            let mut records = self.inventory.0.lock();
            for session in gone {
                records.remove(session);
            }
            Ok(())
        })
    }

    fn refresh(&self, record: SessionRecord) -> BoxFuture<'_, Result<(), BackendError>> {
        let mut records = self.inventory.0.lock();
        if records.remove(record.session).is_some() {
            records.insert(record);
        }
        Box::pin(Done)
    }

    fn close<'a>(
        &'a self,
        sessions: &'a [ClosedSession],
    ) -> BoxFuture<'a, Result<(), BackendError>> {
        let mut records = self.inventory.0.lock();
        for closed in sessions {
            records.remove(closed.session);
        }
        Box::pin(Done)
    }

    fn get(
        &self,
        session: SessionId,
    ) -> BoxFuture<'_, Result<Option<SessionRecord>, BackendError>> {
        let now = self.clock.now();
        let records = self.inventory.0.lock();
        let record = records.by_id.get(&session);
        Box::pin(ready(Ok(record
            .filter(|record| is_live(record, now))
            .cloned())))
    }

    fn list<'a>(
        &'a self,
        filter: &'a SessionFilter,
    ) -> BoxFuture<'a, Result<SessionPage, BackendError>> {
        let page = self.inventory.0.lock().list(filter, self.clock.now());
        Box::pin(ready(Ok(page)))
    }

    fn disconnect(&self, session: SessionId) -> BoxFuture<'_, Result<bool, BackendError>> {
        let found = self.events.disconnect(session, Disconnect::DISCONNECTED);
        Box::pin(ready(Ok(found)))
    }
}

impl Inventory {
    /// Removes expired records. Returns the number of the remaining records.
    pub(super) fn count(&self, now: Duration) -> usize {
        let mut records = self.0.lock();
        records.sweep(now);
        records.by_id.len()
    }

    /// The number of records, including expired ones.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().by_id.len()
    }
}

impl Records {
    fn insert(&mut self, record: SessionRecord) {
        let session = record.session;
        let user = record.principal.user();
        match self.by_user.get_mut(user) {
            Some(ids) => {
                if let Err(at) = ids.binary_search(&session) {
                    ids.insert(at, session);
                }
            }
            None => {
                // Most users have one session, so the list is allocated for one id only.
                self.by_user.insert(user.into(), Vec::from([session]));
            }
        }
        self.by_id.insert(session, record);
    }

    fn remove(&mut self, session: SessionId) -> Option<SessionRecord> {
        let record = self.by_id.remove(&session)?;
        let user = record.principal.user();
        if let Some(ids) = self.by_user.get_mut(user) {
            if let Ok(at) = ids.binary_search(&session) {
                ids.remove(at);
            }
            if ids.is_empty() {
                self.by_user.remove(user);
            }
        }
        Some(record)
    }

    /// Removes expired records if a sweep is due. A node removes the record of a session that ends,
    /// so a sweep finds only records that a fault has left behind.
    fn sweep_when_due(&mut self, now: Duration) {
        match self.until_sweep.checked_sub(1) {
            Some(left) => self.until_sweep = left,
            None => self.sweep(now),
        }
    }

    fn sweep(&mut self, now: Duration) {
        let expired = self.by_id.values().filter(|record| !is_live(record, now));
        let expired: Vec<SessionId> = expired.map(|record| record.session).collect();
        for session in expired {
            self.remove(session);
        }
        self.until_sweep = self.by_id.len().max(MIN_SWEEP_INTERVAL);
    }

    fn of_user(&self, user: &str) -> &[SessionId] {
        self.by_user.get(user).map_or(&[], Vec::as_slice)
    }

    fn count_of_user(&self, user: &str, now: Duration) -> usize {
        let records = self
            .of_user(user)
            .iter()
            .filter_map(|id| self.by_id.get(id));
        records.filter(|record| is_live(record, now)).count()
    }

    fn list(&self, filter: &SessionFilter, now: Duration) -> SessionPage {
        let limit = filter.limit.max(1);
        if let Some(user) = &filter.user {
            let ids = self.of_user(user);
            let start = ids.partition_point(|id| Some(*id) <= filter.after);
            let records = ids[start..].iter().filter_map(|id| self.by_id.get(id));
            return page(records, limit, now);
        }
        let after = filter.after.map_or(Bound::Unbounded, Bound::Excluded);
        let records = self.by_id.range((after, Bound::Unbounded));
        page(records.map(|(_, record)| record), limit, now)
    }
}

fn page<'a>(
    records: impl Iterator<Item = &'a SessionRecord>,
    limit: usize,
    now: Duration,
) -> SessionPage {
    let mut live = records.filter(|record| is_live(record, now));
    let sessions: Vec<SessionRecord> = live.by_ref().take(limit).cloned().collect();
    let cursor = match live.next() {
        Some(_) => sessions.last().map(|record| record.session),
        None => None,
    };
    SessionPage { sessions, cursor }
}

fn is_live(record: &SessionRecord, now: Duration) -> bool {
    now < record.principal.ends_at()
}
