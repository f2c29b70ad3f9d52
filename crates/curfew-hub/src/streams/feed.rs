//! A channel's stream on this node: the order of delivery, and the window in memory.
//!
//! A feed delivers publications in the order of their offsets, each once. Most publications arrive
//! by pub/sub. A publication whose predecessor is missing waits until the node has read the missing
//! publications. Publications that cannot be read are reported as a gap, at their position. A
//! subscriber joins at the feed's position, so that it needs no buffer of its own.

mod replay;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use curfew_model::{Epoch, GapReason, MAX_OFFSET, Position, Publication};

pub(super) use replay::Replay;

/// Maximum number of publications that wait for a missing publication. Further publications are
/// read from the stream later.
const MAX_WAITING: usize = 1024;

/// Maximum size of the data in the waiting publications, in bytes.
const MAX_WAITING_BYTES: usize = 4 * 1024 * 1024;

/// Approximate memory of a publication in a window besides its data, in bytes.
pub(super) const ENTRY_BYTES: usize = 160;

/// A part of a stream that was read, and the stream's position at that moment.
#[derive(Debug, Clone, Copy)]
pub struct ReadPart<'a> {
    /// The position of the newest publication.
    pub position: Position,
    /// The feed's count of doubts when the read began.
    pub doubts: u64,
    /// The publications after the offset at which the read began, as far as the stream has them,
    /// oldest first.
    pub publications: &'a [Publication],
}

/// The receiver of a feed's publications and gaps.
pub trait Deliver {
    /// Takes a publication, the next in the channel's order.
    fn publication(&mut self, publication: &Publication);

    /// Takes a gap: publications up to and including this position are missing.
    fn gap(&mut self, position: Position, reason: GapReason);
}

/// The state of a feed after it has taken a publication or a [`ReadPart`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedState {
    /// Nothing is known to be missing.
    Whole,
    /// The stream has to be read after this offset, because publications are or may be missing.
    Missing {
        /// The offset that the feed has reached, or 0 if another epoch has begun.
        after: u64,
    },
}

#[derive(Debug)]
pub(super) struct Feed {
    /// The position of the last publication delivered; `None` until the stream was read once.
    at: Option<Position>,
    /// True if `at` agrees with the stream: the two were compared, and no event since then could
    /// have hidden a publication or another epoch.
    is_confirmed: bool,
    /// Number of doubts (events that may have hidden publications). A read that began before the
    /// last doubt confirms nothing.
    pub(super) doubts: u64,
    /// True while publications do not arrive by pub/sub.
    is_interrupted: bool,
    /// The time of the publication at `at`, in milliseconds since 1970; `None` if this feed has not
    /// delivered that publication.
    newest_at: Option<u64>,
    /// True if the stream has given one offset to two publications: it has lost the first of them
    /// and gone back to a lower offset.
    has_gone_back: bool,
    /// The last publications delivered, without holes.
    window: VecDeque<Publication>,
    window_bytes: usize,
    /// The newest position that pub/sub has shown, until the feed has reached it.
    ahead: Option<Position>,
    /// The number of reads that showed an epoch other than the epoch of `ahead`.
    contradicted: u8,
    /// The waiting publications, all of the epoch of `ahead`, as far as there is room.
    waiting: BTreeMap<u64, Publication>,
    waiting_bytes: usize,
    /// The feed's position when the last publication without a position arrived.
    unplaced_at: Option<Position>,
    /// The time of the last delivery or comparison.
    heard_at: Instant,
    /// The time of the last delivery or replay.
    pub(super) used_at: Instant,
    /// Subscribers that are about to join.
    pub(super) joining: usize,
    /// True once this feed is no longer the channel's feed.
    pub(super) is_ended: bool,
    /// Maximum number of publications in the window.
    pub(super) size: usize,
    /// Time after which the window expires, counted from the time of its newest publication.
    pub(super) ttl: Duration,
}

impl Feed {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            at: None,
            is_confirmed: false,
            doubts: 0,
            is_interrupted: false,
            newest_at: None,
            has_gone_back: false,
            window: VecDeque::new(),
            window_bytes: 0,
            ahead: None,
            contradicted: 0,
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            unplaced_at: None,
            heard_at: now,
            used_at: now,
            joining: 0,
            is_ended: false,
            size: 0,
            ttl: Duration::ZERO,
        }
    }

    /// The position of the last publication delivered, while it is known to agree with the stream.
    pub(super) fn confirmed(&self) -> Option<Position> {
        self.at.filter(|_| self.is_confirmed)
    }

    /// The position of the last publication delivered, if it agrees with the stream, so that a
    /// subscriber may join at this position. During an interruption, only a `read` made for the
    /// subscriber shows that the position agrees.
    pub(super) fn joinable(&self, read: Option<ReadPart<'_>>) -> Option<Position> {
        let is_fresh = read.is_some_and(|read| read.doubts == self.doubts);
        self.confirmed()
            .filter(|_| !self.is_interrupted || is_fresh)
    }

    /// The position that the stream must have reached at least. If the stream has gone back, this
    /// is the highest possible position, so that the backend begins another epoch.
    pub(super) fn seen(&self) -> Option<Position> {
        let at = self.at?;
        let offset = match self.has_gone_back {
            true => MAX_OFFSET,
            false => at.offset,
        };
        Some(Position { offset, ..at })
    }

    /// The position of the last publication delivered.
    pub(super) fn at(&self) -> Option<Position> {
        self.at
    }

    /// The offset after which the stream must be read for a subscriber that joins with `since`, and
    /// for publications that may be missing here.
    pub(super) fn unknown_after(&self, since: Option<Position>) -> u64 {
        let known = self.at.map_or(u64::MAX, |at| at.offset);
        let since = since.map_or(u64::MAX, |since| since.offset);
        // If neither position is known, the result is `u64::MAX`: no publication is read.
        known.min(since)
    }

    /// Bytes of the window.
    pub(super) fn window_bytes(&self) -> usize {
        self.window_bytes
    }

    /// Notes a doubt: a subscriber joins only after the position was compared with the stream's.
    pub(super) fn doubt(&mut self) {
        self.is_confirmed = false;
        self.doubts += 1;
        // The window may hold publications that were deleted, or are of an epoch that is over.
        self.forget();
    }

    /// Notes that publications do not arrive by pub/sub.
    pub(super) fn interrupt(&mut self) {
        self.is_interrupted = true;
        self.doubt();
    }

    /// Notes that publications arrive again.
    pub(super) fn resume(&mut self) {
        self.is_interrupted = false;
    }

    /// Compares the feed's position with the stream's; `doubts` was read before the comparison.
    /// Returns true if the positions are equal. Equal positions confirm the feed, unless it misses
    /// publications or a doubt has arisen since.
    pub(super) fn confirm(&mut self, position: Position, doubts: u64, now: Instant) -> bool {
        if self.at != Some(position) {
            return false;
        }
        self.heard_at = now;
        self.is_confirmed = self.is_complete() && doubts == self.doubts;
        true
    }

    /// True if nothing waits for missing publications or for another epoch.
    fn is_complete(&self) -> bool {
        self.ahead.is_none() && !self.has_gone_back
    }

    /// Forgets the window.
    pub(super) fn forget(&mut self) {
        self.window.clear();
        self.window_bytes = 0;
    }

    /// True if there was no delivery and no comparison since `since`.
    pub(super) fn is_quiet_since(&self, since: Instant) -> bool {
        self.heard_at <= since
    }

    /// Takes a publication from pub/sub.
    pub(super) fn arrive(
        &mut self,
        publication: &Publication,
        now: Instant,
        out: &mut dyn Deliver,
    ) -> FeedState {
        let Some(entry) = publication.entry else {
            self.unplaced_at = self.at;
            out.publication(publication);
            if let Some(at) = self.at {
                out.gap(at, GapReason::Unplaced);
            }
            return self.state();
        };
        let Position { epoch, offset } = entry.position;
        match self.at {
            Some(at) if at.epoch == epoch && offset <= at.offset => {
                // Unless the stream has gone back, a publication at a delivered offset is not newer
                // than the newest delivered publication.
                if self.newest_at.is_some_and(|newest| entry.at > newest) {
                    self.has_gone_back = true;
                    self.doubt();
                    return FeedState::Missing { after: 0 };
                }
                return self.state();
            }
            Some(at) if at.epoch == epoch && offset == at.offset + 1 => {
                self.deliver(publication, now, out);
                self.release(now, out);
            }
            _ => self.wait(entry.position, publication),
        }
        self.state()
    }

    fn wait(&mut self, position: Position, publication: &Publication) {
        self.is_confirmed = false;
        match &mut self.ahead {
            Some(ahead) if ahead.epoch == position.epoch => {
                ahead.offset = ahead.offset.max(position.offset);
            }
            _ => {
                self.drop_waiting();
                self.ahead = Some(position);
            }
        }
        let size = publication.data.len();
        if self.waiting.len() >= MAX_WAITING || self.waiting_bytes + size > MAX_WAITING_BYTES {
            // The stream stores the publication, and `ahead` shows that the feed misses it.
            return;
        }
        // Two publications can have one position: the backend may have lost the first.
        let before = self.waiting.insert(position.offset, publication.clone());
        self.waiting_bytes += size;
        self.waiting_bytes -= before.map_or(0, |before| before.data.len());
    }

    fn drop_waiting(&mut self) {
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.ahead = None;
        self.contradicted = 0;
    }

    pub(super) fn state(&self) -> FeedState {
        match (self.at, self.ahead) {
            (Some(at), Some(ahead)) if ahead.epoch == at.epoch => {
                FeedState::Missing { after: at.offset }
            }
            (Some(_), Some(_)) => FeedState::Missing { after: 0 },
            // Without a position, the first subscriber's join reads the stream.
            (None, _) | (Some(_), None) => FeedState::Whole,
        }
    }

    /// Delivers the publication that follows the last delivered publication.
    fn deliver(&mut self, publication: &Publication, now: Instant, out: &mut dyn Deliver) {
        let Some(entry) = publication.entry else {
            return;
        };
        out.publication(publication);
        self.at = Some(entry.position);
        self.newest_at = Some(entry.at);
        (self.heard_at, self.used_at) = (now, now);
        let publication = Publication {
            trace: None,
            ..publication.clone()
        };
        self.window_bytes += size(&publication);
        self.window.push_back(publication);
        while self.window.len() > self.size
            && let Some(oldest) = self.window.pop_front()
        {
            self.window_bytes -= size(&oldest);
        }
    }

    /// Delivers the waiting publications that now follow, and drops those already delivered.
    fn release(&mut self, now: Instant, out: &mut dyn Deliver) {
        while let Some(at) = self.at
            && self.ahead.is_some_and(|ahead| ahead.epoch == at.epoch)
            && let Some(first) = self.waiting.first_entry()
            && *first.key() <= at.offset + 1
        {
            let (offset, publication) = first.remove_entry();
            self.waiting_bytes -= publication.data.len();
            if offset > at.offset {
                self.deliver(&publication, now, out);
            }
        }
        if let (Some(at), Some(ahead)) = (self.at, self.ahead)
            && at.epoch == ahead.epoch
            && at.offset >= ahead.offset
        {
            self.drop_waiting();
        }
    }

    /// Takes a part of the stream that was read. Parts come in the order in which they were read.
    pub(super) fn ingest(
        &mut self,
        part: ReadPart<'_>,
        now: Instant,
        out: &mut dyn Deliver,
    ) -> FeedState {
        let at = match self.at {
            // There is no listener yet, so the feed starts at the newest publication.
            None => self.begin(part),
            Some(at) if at.epoch != part.position.epoch => self.begin_epoch(part, out),
            Some(at) => at,
        };
        self.heard_at = now;
        self.reject_contradicted(part.position.epoch);
        // Live delivery may have overtaken the read.
        if part.position.offset > at.offset {
            for publication in part.publications {
                let Some(entry) = publication.entry else {
                    continue;
                };
                let reached = self.at.map_or(0, |at| at.offset);
                if entry.position.offset <= reached {
                    continue;
                }
                self.skip_to(entry.position.offset - 1, out);
                self.deliver(publication, now, out);
            }
            self.skip_to(part.position.offset, out);
        }
        self.extend_back(part);
        self.release(now, out);
        self.is_confirmed = self.is_complete() && part.doubts == self.doubts;
        self.state()
    }

    /// Drops waiting publications of an epoch that is over. Two reads must show another epoch,
    /// because the first read may have been under way when the publications arrived.
    fn reject_contradicted(&mut self, epoch: Epoch) {
        const ENOUGH_READS: u8 = 2;
        if self.ahead.is_none_or(|ahead| ahead.epoch == epoch) {
            return;
        }
        self.contradicted += 1;
        if self.contradicted >= ENOUGH_READS {
            self.drop_waiting();
        }
    }

    /// Moves the feed to a position whose publication it has not delivered.
    fn move_to(&mut self, at: Position) {
        self.at = Some(at);
        self.newest_at = None;
    }

    fn begin(&mut self, part: ReadPart<'_>) -> Position {
        self.move_to(part.position);
        part.position
    }

    /// Begins a new epoch; nothing of the old epoch is remembered. The feed starts before the
    /// oldest publication that was read, so that all publications of the new epoch are delivered.
    fn begin_epoch(&mut self, part: ReadPart<'_>, out: &mut dyn Deliver) -> Position {
        self.forget();
        let first = part.publications.first().and_then(|first| first.entry);
        let offset = first.map_or(part.position.offset, |entry| entry.position.offset - 1);
        let at = Position {
            offset,
            ..part.position
        };
        out.gap(at, GapReason::Epoch);
        self.move_to(at);
        self.has_gone_back = false;
        at
    }

    /// Reports a gap up to and including `offset`, unless the feed has passed it.
    fn skip_to(&mut self, offset: u64, out: &mut dyn Deliver) {
        let Some(at) = self.at.filter(|at| at.offset < offset) else {
            return;
        };
        let to = Position { offset, ..at };
        self.move_to(to);
        out.gap(to, GapReason::Trimmed);
        self.forget();
    }

    /// Extends the window with the publications before it, up to the first hole.
    fn extend_back(&mut self, part: ReadPart<'_>) {
        let Some(at) = self.at else { return };
        if part.doubts != self.doubts {
            // The publications may have been deleted since they were read.
            return;
        }
        for publication in part.publications.iter().rev() {
            let Some(entry) = publication.entry else {
                return;
            };
            let before = match self.window.front().and_then(|first| first.entry) {
                Some(first) => first.position.offset - 1,
                None => at.offset,
            };
            if entry.position.offset > before {
                continue;
            }
            if entry.position.offset < before || self.window.len() >= self.size {
                return;
            }
            self.window_bytes += size(publication);
            self.window.push_front(publication.clone());
        }
    }

    /// Gives up the missing publications, and delivers the waiting publications after a gap.
    /// Returns false if nothing is missing, or if the waiting publications are of another epoch:
    /// only the stream shows whether that epoch has begun or is over.
    pub(super) fn give_up(&mut self, now: Instant, out: &mut dyn Deliver) -> bool {
        let Some(ahead) = self.ahead else {
            return false;
        };
        if self.at.is_none_or(|at| at.epoch != ahead.epoch) {
            return false;
        }
        // Each hole among the waiting publications is a gap of its own.
        while let Some((&offset, _)) = self.waiting.first_key_value() {
            self.jump(
                Position {
                    offset: offset - 1,
                    ..ahead
                },
                out,
            );
            self.release(now, out);
        }
        if self.ahead.is_some() {
            // The newest publications had no room among the waiting publications.
            self.jump(ahead, out);
            self.drop_waiting();
        }
        // More publications may be missing after the delivered publications.
        self.is_confirmed = false;
        true
    }

    /// Moves the feed to a position that does not follow its last position, and reports the gap.
    fn jump(&mut self, to: Position, out: &mut dyn Deliver) {
        if self.at == Some(to) {
            return;
        }
        out.gap(to, GapReason::Unread);
        self.forget();
        self.move_to(to);
    }
}

fn size(publication: &Publication) -> usize {
    ENTRY_BYTES + publication.data.len()
}

#[cfg(test)]
mod tests;
