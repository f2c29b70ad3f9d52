//! Subscribers that join a channel with a stream.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use curfew_model::{Channel, DataForm, Epoch, Position, Publication};
use parking_lot::Mutex;

use super::feed::{Feed, ReadPart, Replay};
use crate::outbox::Mark;
use crate::{Hub, Member};

/// Room for the answer to a subscriber, in bytes, which comes before what it missed.
const ANSWER_BYTES: usize = 512;

/// Room for a publication in the answer to a subscriber, in bytes, besides its data.
const MISSED_BYTES: usize = 160;

/// The publications that a subscriber missed.
#[derive(Default)]
struct Missed {
    /// The publications that its answer has.
    in_answer: Vec<Publication>,
    /// The frames that follow the answer.
    frames: Vec<Bytes>,
    /// The newest of them, for a subscriber that takes the difference to it.
    newest: Option<Publication>,
}

/// A subscriber that is about to join a channel's stream. While it is there the channel counts as
/// listened to.
#[derive(Debug)]
pub struct Joining {
    feed: Arc<Mutex<Feed>>,
    /// The time of day at which it came.
    came_at: Duration,
}

impl Drop for Joining {
    fn drop(&mut self) {
        self.feed.lock().joining -= 1;
    }
}

/// The place at which a subscriber joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    /// Publications after this follow live; `None` if the channel has no stream.
    pub position: Option<Position>,
    /// All that came after the subscriber's own position was queued for it; `None` if it named
    /// none.
    pub recovered: Option<bool>,
    /// Publications come to it as differences.
    pub is_delta: bool,
    /// The stream was read for it; false if this node knew enough.
    pub was_read: bool,
}

/// A session that joins a channel.
#[derive(Debug, Clone, Copy)]
pub struct Subscriber<'a> {
    /// The session.
    pub member: &'a Arc<Member>,
    /// Its position: it wants what came after it.
    pub since: Option<Position>,
    /// It joins only if it can have all of that.
    pub must_recover: bool,
    /// It takes each publication as its difference to the one before it.
    pub delta: bool,
}

/// The outcome of an attempt to join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// The subscriber listens.
    Done(Joined),
    /// It does not: what came after its position cannot be had.
    Unrecoverable,
    /// The stream has to be read first, after this offset.
    Read {
        /// The offset.
        after: u64,
    },
}

impl Hub {
    /// Begins to join a channel that has a stream of `size` publications, which are kept for `ttl`.
    /// The broker listens to the channel already, or is asked to next. `now` is the time of day, since
    /// 1970: what the stream has let go of by then is not recovered.
    pub fn begin_join(
        &self,
        channel: &Channel,
        size: usize,
        ttl: Duration,
        now: Duration,
    ) -> Joining {
        self.streams.is_used.store(true, Ordering::Relaxed);
        loop {
            let known = self.streams.get(channel);
            let feed = known.unwrap_or_else(|| self.streams.add(channel));
            let mut locked = feed.lock();
            // A feed that has ended since is not the channel's any more.
            if locked.is_ended {
                continue;
            }
            locked.joining += 1;
            (locked.size, locked.ttl) = (size, ttl);
            drop(locked);
            return Joining { feed, came_at: now };
        }
    }

    /// Adds a listener to a channel with a stream. Queues, in this order: the frame that `answer`
    /// makes of its place, the publications after `since`, and then those that follow. A protocol
    /// that has the missed publications in its answer is given them with the place. `read` is what
    /// was read for this subscriber, if anything was.
    ///
    /// The answer is that nothing is recovered if the publications since then cannot be had, or if
    /// there are more of them than the session's queue has room for. With `is_last` no read is
    /// asked for any more.
    pub fn join(
        &self,
        joining: &Joining,
        channel: &Channel,
        subscriber: Subscriber<'_>,
        read: Option<ReadPart<'_>>,
        is_last: bool,
        answer: impl FnOnce(Joined, &[Publication]) -> Option<Bytes>,
    ) -> Join {
        let Subscriber {
            member,
            since,
            must_recover,
            delta,
        } = subscriber;
        self.streams.with(&joining.feed, |feed| {
            let confirmed = feed.confirmed();
            let Some(position) = confirmed.or_else(|| feed.at().filter(|_| is_last)) else {
                return Join::Read {
                    after: feed.unknown_after(since),
                };
            };
            let since = since.map(|since| match since.epoch {
                Epoch::ANY => Position {
                    epoch: position.epoch,
                    ..since
                },
                _ => since,
            });
            let (recovered, missed) = match since
                .map(|since| feed.replay(since, read, Instant::now(), joining.came_at))
            {
                None => (None, Missed::default()),
                Some(Replay::Read(after)) if !is_last => return Join::Read { after },
                Some(Replay::Read(_) | Replay::Lost) => (Some(false), Missed::default()),
                // A place that was not compared is good for what follows alone.
                Some(Replay::Whole(_)) if confirmed.is_none() => (Some(false), Missed::default()),
                Some(Replay::Whole(missed)) => match self.within_bound(member, missed, delta) {
                    Some(missed) => (Some(true), missed),
                    None => (Some(false), Missed::default()),
                },
            };
            if must_recover && recovered != Some(true) {
                return Join::Unrecoverable;
            }
            let joined = Joined {
                position: Some(position),
                recovered,
                is_delta: delta,
                was_read: read.is_some(),
            };
            if let Some(frame) = answer(joined, &missed.in_answer) {
                let has_publications = !missed.in_answer.is_empty();
                let mark = has_publications.then(|| Mark::Answer(channel.clone()));
                self.send_as(member, frame, mark);
            }
            for frame in missed.frames {
                let size = frame.len();
                if self.deliver(member, frame, None) {
                    self.count_queued(size);
                }
            }
            // Last, and under the lock of the feed: what follows finds it here.
            match delta {
                true => {
                    let base = missed.newest.as_ref();
                    self.channels.add_delta(channel, member, base);
                }
                false => {
                    self.channels.add(channel, member);
                }
            }
            Join::Done(joined)
        })
    }

    /// The publications that one session missed, in the form of its protocol; `None` if its queue
    /// has no room for all of them, or its protocol cannot carry them.
    fn within_bound(
        &self,
        member: &Member,
        publications: Vec<Publication>,
        delta: bool,
    ) -> Option<Missed> {
        let mut room = self.room_of(member).saturating_sub(ANSWER_BYTES);
        let wire = self.wires.get(member.wire());
        let rules = wire.rules();
        let newest = publications.last().filter(|_| delta).cloned();
        if rules.recovers_in_answer {
            for publication in &publications {
                if publication.is_binary && !rules.carries_bytes {
                    return None;
                }
                let size = MISSED_BYTES + publication.data.len();
                room = room.checked_sub(size)?;
            }
            return Some(Missed {
                in_answer: publications,
                frames: Vec::new(),
                newest,
            });
        }
        let form = match delta {
            true => DataForm::Whole,
            false => DataForm::Plain,
        };
        let mut frames = Vec::with_capacity(publications.len());
        for publication in &publications {
            let Some(frame) = wire.publication(publication, form) else {
                continue;
            };
            room = room.checked_sub(frame.len())?;
            frames.push(frame);
        }
        Some(Missed {
            in_answer: Vec::new(),
            frames,
            newest,
        })
    }
}
