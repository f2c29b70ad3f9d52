//! Streams on this node: channels whose publications have places.
//!
//! All of a channel's deliveries happen under the lock of its feed, in the order of offsets: what
//! pub/sub brings, what is read because it was missing, and what a subscriber is given when it
//! joins. So a subscriber's answer, the publications that it missed and those that follow are
//! queued in this order, without a hole and without a double. Revocation, lease and token are
//! checked for all of them where frames leave ([`crate::Outbox`]).

mod feed;
mod join;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use curfew_model::{Channel, GapReason, Position, Publication};
use parking_lot::{Mutex, RwLock};

use crate::Hub;
use feed::Feed;
pub use feed::{Deliver, FeedState, ReadPart};
pub use join::{Join, Joined, Joining, Subscriber};

/// The share of `limits.window_bytes` that is left once windows had to go: a sweep looks at every
/// feed, so it has to last.
const KEPT_SHARE: f64 = 0.75;

/// The feeds of a node, one for each channel with a stream that is listened to.
#[derive(Debug)]
pub(crate) struct Streams {
    feeds: RwLock<HashMap<Channel, Arc<Mutex<Feed>>>>,
    /// Bytes of all windows.
    window_bytes: AtomicUsize,
    /// `limits.window_bytes`.
    most_bytes: AtomicUsize,
    /// There is at least one feed: asked for each publication without a place.
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
            window_bytes: AtomicUsize::new(0),
            most_bytes: AtomicUsize::new(window_bytes),
            is_used: AtomicBool::new(false),
            wanted: Mutex::default(),
        }
    }

    fn get(&self, channel: &Channel) -> Option<Arc<Mutex<Feed>>> {
        self.feeds.read().get(channel).cloned()
    }

    /// The feed of a channel that may have none yet.
    fn add(&self, channel: &Channel) -> Arc<Mutex<Feed>> {
        let mut feeds = self.feeds.write();
        let feed = feeds.entry(channel.clone());
        Arc::clone(feed.or_insert_with(|| Arc::new(Mutex::new(Feed::new(Instant::now())))))
    }

    /// Acts on a feed, and keeps count of the bytes of windows.
    fn with<T>(&self, feed: &Mutex<Feed>, act: impl FnOnce(&mut Feed) -> T) -> T {
        let mut feed = feed.lock();
        let before = feed.window_bytes();
        let result = act(&mut feed);
        let after = feed.window_bytes();
        drop(feed);
        if after >= before {
            let total = self
                .window_bytes
                .fetch_add(after - before, Ordering::Relaxed);
            if total + (after - before) > self.most_bytes.load(Ordering::Relaxed) {
                self.make_room();
            }
        } else {
            self.window_bytes
                .fetch_sub(before - after, Ordering::Relaxed);
        }
        result
    }

    /// Empties the windows that were not used for the longest time.
    #[cold]
    fn make_room(&self) {
        let most = self.most_bytes.load(Ordering::Relaxed) as f64 * KEPT_SHARE;
        let mut feeds: Vec<_> = self.feeds.read().values().cloned().collect();
        // One that is in use is no candidate.
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
    }

    /// Has the stream of a channel read.
    fn want(&self, channel: &Channel) {
        let mut wanted = self.wanted.lock();
        wanted.channels.insert(channel.clone());
        if let Some(reader) = wanted.reader.take() {
            reader.wake();
        }
    }

    /// Has it read if the feed misses something.
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
    /// A publication has come by pub/sub. `deliver` queues one for all who listen. Returns false,
    /// and does nothing, if the channel has no stream here.
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

    /// A part of a channel's stream was read. `None` if the channel has no feed here any more.
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

    /// The stream could not be read in time: publications that wait are delivered after a gap.
    pub fn give_up_missing(&self, channel: &Channel, deliver: impl FnMut(&Publication)) {
        if let Some(feed) = self.streams.get(channel) {
            self.act(channel, &feed, deliver, |feed, now, out| {
                feed.give_up(now, out);
                feed.state()
            });
        }
    }

    /// Has a feed deliver, under its lock. While the node may not deliver, nothing is done: what
    /// came stays in the stream, and is read once the lease is held again.
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

    /// Publications of a channel may have been missed: its stream is read. Returns false if it has
    /// none here.
    pub fn doubt(&self, channel: &Channel) -> bool {
        let Some(feed) = self.streams.get(channel) else {
            return false;
        };
        self.streams.with(&feed, Feed::doubt);
        self.streams.want(channel);
        true
    }

    /// As [`Hub::doubt`], of every channel with a stream.
    pub fn doubt_all(&self) {
        let feeds = self.streams.feeds.read();
        for (channel, feed) in &*feeds {
            self.streams.with(feed, Feed::doubt);
            self.streams.want(channel);
        }
    }

    /// True if something is known to be missing in a channel, or may be.
    pub fn is_missing(&self, channel: &Channel) -> bool {
        let feed = self.streams.get(channel);
        feed.is_some_and(|feed| feed.lock().confirmed().is_none())
    }

    /// Has the stream of a channel read again, if publications wait for one that is missing.
    pub fn want_if_missing(&self, channel: &Channel) {
        if let Some(feed) = self.streams.get(channel) {
            let state = feed.lock().state();
            self.streams.want_missing(channel, state);
        }
    }

    /// For the one reader: the channels whose streams are to be read.
    pub fn poll_wanted(&self, cx: &mut Context<'_>) -> Poll<HashSet<Channel>> {
        let mut wanted = self.streams.wanted.lock();
        if wanted.channels.is_empty() {
            wanted.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(std::mem::take(&mut wanted.channels))
    }

    /// The publications of a channel's stream were deleted.
    pub fn forget_window(&self, channel: &Channel) {
        if let Some(feed) = self.streams.get(channel) {
            self.streams.with(&feed, Feed::doubt);
        }
    }

    /// The stream of a channel was found at this position by a look that began at `doubts`. Where
    /// the channel's feed is elsewhere, the stream is read.
    pub fn compare(&self, channel: &Channel, position: Position, doubts: u64) {
        let Some(feed) = self.streams.get(channel) else {
            return;
        };
        // Bound first: `doubt` takes the lock again.
        let is_there = feed.lock().confirm(position, doubts, Instant::now());
        if !is_there {
            self.doubt(channel);
        }
    }

    /// The [doubts](ReadPart::doubts) of a channel's feed, to be asked before its stream is read.
    pub fn doubts(&self, channel: &Channel) -> u64 {
        self.streams
            .get(channel)
            .map_or(0, |feed| feed.lock().doubts)
    }

    /// The place that a channel's feed has reached; `None` where it has none, or none yet.
    pub fn reached(&self, channel: &Channel) -> Option<Position> {
        self.streams.get(channel)?.lock().at()
    }

    /// The channels with a stream that have heard nothing since then.
    pub fn quiet_since(&self, since: Instant) -> Vec<Channel> {
        let feeds = self.streams.feeds.read();
        feeds
            .iter()
            .filter(|(_, feed)| feed.lock().is_quiet_since(since))
            .map(|(channel, _)| channel.clone())
            .collect()
    }

    /// The broker does not listen to the channel any more: its feed ends, unless a subscriber is
    /// about to join.
    pub fn end_stream(&self, channel: &Channel) {
        let mut feeds = self.streams.feeds.write();
        let Some(feed) = feeds.get(channel).cloned() else {
            return;
        };
        let mut feed = feed.lock();
        if feed.joining > 0 {
            return;
        }
        // One that has got hold of it, and waits for its lock, sees that it has ended.
        feed.is_ended = true;
        feeds.remove(channel);
        self.streams
            .window_bytes
            .fetch_sub(feed.window_bytes(), Ordering::Relaxed);
    }
}

/// A feed's way to the sessions that listen.
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
