//! Reading streams: for subscribers that were disconnected, and for publications that pub/sub lost.
//! The feed of a channel, which the hub holds, delivers the channel's publications in the order of
//! the stream.
//!
//! At most one read of a channel's stream is under way. The result of a read goes to the channel's
//! feed before the next read begins. Subscribers that ask meanwhile share the next read.

use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant as StdInstant};

use curfew_backend::{BackendError, Standing, StreamRange};
use curfew_hub::ReadPart;
use curfew_model::{Channel, Position, Publication};
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use tokio::time::{self, Instant};
use tracing::debug;

use crate::Node;
use crate::events::Fanout;

/// Time for which a channel's later publications wait for a missing one. Then the channel's
/// subscribers receive a gap.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// Pause after a read that failed or did not have the missing publications.
pub(crate) const RETRY_DELAY: Duration = Duration::from_millis(50);

/// The feed of a channel that has received nothing for this long is compared with the channel's
/// stream. Without this comparison, the loss of a publication is not noticed until another
/// publication follows.
const QUIET: Duration = Duration::from_secs(30);

/// Interval at which quiet channels are looked for.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Maximum number of streams whose positions one call to the backend reads.
const POSITIONS: usize = 256;

/// Number of failed calls for positions after which a comparison ends. The remaining channels are
/// compared at the next interval.
const FAILURES: usize = 64;

/// Number of channels whose missing publications are read at the same time.
const FILLERS: usize = 16;

/// A part of a stream that was read.
#[derive(Debug)]
pub(crate) struct StreamRead {
    position: Position,
    after: u64,
    doubts: u64,
    publications: Vec<Publication>,
}

impl StreamRead {
    pub(crate) fn part(&self) -> ReadPart<'_> {
        ReadPart {
            position: self.position,
            doubts: self.doubts,
            publications: &self.publications,
        }
    }
}

/// The calls of [`Node::read_stream`] that have not returned, by channel.
#[derive(Debug, Default)]
pub(crate) struct StreamReads {
    by_channel: Mutex<HashMap<Channel, Readers>>,
    /// Channels with a running filler: a task that reads the publications that the channel's feed
    /// misses.
    filling: Mutex<HashSet<Channel>>,
}

/// The calls of [`Node::read_stream`] for one channel.
#[derive(Debug, Default)]
struct Readers {
    count: usize,
    turns: Arc<Turns>,
}

/// The reads of one channel's stream, which take place one after another.
#[derive(Debug, Default)]
struct Turns {
    /// The number of reads that have begun.
    begun: AtomicU64,
    /// The last read with its number. A call that was made before this read began may share its
    /// result. The mutex is locked during a read.
    last: AsyncMutex<Option<(u64, Arc<StreamRead>)>>,
}

/// The reference of one call to the [`Turns`] of its channel. When the last reference is dropped,
/// the channel's entry is removed.
struct Reader<'a> {
    reads: &'a StreamReads,
    channel: &'a Channel,
    turns: Arc<Turns>,
}

impl StreamReads {
    fn reader<'a>(&'a self, channel: &'a Channel) -> Reader<'a> {
        let mut by_channel = self.by_channel.lock();
        let readers = by_channel.entry(channel.clone()).or_default();
        readers.count += 1;
        Reader {
            reads: self,
            channel,
            turns: Arc::clone(&readers.turns),
        }
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        // The count is changed and checked under the lock of the map, so that exactly one of
        // several concurrent drops finds it at 0.
        let mut by_channel = self.reads.by_channel.lock();
        if let Some(readers) = by_channel.get_mut(self.channel) {
            readers.count -= 1;
            if readers.count == 0 {
                by_channel.remove(self.channel);
            }
        }
    }
}

impl Node {
    /// Reads a channel's stream after an offset, for the channel's feed and for the caller. The
    /// offset `u64::MAX` asks only for the position.
    pub(crate) async fn read_stream(
        &self,
        channel: &Channel,
        after: u64,
    ) -> Result<Arc<StreamRead>, BackendError> {
        let reader = self.stream_reads.reader(channel);
        let asked_at = reader.turns.begun.load(Ordering::Acquire);
        let mut last = reader.turns.last.lock().await;
        if let Some((number, read)) = &*last
            && *number > asked_at
            && read.after <= after
        {
            self.metrics.stream_reads_shared.inc();
            return Ok(Arc::clone(read));
        }
        let number = reader.turns.begun.fetch_add(1, Ordering::AcqRel) + 1;
        self.metrics.stream_reads.inc();
        let read = Arc::new(self.read_part(channel, after).await?);
        // The part is ingested before the next read begins, because a feed must receive parts in
        // the order in which they were read.
        let fanout = self.fanout();
        self.hub.ingest(channel, read.part(), |publication| {
            fanout.in_turn(publication);
        });
        *last = Some((number, Arc::clone(&read)));
        Ok(read)
    }

    async fn read_part(&self, channel: &Channel, after: u64) -> Result<StreamRead, BackendError> {
        // A doubt means that the feed may have missed publications. The number of doubts is noted
        // before the read, so that a doubt that arises during the read stays open.
        let doubts = self.hub.doubts(channel);
        let streams = &self.backends.streams;
        let limit = u32::MAX;
        let range = match after {
            u64::MAX => StreamRange::Top,
            offset => StreamRange::After { offset, limit },
        };
        let page = streams.read(channel, range).await?;
        let known = self.hub.reached(channel);
        let is_other = known.is_some_and(|at| at.epoch != page.position.epoch);
        if !is_other || after == 0 {
            return Ok(StreamRead {
                position: page.position,
                after,
                doubts,
                publications: page.publications,
            });
        }
        // The offset was of another epoch, so this epoch is read from its beginning.
        let range = StreamRange::After { offset: 0, limit };
        let page = streams.read(channel, range).await?;
        Ok(StreamRead {
            position: page.position,
            after: 0,
            doubts,
            publications: page.publications,
        })
    }

    fn fanout(&self) -> Fanout<'_> {
        Fanout {
            hub: &self.hub,
            metrics: &self.metrics,
        }
    }

    /// Reads the publications that a channel's feed misses, and gives them up at `give_up_at`.
    /// Returns true if nothing is missing.
    async fn fill(&self, channel: &Channel, give_up_at: Instant) -> bool {
        // A feed without a position needs no filler, because the first subscriber reads the stream.
        while let Some(at) = self.hub.reached(channel) {
            match time::timeout_at(give_up_at, self.read_stream(channel, at.offset)).await {
                Ok(Ok(_)) if !self.hub.is_missing(channel) => return true,
                Ok(Ok(_)) => {}
                Ok(Err(error)) => debug!(%channel, error = %error, "the stream could not be read"),
                Err(_) => debug!(%channel, "the stream was not read in time"),
            }
            if Instant::now() + RETRY_DELAY >= give_up_at {
                let fanout = self.fanout();
                self.hub.give_up_missing(channel, |publication| {
                    fanout.in_turn(publication);
                });
                return false;
            }
            time::sleep(RETRY_DELAY).await;
        }
        false
    }
}

/// Fills the feeds that miss publications, for the lifetime of the runtime.
pub(crate) async fn fill(node: Arc<Node>) {
    let places = Arc::new(Semaphore::new(FILLERS));
    loop {
        for channel in poll_fn(|cx| node.hub.poll_wanted(cx)).await {
            // The channel already has a filler. If publications are still missing when this filler
            // ends, the filler calls `want_if_missing`.
            if !node.stream_reads.filling.lock().insert(channel.clone()) {
                continue;
            }
            // The time is counted from now on, so that it includes the wait for a permit.
            let give_up_at = Instant::now() + MAX_WAIT;
            // The semaphore is never closed.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let filler = Arc::clone(&node);
            node.spawn(async move {
                let is_whole = filler.fill(&channel, give_up_at).await;
                filler.stream_reads.filling.lock().remove(&channel);
                // This check follows the removal, because requests from before the removal were
                // left to this filler. If the filler found nothing missing, a feed that only may
                // miss publications is read again too.
                filler.hub.want_if_missing(&channel, is_whole);
                drop(place);
            });
        }
    }
}

/// Compares the feeds of quiet channels with their streams, for the lifetime of the runtime.
pub(crate) async fn compare_quiet(node: Arc<Node>) {
    loop {
        time::sleep(LOOK_INTERVAL).await;
        let Some(since) = StdInstant::now().checked_sub(QUIET) else {
            continue;
        };
        node.compare_streams(&node.hub.quiet_since(since)).await;
    }
}

impl Node {
    /// Compares the positions of channels on this node with the positions of their streams. A
    /// stream that cannot be read, for example while its slot moves, must not keep the other
    /// channels from being compared. After a failure, each half of the channels is therefore read
    /// by a call of its own.
    pub(crate) async fn compare_streams(&self, channels: &[Channel]) {
        let mut parts: Vec<_> = channels.chunks(POSITIONS).collect();
        let mut failures = 0;
        while let Some(some) = parts.pop() {
            let doubts: Vec<_> = some
                .iter()
                .map(|channel| self.hub.doubts(channel))
                .collect();
            let positions = match self.backends.streams.positions(some).await {
                Ok(positions) => positions,
                Err(error) => {
                    debug!(error = %error, channels = some.len(), "the positions of quiet channels could not be compared");
                    failures += 1;
                    let in_touch = self.backends.nodes.standing() == Standing::InTouch;
                    if failures == FAILURES || !in_touch {
                        return;
                    }
                    if some.len() > 1 {
                        let (first, second) = some.split_at(some.len() / 2);
                        parts.extend([second, first]);
                    }
                    continue;
                }
            };
            for ((channel, position), doubts) in some.iter().zip(positions).zip(doubts) {
                self.hub.compare(channel, position, doubts);
            }
        }
    }
}

#[cfg(test)]
mod tests;
