//! Streams on this node: channels whose publications have positions.
//!
//! All deliveries of a channel happen under the lock of its feed, in the order of offsets:
//! publications from pub/sub, publications read because they were missing, and publications
//! replayed to a joining subscriber. So the reply to a subscriber, the publications that it missed
//! and the live publications are queued in this order, without holes or duplicates. Revocations,
//! the lease and the token are checked for all of them when frames are written ([`crate::Outbox`]).

mod feed;
mod join;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use curfew_model::{Channel, GapReason, Position, Publication};
use parking_lot::{Mutex, RwLock};

use crate::Hub;
use feed::Feed;
pub use feed::{Deliver, FeedState, ReadPart};
pub use join::{Join, Joined, Joining, Subscriber};

/// Windows are emptied until all windows together hold at most this share of `limits.window_bytes`.
/// Each sweep inspects every feed; freeing a quarter at once keeps sweeps rare.
const KEPT_SHARE: f64 = 0.75;

/// The feeds of a node. A channel has a feed while it has a stream and this node listens to the
/// channel.
#[derive(Debug)]
pub(crate) struct Streams {
    feeds: RwLock<HashMap<Channel, Arc<Mutex<Feed>>>>,
    /// The number of feeds created so far.
    begun: AtomicU64,
    /// Bytes of all windows.
    pub(crate) window_bytes: AtomicUsize,
    /// `limits.window_bytes`.
    most_bytes: AtomicUsize,
    /// True once any channel has had a feed. The flag is read for each publication, before the
    /// publication's feed is looked up.
    is_used: AtomicBool,
    wanted: Mutex<Wanted>,
}

/// Channels whose streams are to be read.
#[derive(Debug, Default)]
struct Wanted {
    channels: HashSet<Channel>,
    reader: Option<Waker>,
}

impl Streams {
    pub(crate) fn new(window_bytes: usize) -> Self {
        Self {
            feeds: RwLock::default(),
            begun: AtomicU64::new(0),
            window_bytes: AtomicUsize::new(0),
            most_bytes: AtomicUsize::new(window_bytes),
            is_used: AtomicBool::new(false),
            wanted: Mutex::default(),
        }
    }

    fn get(&self, channel: &Channel) -> Option<Arc<Mutex<Feed>>> {
        self.feeds.read().get(channel).cloned()
    }

    /// The feed of a channel, created if the channel has none.
    fn add(&self, channel: &Channel) -> Arc<Mutex<Feed>> {
        let mut feeds = self.feeds.write();
        let feed = feeds.entry(channel.clone());
        Arc::clone(feed.or_insert_with(|| {
            let mut feed = Feed::new(Instant::now());
            // Each feed counts its doubts from a different initial number. A read that began for an
            // ended feed thus confirms nothing in the channel's next feed.
            feed.doubts = (self.begun.fetch_add(1, Ordering::Relaxed) + 1) << 32;
            Arc::new(Mutex::new(feed))
        }))
    }

    /// Calls `act` under the feed's lock, and updates the total bytes of windows.
    fn with<T>(&self, feed: &Mutex<Feed>, act: impl FnOnce(&mut Feed) -> T) -> T {
        let mut feed = feed.lock();
        let before = feed.window_bytes();
        let result = act(&mut feed);
        if feed.is_ended {
            // The window's bytes were subtracted from the total when the feed ended, so the window
            // must stay empty.
            feed.forget();
        }
        let after = feed.window_bytes();
        // The bytes are counted under the feed's lock, so that another thread that empties the
        // window subtracts only bytes that were added before.
        let is_over = match after > before {
            true => {
                let added = after - before;
                let total = self.window_bytes.fetch_add(added, Ordering::Relaxed) + added;
                total > self.most_bytes.load(Ordering::Relaxed)
            }
            false => {
                let freed = before - after;
                self.window_bytes.fetch_sub(freed, Ordering::Relaxed);
                false
            }
        };
        drop(feed);
        if is_over {
            self.make_room();
        }
        result
    }

    /// Empties the least recently used windows until the remaining windows hold at most
    /// [`KEPT_SHARE`] of the allowed bytes.
    #[cold]
    fn make_room(&self) {
        let most = self.most_bytes.load(Ordering::Relaxed) as f64 * KEPT_SHARE;
        let mut feeds: Vec<_> = self.feeds.read().values().cloned().collect();
        // A locked feed is in use, and its window stays.
        feeds.retain(|feed| feed.try_lock().is_some_and(|feed| feed.window_bytes() > 0));
        feeds.sort_by_cached_key(|feed| feed.lock().used_at);
        for feed in feeds {
            if self.window_bytes.load(Ordering::Relaxed) as f64 <= most {
                return;
            }
            let mut feed = feed.lock();
            self.window_bytes
                .fetch_sub(feed.window_bytes(), Ordering::Relaxed);
            feed.forget();
        }
    }

    pub(crate) fn set_window_bytes(&self, window_bytes: usize) {
        self.most_bytes.store(window_bytes, Ordering::Relaxed);
        if self.window_bytes.load(Ordering::Relaxed) > window_bytes {
            self.make_room();
        }
    }

    /// Asks the task that calls [`Hub::poll_wanted`] to read the stream of a channel.
    fn want(&self, channel: &Channel) {
        let mut wanted = self.wanted.lock();
        wanted.channels.insert(channel.clone());
        if let Some(reader) = wanted.reader.take() {
            reader.wake();
        }
    }

    /// Requests a read if publications are missing from the feed.
    fn want_missing(&self, channel: &Channel, state: FeedState) {
        if state != FeedState::Whole {
            self.want(channel);
        }
    }

    /// True if a subscriber is about to join the channel.
    pub(crate) fn has_joining(&self, channel: &Channel) -> bool {
        self.get(channel)
            .is_some_and(|feed| feed.lock().joining > 0)
    }
}

impl Hub {
    /// Call this when a publication has arrived by pub/sub. `deliver` queues a publication for all
    /// listeners. Returns false, and does nothing, if the channel has no stream here.
    pub fn arrive(&self, publication: &Publication, deliver: impl FnMut(&Publication)) -> bool {
        if !self.streams.is_used.load(Ordering::Relaxed) {
            return false;
        }
        let channel = &publication.channel;
        let Some(feed) = self.streams.get(channel) else {
            return false;
        };
        let state = self.act(channel, &feed, deliver, |feed, now, out| {
            feed.arrive(publication, now, out)
        });
        self.streams.want_missing(channel, state);
        true
    }

    /// Call this when part of a channel's stream was read. Returns `None` if the channel has no
    /// feed any more.
    pub fn ingest(
        &self,
        channel: &Channel,
        part: ReadPart<'_>,
        deliver: impl FnMut(&Publication),
    ) -> Option<FeedState> {
        let feed = self.streams.get(channel)?;
        Some(self.act(channel, &feed, deliver, |feed, now, out| {
            feed.ingest(part, now, out)
        }))
    }

    /// Call this when the stream could not be read in time. Waiting publications are delivered
    /// after a gap.
    pub fn give_up_missing(&self, channel: &Channel, deliver: impl FnMut(&Publication)) {
        if let Some(feed) = self.streams.get(channel) {
            self.act(channel, &feed, deliver, |feed, now, out| {
                feed.give_up(now, out);
                feed.state()
            });
        }
    }

    /// Calls `act` under the feed's lock. While the node may not deliver, `act` is not called: the
    /// publications stay in the stream, and are read once the lease is held again.
    fn act(
        &self,
        channel: &Channel,
        feed: &Mutex<Feed>,
        deliver: impl FnMut(&Publication),
        act: impl FnOnce(&mut Feed, Instant, &mut dyn Deliver) -> FeedState,
    ) -> FeedState {
        self.streams.with(feed, |feed| {
            if !self.may_broadcast() {
                feed.doubt();
                return FeedState::Whole;
            }
            let mut out = Fanout {
                hub: self,
                channel,
                deliver,
            };
            act(feed, Instant::now(), &mut out)
        })
    }

    /// Call this when publications of a channel may have been missed. The channel's stream is then
    /// read. Returns false if the channel has no stream here.
    pub fn doubt(&self, channel: &Channel) -> bool {
        let Some(feed) = self.streams.get(channel) else {
            return false;
        };
        self.streams.with(&feed, Feed::doubt);
        self.streams.want(channel);
        true
    }

    /// Call this when publications of a channel stop arriving by pub/sub. Until [`Hub::resume`],
    /// the stream is read for each subscriber that joins.
    pub fn interrupt(&self, channel: &Channel) {
        if let Some(feed) = self.streams.get(channel) {
            self.streams.with(&feed, Feed::interrupt);
        }
    }

    /// Call this when publications of a channel arrive by pub/sub again. Call [`Hub::doubt`]
    /// afterwards.
    pub fn resume(&self, channel: &Channel) {
        if let Some(feed) = self.streams.get(channel) {
            self.streams.with(&feed, Feed::resume);
        }
    }

    /// Like [`Hub::doubt`], for every channel with a stream.
    pub fn doubt_all(&self) {
        // The feeds are copied, so that the map's lock is not held while this thread waits for a
        // feed's lock.
        let feeds: Vec<_> = {
            let feeds = self.streams.feeds.read();
            let copy = |(channel, feed): (&Channel, &Arc<_>)| (channel.clone(), Arc::clone(feed));
            feeds.iter().map(copy).collect()
        };
        for (channel, feed) in feeds {
            self.streams.with(&feed, Feed::doubt);
            self.streams.want(&channel);
        }
    }

    /// True if publications of a channel are missing or may be missing.
    pub fn is_missing(&self, channel: &Channel) -> bool {
        let feed = self.streams.get(channel);
        feed.is_some_and(|feed| feed.lock().confirmed().is_none())
    }

    /// Requests another read of a channel's stream if received publications wait for a missing
    /// publication. If `if_doubted` is true, a read is also requested when publications may be
    /// missing.
    pub fn want_if_missing(&self, channel: &Channel, if_doubted: bool) {
        let Some(feed) = self.streams.get(channel) else {
            return;
        };
        let feed = feed.lock();
        let is_doubted = if_doubted && feed.confirmed().is_none();
        let is_due = is_doubted || feed.state() != FeedState::Whole;
        drop(feed);
        if is_due {
            self.streams.want(channel);
        }
    }

    /// For the one task that reads streams: the channels whose streams are to be read.
    pub fn poll_wanted(&self, cx: &mut Context<'_>) -> Poll<HashSet<Channel>> {
        let mut wanted = self.streams.wanted.lock();
        if wanted.channels.is_empty() {
            wanted.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(std::mem::take(&mut wanted.channels))
    }

    /// Call this when the publications of a channel's stream were deleted.
    pub fn forget_window(&self, channel: &Channel) {
        if let Some(feed) = self.streams.get(channel) {
            self.streams.with(&feed, Feed::doubt);
        }
    }

    /// Call this when a comparison has found a channel's stream at `position`. `doubts` is the
    /// feed's count of doubts when the comparison began. If the channel's feed is at another
    /// position, the stream is read.
    pub fn compare(&self, channel: &Channel, position: Position, doubts: u64) {
        let Some(feed) = self.streams.get(channel) else {
            return;
        };
        // The result is assigned to a variable first, which releases the lock: `doubt` takes the
        // lock again.
        let is_there = feed.lock().confirm(position, doubts, Instant::now());
        if !is_there {
            self.doubt(channel);
        }
    }

    /// The [doubts](ReadPart::doubts) of a channel's feed, to be noted before its stream is read.
    pub fn doubts(&self, channel: &Channel) -> u64 {
        self.streams
            .get(channel)
            .map_or(0, |feed| feed.lock().doubts)
    }

    /// The position that a channel's feed has reached; `None` without a feed, or before its first
    /// read.
    pub fn reached(&self, channel: &Channel) -> Option<Position> {
        self.streams.get(channel)?.lock().at()
    }

    /// The position that the stream must have reached, because the channel's feed has reached it.
    /// `None` while the feed delivers, because the caller must not wait for the feed's lock.
    pub fn seen(&self, channel: &Channel) -> Option<Position> {
        let feed = self.streams.get(channel)?;
        feed.try_lock()?.seen()
    }

    /// The channels whose feeds have received nothing since `since`.
    pub fn quiet_since(&self, since: Instant) -> Vec<Channel> {
        let feeds = self.streams.feeds.read();
        feeds
            .iter()
            .filter(|(_, feed)| feed.lock().is_quiet_since(since))
            .map(|(channel, _)| channel.clone())
            .collect()
    }

    /// Call this when the broker no longer listens to the channel. The channel's feed ends, unless
    /// a subscriber is about to join.
    pub fn end_stream(&self, channel: &Channel) {
        let mut feeds = self.streams.feeds.write();
        let Some(feed) = feeds.get(channel).cloned() else {
            return;
        };
        let mut feed = feed.lock();
        if feed.joining > 0 {
            // The joining subscriber needs this feed.
            return;
        }
        // A task that already has the feed, and waits for its lock, then sees that the feed has
        // ended.
        feed.is_ended = true;
        feeds.remove(channel);
        self.streams
            .window_bytes
            .fetch_sub(feed.window_bytes(), Ordering::Relaxed);
        feed.forget();
    }
}

/// Delivers the publications and gaps of a feed to the sessions that listen.
struct Fanout<'a, D> {
    hub: &'a Hub,
    channel: &'a Channel,
    deliver: D,
}

impl<D: FnMut(&Publication)> Deliver for Fanout<'_, D> {
    fn publication(&mut self, publication: &Publication) {
        (self.deliver)(publication);
    }

    fn gap(&mut self, position: Position, reason: GapReason) {
        self.hub.gap_at(self.channel, position, reason);
    }
}
