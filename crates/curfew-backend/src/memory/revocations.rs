//! Revocations in memory.

use std::collections::{HashMap, HashSet};
use std::future::ready;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use curfew_model::{Revocation, RevocationKey};
use parking_lot::RwLock;

use super::Memory;
use crate::{BackendError, BoxFuture, Listed, Receipt, ReceiptNodes, Revocations, Revoked};

/// Minimum number of stored revocations at which expired revocations are purged.
const MIN_PURGE_SIZE: usize = 1024;

/// Every revocation that was written and not lifted. Expired revocations stay until a purge.
#[derive(Debug, Default)]
pub(super) struct Book {
    entries: RwLock<Entries>,
    /// The number of entries. A check that reads 0 takes no lock. The number is raised before
    /// [`Events::revoked`](crate::Events::revoked) is called. If a session has registered and then
    /// read 0 here, that call finds the session.
    count: AtomicUsize,
}

#[derive(Debug, Default)]
struct Entries {
    by_key: HashMap<RevocationKey, Revocation>,
    purge_at: usize,
}

impl Revocations for Memory {
    fn check<'a>(
        &'a self,
        keys: &'a [RevocationKey],
        issued_at: Option<u64>,
    ) -> BoxFuture<'a, Result<Option<Revoked>, BackendError>> {
        Box::pin(ready(Ok(self.book.check(
            keys,
            issued_at,
            self.clock.unix(),
        ))))
    }

    fn revoke(
        &self,
        key: RevocationKey,
        revocation: Revocation,
    ) -> BoxFuture<'_, Result<Receipt, BackendError>> {
        let started = Instant::now();
        let revocation = self.book.write(&key, revocation, self.clock.unix());
        let ended = self.events.revoked(&key, &revocation, started);
        if ended.count() == 0 {
            self.events.revoked_nobody(&key, &revocation);
        }
        let node = self.node.lock().node;
        // `finds` is called after the revocation was applied, because a reload may have hidden
        // sessions while the revocation was being applied.
        let found = self.events.finds(key.kind());
        let confirmed: HashSet<_> = found.then_some(node).into_iter().collect();
        let receipt = Receipt {
            key: key.redis_key(&self.prefix),
            nodes: ReceiptNodes::new([node], &confirmed),
            closed: ended.count() as u64,
            durability: None,
            replicas: None,
            took_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        };
        Box::pin(ready(Ok(receipt)))
    }

    fn restore<'a>(&'a self, key: &'a RevocationKey) -> BoxFuture<'a, Result<bool, BackendError>> {
        Box::pin(ready(Ok(self.book.remove(key, self.clock.unix()))))
    }

    fn time(&self) -> BoxFuture<'_, Result<Duration, BackendError>> {
        Box::pin(ready(Ok(self.clock.now())))
    }

    /// Applies every revocation again. This is cheaper than a walk over the sessions, which
    /// outnumber the revocations.
    fn compare(&self) -> BoxFuture<'_, Result<(), BackendError>> {
        let began = Instant::now();
        for (key, revocation) in self.book.in_force(self.clock.unix()) {
            self.events.revoked(&key, &revocation, began);
        }
        Box::pin(ready(Ok(())))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Listed>, BackendError>> {
        Box::pin(ready(Ok(self.book.list(&self.prefix, self.clock.unix()))))
    }
}

impl Book {
    fn check(&self, keys: &[RevocationKey], issued_at: Option<u64>, now: u64) -> Option<Revoked> {
        if self.count.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let entries = self.entries.read();
        keys.iter().find_map(|key| {
            let revocation = entries.by_key.get(key)?;
            (is_in_force(revocation, now) && revocation.covers(issued_at)).then(|| Revoked {
                key: key.clone(),
                revocation: revocation.clone(),
            })
        })
    }

    /// Merges `revocation` with the revocation of `key` that is in force, if there is one. Stores
    /// and returns the result.
    fn write(&self, key: &RevocationKey, revocation: Revocation, now: u64) -> Revocation {
        let mut entries = self.entries.write();
        if entries.by_key.len() >= entries.purge_at.max(MIN_PURGE_SIZE) {
            entries.purge(now);
        }
        let earlier = entries
            .by_key
            .get(key)
            .filter(|earlier| is_in_force(earlier, now));
        let revocation = match earlier {
            Some(earlier) => earlier.merge(revocation),
            None => revocation,
        };
        entries.by_key.insert(key.clone(), revocation.clone());
        self.count.store(entries.by_key.len(), Ordering::SeqCst);
        revocation
    }

    fn remove(&self, key: &RevocationKey, now: u64) -> bool {
        let mut entries = self.entries.write();
        let removed = entries.by_key.remove(key);
        self.count.store(entries.by_key.len(), Ordering::SeqCst);
        removed.is_some_and(|revocation| is_in_force(&revocation, now))
    }

    fn in_force(&self, now: u64) -> Vec<(RevocationKey, Revocation)> {
        let mut entries = self.entries.write();
        entries.purge(now);
        self.count.store(entries.by_key.len(), Ordering::SeqCst);
        let by_key = entries.by_key.iter();
        by_key
            .map(|(key, revocation)| (key.clone(), revocation.clone()))
            .collect()
    }

    fn list(&self, prefix: &str, now: u64) -> Vec<Listed> {
        let entries = self.in_force(now).into_iter();
        let entries = entries.map(|(key, revocation)| Listed {
            key: key.redis_key(prefix),
            kind: key.kind().to_owned(),
            value: key.value().into_owned(),
            revocation,
            ineffective: None,
        });
        let mut list: Vec<Listed> = entries.collect();
        list.sort_unstable_by(Listed::order);
        list
    }

    /// The number of revocations, including expired ones.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

impl Entries {
    /// Removes expired revocations. The next purge is due at twice the remaining number of
    /// revocations, so that purging costs a constant time per revocation on average.
    fn purge(&mut self, now: u64) {
        self.by_key
            .retain(|_, revocation| is_in_force(revocation, now));
        self.purge_at = self.by_key.len() * 2;
    }
}

fn is_in_force(revocation: &Revocation, now: u64) -> bool {
    revocation.expires_at.is_none_or(|end| now < end)
}
