//! Streams in memory. A restart gives each stream a new epoch.

use std::collections::{HashMap, VecDeque};
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use curfew_model::{Channel, Epoch, Position, Publication, PublicationKey, StreamEntry};
use parking_lot::Mutex;

use super::{LEASE_OVER, Memory, is_over};
use crate::{
    BackendError, BoxFuture, POSITION_LIFETIME, PUBLICATION_KEY_LIFETIME, StreamBounds, StreamPage,
    StreamRange, Streams,
};

/// Maximum size of all streams together, in bytes. Above this limit, the streams that had no
/// publication for the longest time are removed.
pub(super) const MAX_BYTES: usize = 256 * 1024 * 1024;

/// Approximate size of a stream without its publications, in bytes: its channel, its entry in the
/// map and its lock.
pub(super) const STREAM_BYTES: usize = 512;

/// Approximate size of a publication without its data, in bytes.
const PUBLICATION_BYTES: usize = 128;

/// Maximum number of idempotency keys that are remembered for one channel. Above this limit, the
/// oldest key is forgotten early.
const MAX_KEYS: usize = 10_000;

/// Streams by channel. The map's lock is never held while a task waits for a stream's lock, because
/// a publication fans out under the stream's lock.
#[derive(Debug, Default)]
pub(super) struct StreamStore {
    by_channel: Mutex<Shelves>,
}

#[derive(Debug, Default)]
struct Shelves {
    streams: HashMap<Channel, Shelf>,
    bytes: usize,
}

/// A stream, with its size and the time of its last use. These two values decide which streams the
/// store removes.
#[derive(Debug)]
struct Shelf {
    stream: Arc<Mutex<Stream>>,
    bytes: usize,
    /// The time of the last publication, or of the stream's creation
    /// ([`Clock::boottime`](curfew_model::Clock::boottime)).
    used_at: Duration,
}

#[derive(Debug)]
struct Stream {
    position: Position,
    /// The stored publications, without gaps. The last publication has the offset of `position`,
    /// unless the stream was cleared.
    publications: VecDeque<Publication>,
    bytes: usize,
    /// The time at which the publications expire.
    ends_at: Duration,
    keys: Keys,
    /// True if the store has forgotten the stream. The channel then has another stream, or gets a
    /// new stream at its next use.
    is_forgotten: bool,
}

/// Idempotency keys, in the order of their arrival.
#[derive(Debug, Default)]
struct Keys {
    offsets: HashMap<PublicationKey, u64>,
    order: VecDeque<(Duration, PublicationKey)>,
}

impl Keys {
    fn get(&mut self, key: &PublicationKey, now: Duration) -> Option<u64> {
        while let Some((ends_at, oldest)) = self.order.front()
            && (*ends_at <= now || self.order.len() > MAX_KEYS)
        {
            self.offsets.remove(oldest);
            self.order.pop_front();
        }
        self.offsets.get(key).copied()
    }

    fn insert(&mut self, key: PublicationKey, offset: u64, now: Duration) {
        self.offsets.insert(key, offset);
        self.order.push_back((now + PUBLICATION_KEY_LIFETIME, key));
    }
}

impl Stream {
    fn new() -> Self {
        Self {
            position: Position {
                epoch: Epoch::from_random(fastrand::u64(..)),
                offset: 0,
            },
            publications: VecDeque::new(),
            bytes: STREAM_BYTES,
            ends_at: Duration::ZERO,
            keys: Keys::default(),
            is_forgotten: false,
        }
    }

    fn append(&mut self, publication: Publication, bounds: StreamBounds, now: Duration) {
        self.drop_ended(now);
        self.bytes += size(&publication);
        self.publications.push_back(publication);
        while self.publications.len() > bounds.size as usize {
            self.drop_oldest();
        }
        self.ends_at = now + bounds.ttl;
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.publications.pop_front() {
            self.bytes -= size(&oldest);
        }
    }

    fn drop_ended(&mut self, now: Duration) {
        if self.ends_at <= now {
            self.clear();
        }
    }

    fn clear(&mut self) {
        self.publications.clear();
        self.bytes = STREAM_BYTES;
    }

    fn read(&mut self, range: StreamRange, now: Duration) -> StreamPage {
        self.drop_ended(now);
        let publications = match range {
            StreamRange::Top => Vec::new(),
            StreamRange::After { offset, limit } => self
                .publications
                .iter()
                .filter(|publication| offset_of(publication) > offset)
                .take(limit as usize)
                .cloned()
                .collect(),
            StreamRange::Before { offset, limit } => self
                .publications
                .iter()
                .rev()
                .filter(|publication| offset_of(publication) < offset)
                .take(limit as usize)
                .cloned()
                .collect(),
        };
        StreamPage {
            position: self.position,
            publications,
        }
    }
}

fn offset_of(publication: &Publication) -> u64 {
    publication.entry.map_or(0, |entry| entry.position.offset)
}

fn size(publication: &Publication) -> usize {
    PUBLICATION_BYTES + publication.data.len()
}

impl StreamStore {
    /// Runs `act` on the stream of a channel. Creates the stream if the channel has none.
    fn with<T>(&self, channel: &Channel, now: Duration, act: impl FnOnce(&mut Stream) -> T) -> T {
        loop {
            let shelved = self.get(channel, now);
            let mut stream = shelved.lock();
            // The stream may have been forgotten after the map was unlocked and before the stream
            // was locked.
            if !stream.is_forgotten {
                return act(&mut stream);
            }
        }
    }

    fn get(&self, channel: &Channel, now: Duration) -> Arc<Mutex<Stream>> {
        let mut shelves = self.by_channel.lock();
        if let Some(shelf) = shelves.streams.get(channel) {
            let is_over = shelf.used_at + POSITION_LIFETIME <= now;
            if !is_over || !shelf.forget() {
                return Arc::clone(&shelf.stream);
            }
        }
        let stream = Arc::new(Mutex::new(Stream::new()));
        let shelf = Shelf {
            stream: Arc::clone(&stream),
            bytes: STREAM_BYTES,
            used_at: now,
        };
        let before = shelves.streams.insert(channel.clone(), shelf);
        shelves.bytes = shelves.bytes + STREAM_BYTES - before.map_or(0, |shelf| shelf.bytes);
        // Reads create streams too. Without this check, reads of ever new channels would fill the
        // memory.
        shelves.limit_bytes();
        stream
    }

    /// Records a stream's size after a publication. Makes room if all streams together are too
    /// large.
    fn note(&self, channel: &Channel, bytes: usize, now: Duration) {
        let mut shelves = self.by_channel.lock();
        let Some(shelf) = shelves.streams.get_mut(channel) else {
            return;
        };
        shelf.used_at = now;
        let before = std::mem::replace(&mut shelf.bytes, bytes);
        shelves.bytes = shelves.bytes + bytes - before;
        shelves.limit_bytes();
    }
}

impl Shelf {
    /// Marks the stream as forgotten. Returns false, and leaves the stream unmarked, if the stream
    /// is in use.
    fn forget(&self) -> bool {
        // `try_lock` never waits. Waiting is forbidden here, because the lock of the map is held.
        let stream = self.stream.try_lock();
        stream.is_some_and(|mut stream| {
            stream.is_forgotten = true;
            true
        })
    }
}

impl Shelves {
    /// If all streams together are larger than [`MAX_BYTES`], forgets streams, the least recently
    /// used first, until the remaining streams have at most half of it. Half of the room is freed at
    /// once, because this method then looks at every stream and must rarely do so. Subscribers of a
    /// forgotten stream find a new epoch.
    fn limit_bytes(&mut self) {
        if self.bytes <= MAX_BYTES {
            return;
        }
        let mut by_use: Vec<_> = self
            .streams
            .iter()
            .map(|(channel, shelf)| (shelf.used_at, channel.clone()))
            .collect();
        by_use.sort_by_key(|(used_at, _)| *used_at);
        // The stream that was used last is not forgotten, because `append` has just added a
        // publication to it.
        by_use.pop();
        for (_, channel) in by_use {
            if self.bytes <= MAX_BYTES / 2 {
                return;
            }
            let forgotten = self.streams.get(&channel).is_some_and(Shelf::forget);
            if forgotten && let Some(shelf) = self.streams.remove(&channel) {
                self.bytes -= shelf.bytes;
            }
        }
    }
}

impl Streams for Memory {
    /// Fans out the publication before the call returns. The stream's lock is held meanwhile, so
    /// that publications arrive in the order of their offsets.
    fn append(
        &self,
        mut publication: Publication,
        until: Duration,
        bounds: StreamBounds,
        key: Option<PublicationKey>,
    ) -> BoxFuture<'_, Result<Position, BackendError>> {
        if is_over(until) {
            return Box::pin(ready(Err(BackendError::unavailable(LEASE_OVER))));
        }
        let now = self.clock.boottime();
        let channel = publication.channel.clone();
        let (position, bytes) = self.streams.with(&channel, now, |stream| {
            let epoch = stream.position.epoch;
            if let Some(key) = &key
                && let Some(offset) = stream.keys.get(key, now)
            {
                return (Position { epoch, offset }, stream.bytes);
            }
            stream.position.offset += 1;
            let position = stream.position;
            let at = u64::try_from(self.clock.now().as_millis()).unwrap_or(u64::MAX);
            publication.entry = Some(StreamEntry { position, at });
            let kept = Publication {
                trace: None,
                ..publication.clone()
            };
            stream.append(kept, bounds, now);
            if let Some(key) = key {
                stream.keys.insert(key, position.offset, now);
            }
            self.events.publication(&publication);
            (position, stream.bytes)
        });
        self.streams.note(&channel, bytes, now);
        Box::pin(ready(Ok(position)))
    }

    fn read<'a>(
        &'a self,
        channel: &'a Channel,
        range: StreamRange,
    ) -> BoxFuture<'a, Result<StreamPage, BackendError>> {
        let now = self.clock.boottime();
        let page = self
            .streams
            .with(channel, now, |stream| stream.read(range, now));
        Box::pin(ready(Ok(page)))
    }

    fn positions<'a>(
        &'a self,
        channels: &'a [Channel],
    ) -> BoxFuture<'a, Result<Vec<Position>, BackendError>> {
        let now = self.clock.boottime();
        let positions = channels
            .iter()
            .map(|channel| self.streams.with(channel, now, |stream| stream.position))
            .collect();
        Box::pin(ready(Ok(positions)))
    }

    fn clear<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<(), BackendError>> {
        let now = self.clock.boottime();
        self.streams.with(channel, now, |stream| {
            stream.clear();
            // `cleared` is called under the stream's lock, so that the node receives the event
            // before any later publication.
            self.events.cleared(channel);
        });
        Box::pin(super::Done)
    }
}
