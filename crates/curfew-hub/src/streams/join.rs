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

/// Size allowed for the reply to a subscriber, in bytes, without the missed publications.
const ANSWER_BYTES: usize = 512;

/// Size allowed for each missed publication in the reply, in bytes, without the publication's data.
const MISSED_BYTES: usize = 160;

/// The publications that a subscriber missed.
#[derive(Default)]
struct Missed {
    /// The publications in the reply.
    in_answer: Vec<Publication>,
    /// The frames that follow the reply.
    frames: Vec<Bytes>,
    /// The newest missed publication, for a subscriber that takes differences: the base of the
    /// first live difference.
    newest: Option<Publication>,
}

/// A subscriber that is about to join a channel's stream. While this value exists, the channel
/// counts as listened to.
#[derive(Debug)]
pub struct Joining {
    feed: Arc<Mutex<Feed>>,
    /// The time of day at which the subscriber arrived.
    came_at: Duration,
}

impl Drop for Joining {
    fn drop(&mut self) {
        self.feed.lock().joining -= 1;
    }
}

/// The result of a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    /// Publications after this position follow live; `None` if the channel has no stream.
    pub position: Option<Position>,
    /// True if all publications after the subscriber's own position were queued for it; `None` if
    /// the subscriber named no position.
    pub recovered: Option<bool>,
    /// True if publications are sent to the subscriber as differences.
    pub is_delta: bool,
    /// True if the stream was read for the subscriber; false if the publications in this node's
    /// memory sufficed.
    pub was_read: bool,
}

/// A session that joins a channel.
#[derive(Debug, Clone, Copy)]
pub struct Subscriber<'a> {
    /// The session.
    pub member: &'a Arc<Member>,
    /// The position after which the session wants the publications that it missed.
    pub since: Option<Position>,
    /// True if the session joins only when all missed publications can be recovered.
    pub must_recover: bool,
    /// True if the session takes each publication as its difference to the previous publication.
    pub delta: bool,
}

/// The outcome of an attempt to join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// The subscriber listens.
    Done(Joined),
    /// The subscriber does not listen: the publications after its position cannot be recovered.
    Unrecoverable,
    /// The stream has to be read first, after this offset.
    Read {
        /// The offset after which the stream has to be read.
        after: u64,
    },
}

impl Hub {
    /// Begins to join a channel whose stream stores `size` publications for `ttl`. The broker
    /// listens to the channel already, or the caller asks it to listen next. `now` is the time
    /// since 1970: publications that have expired by then are not recovered.
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
            // A feed that has ended meanwhile no longer belongs to the channel.
            if locked.is_ended {
                continue;
            }
            locked.joining += 1;
            (locked.size, locked.ttl) = (size, ttl);
            drop(locked);
            return Joining { feed, came_at: now };
        }
    }

    /// Adds a listener to a channel with a stream. Queues, in this order: the reply that `answer`
    /// makes, the publications after `since`, and then the live publications. If the protocol
    /// carries missed publications in its reply, `answer` receives them. `read` is the part of the
    /// stream that was read for this subscriber, if any.
    ///
    /// The reply says that nothing is recovered if the publications after `since` cannot be
    /// recovered, or if the session's queue has no room for all of them. `is_last` marks the last
    /// attempt: an unconfirmed position is then enough, and the result is [`Join::Read`] only if
    /// the feed has no position.
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
            let confirmed = feed.joinable(read);
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
                // An unconfirmed position is good only for live publications: earlier publications
                // may be missing.
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
            // The listener is added last and under the lock of the feed, so that it gets the next
            // publication.
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

    /// The missed publications in the form of the session's protocol; `None` if the session's queue
    /// has no room for all of them, or the protocol cannot carry them.
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
