//! Tickets in memory.

use std::collections::HashMap;
use std::future::ready;
use std::time::Duration;

use curfew_model::TicketId;
use parking_lot::Mutex;

use super::{Done, Memory};
use crate::{BackendError, BoxFuture, Tickets};

/// Maximum size of the store, in bytes. It suffices for about 100,000 live tickets with tokens of
/// the usual size.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// The size of an entry without its sealed data, in bytes.
const ENTRY_BYTES: usize = 128;

/// Minimum size of the store, in bytes, at which expired tickets are swept.
const MIN_SWEEP_BYTES: usize = 64 * 1024;

/// Every ticket stored. Expired tickets stay until they are taken, replaced or swept.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    by_id: HashMap<TicketId, Entry>,
    bytes: usize,
    sweep_at: usize,
}

#[derive(Debug)]
struct Entry {
    sealed: Vec<u8>,
    /// The time at which the ticket expires, by the boot-time clock. The wall clock is not needed,
    /// because only this store reads the time.
    ends_at: Duration,
}

impl Tickets for Memory {
    fn put<'a>(
        &'a self,
        id: &'a TicketId,
        sealed: &'a [u8],
        lifetime: Duration,
    ) -> BoxFuture<'a, Result<(), BackendError>> {
        let now = self.clock.boottime();
        let entry = Entry {
            sealed: sealed.to_vec(),
            ends_at: now.saturating_add(lifetime),
        };
        match self.kept.0.lock().put(*id, entry, now) {
            Ok(()) => Box::pin(Done),
            Err(error) => Box::pin(ready(Err(error))),
        }
    }

    fn take<'a>(
        &'a self,
        id: &'a TicketId,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, BackendError>> {
        let now = self.clock.boottime();
        let entry = self.kept.0.lock().remove(id);
        let sealed = entry
            .filter(|entry| entry.is_live(now))
            .map(|entry| entry.sealed);
        Box::pin(ready(Ok(sealed)))
    }
}

impl Kept {
    /// The number of tickets, including expired ones.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().by_id.len()
    }
}

impl Entries {
    fn put(&mut self, id: TicketId, entry: Entry, now: Duration) -> Result<(), BackendError> {
        let bytes = entry.size();
        if self.bytes + bytes > self.sweep_at.max(MIN_SWEEP_BYTES) {
            self.sweep(now);
        }
        if self.bytes + bytes > MAX_BYTES {
            return Err(BackendError::unavailable(
                "too many tickets wait to be used",
            ));
        }
        if self.by_id.get(&id).is_some_and(|there| there.is_live(now)) {
            return Err(BackendError::Unusable(
                "another ticket has the same id".into(),
            ));
        }
        self.remove(&id);
        self.bytes += bytes;
        self.by_id.insert(id, entry);
        Ok(())
    }

    fn remove(&mut self, id: &TicketId) -> Option<Entry> {
        let entry = self.by_id.remove(id)?;
        self.bytes -= entry.size();
        Some(entry)
    }

    /// Removes expired tickets. The next sweep is due at twice the remaining bytes, so that
    /// sweeping costs a constant time per ticket on average. A full store is swept earlier.
    fn sweep(&mut self, now: Duration) {
        self.by_id.retain(|_, entry| entry.is_live(now));
        self.bytes = self.by_id.values().map(Entry::size).sum();
        self.sweep_at = (2 * self.bytes).min(MAX_BYTES);
    }
}

impl Entry {
    fn is_live(&self, now: Duration) -> bool {
        now < self.ends_at
    }

    fn size(&self) -> usize {
        self.sealed.len() + ENTRY_BYTES
    }
}
